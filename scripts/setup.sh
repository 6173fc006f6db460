#!/usr/bin/env bash
# Installs what is missing and says nothing when nothing is. Usage: scripts/setup.sh libtorch|python|browser|comm
set -euo pipefail
cd "$(dirname "$0")/.."

TORCH=2.11.0 # bound to the `tch` of Cargo.toml; crates/forecast/build.rs checks it
# libtorch_cpu.so of the wheel is linked against these two, also on a machine without a GPU.
LIBTORCH_WHEELS="torch==$TORCH nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85"
# What `import torch` and an optimizer need besides, by the wheel's own pins (`pip show torch`).
PYTHON_WHEELS="typing-extensions sympy mpmath numpy nvidia-cublas==13.1.0.3 nvidia-cudnn-cu13==9.19.0.56 nvidia-cufft==12.0.0.61
  nvidia-cufile==1.15.1.6 nvidia-curand==10.4.0.35 nvidia-cusparse==12.6.3.3 nvidia-cusparselt-cu13==0.8.0
  nvidia-nccl-cu13==2.28.9 nvidia-nvshmem-cu13==3.4.5 nvidia-nvjitlink==13.0.88"

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { printf 'setup: error: %s\nhint: %s\n' "$1" "$2" >&2; exit 1; }
has_gpu() { compgen -G '/dev/nvidia[0-9]*' >/dev/null; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
pip() { .venv/bin/python -m pip --disable-pip-version-check install --quiet "$@"; }
installed_torch() { sed -n "s/^__version__ = '\([0-9.]*\).*/\1/p" .venv/lib/python3*/site-packages/torch/version.py 2>/dev/null || true; }

need_tools() {
  command -v cargo >/dev/null || fail "cargo is not installed" "install Rust with rustup, then run the command again"
  command -v c++ >/dev/null || fail "no C++ compiler" "Debian, Ubuntu: apt-get install g++"
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
    fail "python3 is missing or older than 3.10" "Debian, Ubuntu: apt-get install python3 python3-venv"
}

libtorch() {
  if [ "$(installed_torch)" = "$TORCH" ] && [ -e .libtorch/lib/libtorch_cpu.so ]; then return; fi
  need_tools
  if [ -n "${LIBTORCH:-}" ]; then ln -sfn "$LIBTORCH" .libtorch; return; fi # an own libtorch; build.rs checks its version
  [ -x .venv/bin/python ] || python3 -m venv .venv || fail "python3 cannot make a virtual environment" "Debian, Ubuntu: apt-get install python3-venv"
  if has_gpu; then
    say "an NVIDIA GPU is here: installing PyTorch $TORCH with CUDA into .venv (about 4.5 GB)"
    pip "torch==$TORCH"
  else
    say "installing libtorch $TORCH into .venv (543 MB)"
    # shellcheck disable=SC2086 # a list of words
    pip --no-deps $LIBTORCH_WHEELS
  fi
  ln -sfn "$(ls -d .venv/lib/python3*/site-packages/torch)" .libtorch
}

python() {
  if .venv/bin/python -c 'import torch, torch.distributed, sympy, numpy' 2>/dev/null; then return; fi
  [ -x .venv/bin/python ] || fail "no .venv" "run \`make setup\` first"
  say "completing .venv so that \`import torch\` works (about 3.5 GB)"
  # shellcheck disable=SC2086
  pip --no-deps $PYTHON_WHEELS
  .venv/bin/python -c 'import torch, torch.distributed' || fail "\`import torch\` still fails in .venv" "remove .venv and run \`make setup-python\` again"
}

browser() {
  if command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null; then return; fi
  if ! command -v apt-get >/dev/null; then say "no Chromium: the tests that look at the report in a browser are left out"; return; fi
  say "installing chromium"
  as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null ||
    say "chromium could not be installed: the tests that look at the report in a browser are left out"
}

# What the features `mpi`, `gloo` and `ucx` are built against; bindgen of the crate `mpi` needs libclang.
COMM_PACKAGES="libopenmpi-dev openmpi-bin libgloo-dev libucx-dev libclang-dev"
has_package() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

comm() {
  if ! command -v dpkg-query >/dev/null; then
    # Another distribution: take what the user has installed, and name what is missing.
    command -v mpicc >/dev/null || fail "no mpicc" "install Open MPI or MPICH with its headers, Gloo, UCX and libclang; Debian calls them $COMM_PACKAGES"
    return
  fi
  local missing=()
  for package in $COMM_PACKAGES; do has_package "$package" || missing+=("$package"); done
  if [ ${#missing[@]} = 0 ]; then return; fi
  say "installing ${missing[*]}"
  if ! { as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; }; then
    fail "${missing[*]} could not be installed" "as root: apt-get install ${missing[*]}"
  fi
}

case "${1:-}" in
libtorch | python | browser | comm) "$1" ;;
*) fail "unknown part \`${1:-}\`" "one of libtorch, python, browser, comm" ;;
esac
