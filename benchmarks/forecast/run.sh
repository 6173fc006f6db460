#!/usr/bin/env bash
# Installs NeuralForecast into .venv-bench (about 5 GB) once and runs run.py. Usage: benchmarks/forecast/run.sh [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")/../.."
if ! .venv-bench/bin/python -c 'import neuralforecast' 2>/dev/null; then
  python3 -m venv .venv-bench
  .venv-bench/bin/python -m pip install --quiet torch==2.11.0 neuralforecast==3.3.0
fi
.venv-bench/bin/python benchmarks/forecast/run.py "${CARGO_TARGET_DIR:-target}/release/deeprc" .venv-bench/bin/python "${1:-3}"
