# Two commands matter: `make demo` and `make test`. Both set themselves up.
# The first of these that runs and is new enough (a version manager may put names on PATH that do not run).
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; exit; }; done; echo python3)
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
CARGO  := $(shell command -v cargo)
export PYTHONUNBUFFERED = 1
export TOKENIZERS_PARALLELISM = false
export HF_HUB_OFFLINE ?= 1

.PHONY: help venv demo test test-rust test-fast test-slow check fix programs check-programs fuzz-machine fuzz-programs kill-seeds clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

venv: $(READY) ## Create .venv with the package and its commands (once)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "make venv: Python 3.11 or newer is needed, $(PYTHON) is " + sys.version.split()[0] + "; set PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps -e .
	@touch $@

demo: venv ## Train a small MatFormer with three members on an embedded chain, pay out, claim
	$(BIN)/psyche-localnet run config/demo.toml --clients 3 --tiers 0,1,1 --out runs/demo

test: venv test-rust test-fast test-slow ## All tests: Rust where cargo is, then the fast Python ones, then whole runs

test-rust: ## The programs' own tests
ifeq ($(CARGO),)
	@echo "test-rust: cargo is not installed, so the Rust tests are not run; the committed programs are tested from Python"
else
	cargo test --quiet --locked --workspace
endif

test-fast: venv
	$(BIN)/python -m pytest -q -m "not slow" -n 2 --dist loadfile

# Whole runs mostly wait. What two processes cannot do at once, or prepare in common, is an xdist_group.
test-slow: venv
	$(BIN)/python -m pytest -q -m slow -n 2 --dist loadgroup

check: venv ## Linters and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
ifneq ($(CARGO),)
	cargo fmt --all --check
	cargo clippy --quiet --locked --workspace --all-targets -- -D warnings
endif

fix: venv ## Let the linters write
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
ifneq ($(CARGO),)
	cargo fmt --all
endif

programs: venv ## Build the three programs and their IDLs from source into psyche_chain/programs
	$(BIN)/python programs/build.py

check-programs: venv ## Rebuild the programs and compare them with the committed ones
	$(BIN)/python programs/build.py --check

fuzz-programs: venv ## A million random transactions in LiteSVM against a model of every balance and credit
	$(BIN)/python -m tests.programs.fuzz --transactions 1000000 --seed 1

# libFuzzer's own flags; stable Rust takes them, and the corpus stays for the next time.
FUZZ_FLAGS = --cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares
MINUTES ?= 10

fuzz-machine: ## Fuzz the coordinator's state machine for MINUTES (10); needs cargo and a C++ compiler
	mkdir -p build/fuzz-machine
	cd programs/coordinator/fuzz && CARGO_TARGET_DIR=../../../target/fuzz RUSTFLAGS="$(FUZZ_FLAGS)" \
		cargo run --release --quiet --target "$$(rustc -vV | sed -n 's/host: //p')" -- \
		-max_len=8192 -max_total_time=$$(($(MINUTES) * 60)) -print_final_stats=1 \
		-artifact_prefix=$(CURDIR)/build/fuzz-machine/ $(CURDIR)/build/fuzz-machine

kill-seeds: venv ## 20 whole runs, in each of which one member is killed at a random moment
	$(BIN)/python -m benchmarks.kill_seeds --seeds 20

clean: ## Remove what was built; keeps .venv
	rm -rf target build runs .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
