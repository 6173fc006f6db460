# Deep RC. Two commands are all a fresh machine needs: `make demo` and `make test`.
# Needs: Rust (stable), Python >= 3.10 with venv, a C++ compiler. Everything else is put into .venv by `make setup`.
CARGO ?= cargo
FLAGS  := --release --locked --workspace
# The executables lie where cargo puts them; CARGO_TARGET_DIR may point outside the clone.
TARGET := $(or $(CARGO_TARGET_DIR),target)
DEEPRC := $(TARGET)/release/deeprc

.PHONY: help setup setup-python setup-browser build demo test check fmt clippy deny bench clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: ## libtorch into .venv (543 MB once); quiet when nothing is missing
	@scripts/setup.sh libtorch

setup-python: setup ## what `import torch` needs beyond libtorch (3.5 GB once): for the PyTorch tasks of the tests
	@scripts/setup.sh python

setup-browser: ## headless Chromium, with which the tests look at the report
	@scripts/setup.sh browser

# `deeprc` must never link libtorch: it is built without the feature `torch`, the rank executable with it.
build: setup ## the executables `deeprc` and `deeprc-forecast`
	@$(CARGO) build $(FLAGS) --bins
	@$(CARGO) build $(FLAGS) --features deeprc-forecast/torch --bin deeprc-forecast

demo: build ## the main job on generated data; prints where the report is
	@$(DEEPRC) run pipelines/forecast.toml

test: setup-python setup-browser build ## every test
	$(CARGO) test $(FLAGS) --no-fail-fast
	$(CARGO) test --release --locked -p deeprc-forecast --features torch --no-fail-fast

check: fmt clippy test ## what a change must pass

fmt: ## formatting
	$(CARGO) fmt --all --check

clippy: setup ## lints, warnings denied
	$(CARGO) clippy $(FLAGS) --all-targets --features deeprc-forecast/torch -- -D warnings

deny: ## licences, duplicate versions and sources of the third-party crates (needs cargo-deny)
	$(CARGO) deny --all-features check bans licenses sources

bench: build ## training speed beside NeuralForecast (installs it into .venv-bench)
	benchmarks/forecast/run.sh

clean: ## everything built, and the runs; .venv stays
	$(CARGO) clean
	rm -rf runs
