#!/usr/bin/env python3
"""Our transports beside bare MPI, Gloo and UCX: the same exchange, allreduce and barrier, in turns on one machine.

Usage: run.py [--turns N] [--rounds N] [--only WORDS] [--no-build] [--out FILE]

Every turn runs every contender once, in an order that rotates, so that what else the machine does meets all of them. A contender's
figure is the median of its turns; of a turn, the median of its rounds. Writes benchmarks/results/comm.json and prints a table and
the targets. Needs `make setup-comm`. Python's standard library only.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").resolve()
BUILT = TARGET / "comm-bench"
MIB = 1 << 20
EXCHANGE, ALLREDUCE = 256 * MIB, 64 * MIB
OPEN_MPI = {name: "1" for name in ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "OMPI_MCA_rmaps_base_oversubscribe")}
LONGEST = 300  # seconds that one contender may take in one turn

# Bare programs: source, compiler, what it is linked with.
BARE = {
    "mpi": ("bare_mpi.c", ["mpicc", "-O3"], []),
    "gloo": ("bare_gloo.cc", ["c++", "-O3", "-std=c++17"], ["-lgloo", "-lpthread"]),
    "ucx": ("bare_ucx.c", ["cc", "-O3"], ["-lucp", "-lucs", "-lpthread"]),
}
# What the bare programs call their measurements.
BARE_NAMES = {"exchange": "exchange", "allreduce f32": "allreduce", "allreduce f64": "allreduce of 8 bytes", "barrier": "barrier"}
OUR_NAMES = {"all_to_all": "exchange", "all_to_all_read": "exchange, all bytes read", "allreduce": "allreduce",
             "allreduce_8": "allreduce of 8 bytes", "barrier": "barrier", "build": "communicator build"}

# What has to hold: name, (what, ranks, path), (what, ranks, path) or milliseconds, limit of the ratio.
TARGETS = [
    ("exchange 256 MB: threads (all bytes read) to bare MPI", ("exchange, all bytes read", 2, "threads"), ("exchange", 2, "bare mpi"), 0.35),
    ("exchange 256 MB: shm to bare MPI", ("exchange", 2, "shm"), ("exchange", 2, "bare mpi"), 0.70),
    ("exchange 256 MB: our mpi to bare MPI", ("exchange", 2, "mpi"), ("exchange", 2, "bare mpi"), 1.05),
    ("exchange 256 MB: our gloo to bare Gloo", ("exchange", 2, "gloo"), ("exchange", 2, "bare gloo"), 1.05),
    ("exchange 256 MB: our ucx to bare UCX", ("exchange", 2, "ucx"), ("exchange", 2, "bare ucx"), 1.05),
    ("allreduce 64 MB: threads to bare Gloo", ("allreduce", 2, "threads"), ("allreduce", 2, "bare gloo"), 1.00),
    ("allreduce 64 MB: shm to bare Gloo", ("allreduce", 2, "shm"), ("allreduce", 2, "bare gloo"), 1.00),
    *[(f"build of {ranks} ranks over {path}, in ms", ("communicator build", ranks, path), 1.0, 2.0)
      for path in ("threads", "shm") for ranks in (2, 4, 8)],
]


def say(*words):
    print("bench-comm:", *words, file=sys.stderr, flush=True)


def build():
    """Builds everything; the names of the bare programs that could not be built are left out."""
    features = "mpi,gloo,ucx"
    subprocess.run(["cargo", "build", "--release", "--locked", "-p", "deeprc-comm", "--features", features, "--example", "exchange_speed"],
                   cwd=ROOT, check=True)
    BUILT.mkdir(parents=True, exist_ok=True)
    for name, (source, compiler, libraries) in BARE.items():
        file, program = HERE / source, BUILT / f"bare_{name}"
        program.unlink(missing_ok=True)
        if not file.exists() or not shutil.which(compiler[0]):
            say(f"bare {name} is left out: no {source if not file.exists() else compiler[0]}")
            continue
        done = subprocess.run([*compiler, "-o", program, file, *libraries], stderr=subprocess.PIPE, text=True)
        if done.returncode:
            say(f"bare {name} is left out, it does not compile:\n{done.stderr}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(command, ranks=None, **variables):
    """Lines of JSON that a command prints; with `ranks`, it is started once for each rank, with the variables of a launcher."""
    environment = {**os.environ, **OPEN_MPI, **variables}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as scratch:
        if ranks is None:
            commands = [environment]
        else:
            place = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "BENCH_DIR": scratch}
            commands = [{**environment, **place, "RANK": str(rank)} for rank in range(ranks)]
        started = [subprocess.Popen([str(word) for word in command], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                   for env in commands]
        lines = []
        try:
            for process in started:
                out, err = process.communicate(timeout=LONGEST)
                if process.returncode:
                    raise RuntimeError(f"{' '.join(map(str, command))} ended with {process.returncode}:\n{err[-2000:]}")
                lines += [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        finally:
            for process in started:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        return lines


def ours(path, ranks, size, rounds, what, spin=None):
    """`spin` is how many microseconds a wait spins before it sleeps, where it is not the usual."""
    label, variables = (path, {}) if spin is None else (f"{path} spin {spin}", {"DEEPRC_COMM_SPIN": str(spin)})

    def once():
        program = [TARGET / "release/examples/exchange_speed", path, ranks, size, rounds, what]
        lines = run(["mpirun", "-n", ranks, *program] if path == "mpi" else program, **variables)
        return [((OUR_NAMES[line["what"]], line["ranks"], label), line["bytes_per_rank"], line["ms"]["median"]) for line in lines]
    return f"{label}, {ranks} ranks, {what}", once


def bare(path, ranks, rounds):
    def once():
        program = [BUILT / f"bare_{path}", rounds]
        lines = run(["mpirun", "-n", ranks, *program]) if path == "mpi" else run(program, ranks)
        return [((BARE_NAMES[line["what"]], ranks, f"bare {path}"), line["bytes"], line["median_ms"]) for line in lines if line["what"] in BARE_NAMES]
    return f"bare {path}, {ranks} ranks", once


def contenders(rounds):
    for path in ("threads", "shm", "mpi", "gloo", "ucx"):
        large = "all_to_all,all_to_all_read" if path in ("threads", "shm") else "all_to_all"
        yield ours(path, 2, EXCHANGE, rounds, large)
        yield ours(path, 2, ALLREDUCE, rounds, "allreduce,allreduce_8,barrier")
    for path in ("threads", "shm"):
        for spin in (0, 50):
            yield ours(path, 2, MIB, rounds, "allreduce_8,barrier", spin)
    for path in BARE:
        if (BUILT / f"bare_{path}").exists():
            yield bare(path, 2, rounds)
    for ranks in (2, 4, 8):
        for path in ("threads", "shm"):
            yield ours(path, ranks, MIB, 5 * rounds, "build")


def version(*command):
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, timeout=20).stdout.strip().splitlines()[0]
    except (OSError, IndexError, subprocess.TimeoutExpired):
        return None


def package(name):
    return version("dpkg-query", "-W", "-f", "${Version}\n", name)


def machine():
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    memory = next(int(line.split()[1]) // 1024 for line in open("/proc/meminfo") if line.startswith("MemTotal"))
    return {"cpu": cpu, "cores": os.cpu_count(), "memory_mib": memory, "kernel": platform.release()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="contenders whose name contains these words")
    parser.add_argument("--no-build", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "benchmarks/results/comm.json")
    arguments = parser.parse_args()
    if not arguments.no_build:
        build()
    found = [(name, once) for name, once in contenders(arguments.rounds) if arguments.only in name]
    times, sizes, failed = {}, {}, {}
    load = os.getloadavg()
    for turn in range(arguments.turns):
        for step in range(len(found)):
            name, once = found[(step + turn) % len(found)]
            if name in failed:
                continue
            say(f"turn {turn + 1} of {arguments.turns}: {name}")
            try:
                for key, size, milliseconds in once():
                    times.setdefault(key, []).append(milliseconds)
                    sizes[key] = size
            except (RuntimeError, subprocess.TimeoutExpired, OSError) as error:
                failed[name] = str(error)
                say(f"{name} is left out: {error}")
    middle = {key: statistics.median(values) for key, values in times.items()}
    rows = [{"what": what, "ranks": ranks, "path": path, "bytes_per_rank": sizes[what, ranks, path], "turns": len(values),
             "ms": {"min": min(values), "median": middle[what, ranks, path], "max": max(values)}}
            for (what, ranks, path), values in sorted(times.items())]
    targets = []
    for name, above, below, limit in TARGETS:
        under = below if isinstance(below, float) else middle.get(below)
        ratio = middle[above] / under if above in middle and under else None
        targets.append({"name": name, "ratio": ratio, "limit": limit, "met": None if ratio is None else ratio <= limit})
    result = {
        "machine": machine(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "load_average": {"before": load, "after": os.getloadavg()},
        "versions": {"deeprc": version("git", "describe", "--always", "--dirty"), "rustc": version("rustc", "--version"),
                     "mpi": version("mpirun", "--version"), "gloo": package("libgloo-dev"), "ucx": package("libucx-dev")},
        "turns": arguments.turns, "rounds": arguments.rounds, "rows": rows, "targets": targets, "failed": failed,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    show(rows, targets)
    say(f"written to {arguments.out}; load average {load[0]:.2f} before, {os.getloadavg()[0]:.2f} after")
    return 1 if failed else 0


def show(rows, targets):
    print(f"{'what':<26} {'ranks':>5} {'path':<16} {'median ms':>12} {'min':>12} {'max':>12}")
    for row in rows:
        ms = row["ms"]
        print(f"{row['what']:<26} {row['ranks']:>5} {row['path']:<16} {ms['median']:>12.4f} {ms['min']:>12.4f} {ms['max']:>12.4f}")
    print()
    for target in targets:
        verdict = {True: "met", False: "MISSED", None: "not measured"}[target["met"]]
        ratio = "-" if target["ratio"] is None else f"{target['ratio']:.3f}"
        print(f"{verdict:<13} {ratio:>7} <= {target['limit']:<5} {target['name']}")


if __name__ == "__main__":
    sys.exit(main())
