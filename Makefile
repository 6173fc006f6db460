# Deep RC. Two commands are all a fresh machine needs: `make demo` and `make test`.
# Needs: Rust (stable), Python >= 3.10 with venv, a C++ compiler. Everything else is put into .venv by `make setup`.
CARGO ?= cargo
FLAGS  := --release --locked --workspace
# The executables lie where cargo puts them; CARGO_TARGET_DIR may point outside the clone.
TARGET := $(or $(CARGO_TARGET_DIR),target)
DEEPRC := $(TARGET)/release/deeprc

# Transports beside threads and shared memory: `make build COMM="mpi gloo ucx"`. None by default.
COMM     ?=
COMM_ALL := mpi gloo ucx nccl
comma    := ,
# $(call features,PREFIX,NAMES) gives PREFIX/NAME,PREFIX/NAME
empty    :=
space    := $(empty) $(empty)
features  = $(subst $(space),$(comma),$(strip $(addprefix $(1)/,$(2))))

.PHONY: help setup setup-python setup-browser setup-comm build demo test test-comm test-loom check fmt clippy deny bench bench-comm clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: ## libtorch into .venv (543 MB once); quiet when nothing is missing
	@scripts/setup.sh libtorch

setup-python: setup ## what `import torch` needs beyond libtorch (3.5 GB once): for the PyTorch tasks of the tests
	@scripts/setup.sh python

setup-browser: ## headless Chromium, with which the tests look at the report
	@scripts/setup.sh browser

setup-comm: ## what the transports MPI, Gloo and UCX are built against (Debian packages)
	@scripts/setup.sh comm

# `deeprc` must never link libtorch: it is built without the feature `torch`, the rank executable with it.
build: setup $(if $(COMM),setup-comm) ## the executables `deeprc` and `deeprc-forecast`; with COMM="mpi gloo ucx" those transports too
	@$(CARGO) build $(FLAGS) --bins $(if $(COMM),--features $(call features,deeprc,$(COMM)))
	@$(CARGO) build $(FLAGS) --features deeprc-forecast/torch$(if $(COMM),$(comma)$(call features,deeprc-forecast,$(COMM))) --bin deeprc-forecast

demo: build ## the main job on generated data; prints where the report is
	@$(DEEPRC) run pipelines/forecast.toml

test: setup-python setup-browser build ## every test
	$(CARGO) test $(FLAGS) --no-fail-fast
	$(CARGO) test --release --locked -p deeprc-forecast --features torch --no-fail-fast

test-comm: setup setup-comm ## every transport: tests, checks and faults as a table, three hosts where this machine can have them
	DEEPRC_TRANSPORTS_LARGE=1 $(CARGO) test --release --locked -p deeprc-comm --features $(subst $(space),$(comma),$(COMM_ALL)) --no-fail-fast
	$(CARGO) build $(FLAGS) --bin deeprc --features $(call features,deeprc,$(COMM_ALL))
	tests/clusters/comm_over_hosts.sh $(DEEPRC)

test-loom: ## the shared-memory ring in every order of its steps
	RUSTFLAGS="--cfg loom" $(CARGO) test --release --locked -p deeprc-comm --test loom --target-dir $(TARGET)/loom

check: fmt clippy test ## what a change must pass

fmt: ## formatting
	$(CARGO) fmt --all --check

clippy: setup setup-comm ## lints, warnings denied
	$(CARGO) clippy $(FLAGS) --all-targets --features deeprc-forecast/torch,$(call features,deeprc-comm,$(COMM_ALL)) -- -D warnings

deny: ## licences, duplicate versions and sources of the third-party crates (needs cargo-deny)
	$(CARGO) deny --all-features check bans licenses sources

bench: build ## training speed beside NeuralForecast (installs it into .venv-bench)
	benchmarks/forecast/run.sh

bench-comm: setup-comm ## our transports beside bare MPI, Gloo and UCX; writes benchmarks/results/comm.json
	benchmarks/comm/run.py

clean: ## everything built, and the runs; .venv stays
	$(CARGO) clean
	rm -rf runs
