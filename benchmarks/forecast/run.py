"""Training steps per second: Deep RC beside NeuralForecast on the same series, CPU and options, in turns.

Usage: run.py DEEPRC PYTHON [ROUNDS]   (PYTHON has neuralforecast; see run.sh). Prints a Markdown table and each reading.
"""

import csv
import datetime
import json
import math
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
STEPS = {"nlinear": 400, "nhits": 150}  # long enough for the first step, which our figure includes, not to count


def series(file, rows=14400):
    """A daily cycle and correlated noise, hourly, the size of an ETT series."""
    rng, noise, start = random.Random(1), 0.0, datetime.datetime(2016, 7, 1)
    with open(file, "w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["date", "OT"])
        for hour in range(rows):
            noise = 0.9 * noise + rng.gauss(0, 1)
            writer.writerow([start + datetime.timedelta(hours=hour), f"{20 + 5 * math.sin(hour * math.pi / 12) + noise:.4f}"])


def deeprc(program, source, model, work):
    command = [program, "run", HERE / "speed.toml", "--dir", work, "--set", f"source={source}", "--set", f"model={model}",
               "--set", f"steps={STEPS[model]}", "--json", "--no-progress"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    run = pathlib.Path(json.loads(done.stdout)["run"])
    return json.loads((run / "run.json").read_text())["curves"][0]["steps_per_second"]


def neuralforecast(python, source, model):
    command = [python, HERE / "neuralforecast_speed.py", source, model, str(STEPS[model])]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(done.stdout.splitlines()[-1])["steps_per_second"]


def main():
    program, python, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 3
    with tempfile.TemporaryDirectory() as work:
        source = os.path.join(work, "series.csv")
        series(source)
        print("| model | Deep RC, steps/s | NeuralForecast 3.3, steps/s | ratio of medians |\n|---|---|---|---|")
        for model in STEPS:
            ours, theirs = [], []
            for _ in range(rounds):
                ours.append(deeprc(program, source, model, work))
                theirs.append(neuralforecast(python, source, model))
            show = lambda rates: f"{statistics.median(rates):.1f} ({', '.join(f'{r:.1f}' for r in rates)})"
            print(f"| {model} | {show(ours)} | {show(theirs)} | {statistics.median(ours) / statistics.median(theirs):.2f} |", flush=True)


if __name__ == "__main__":
    main()
