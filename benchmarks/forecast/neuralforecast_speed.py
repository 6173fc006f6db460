"""Training speed of NeuralForecast on one series: prints one JSON object with the steps per second after a warm-up.

Usage: neuralforecast_speed.py SERIES.csv MODEL STEPS
"""

import json
import logging
import sys
import time
import warnings

import pandas as pd
import pytorch_lightning as pl
import torch
from neuralforecast import NeuralForecast
from neuralforecast.models import GRU, NHITS, NLinear

WARM_UP = 10  # steps before the clock starts


class Clock(pl.Callback):
    """The moments at which training steps end; of the class, because NeuralForecast trains a copy of the model."""

    ends = []

    def on_train_batch_end(self, *_):
        Clock.ends.append(time.perf_counter())


def main():
    file, name, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    frame = pd.read_csv(file, parse_dates=["date"]).rename(columns={"date": "ds", "OT": "y"})
    frame["unique_id"] = "OT"
    frame["y"] = (frame["y"] - frame["y"].mean()) / frame["y"].std()
    model = {"nlinear": NLinear, "nhits": NHITS, "gru": GRU}[name](
        h=96, input_size=336, max_steps=steps, val_check_steps=10**9, callbacks=[Clock()],
        enable_progress_bar=False, logger=False, enable_model_summary=False,
    )
    NeuralForecast(models=[model], freq="h").fit(frame[["unique_id", "ds", "y"]])
    ends = Clock.ends
    rate = (len(ends) - 1 - WARM_UP) / (ends[-1] - ends[WARM_UP])
    print(json.dumps({"steps_per_second": rate, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
