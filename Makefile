# One line a target; `make help` lists them. Nothing is needed first but Python 3.11+ and make.
SHELL := /bin/bash
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Tests without processes of their own share out the cores; those with them have the machine, and
# run what `make fast` has compiled, if it has.
APART := $(BIN)/python -m pytest -n auto --dist loadfile --ignore tests/integration --ignore tests/interop
TOGETHER := RING_PURE=0 $(BIN)/python -m pytest tests/integration tests/interop
# The same for planted bugs, which are subclasses: they need the sources.
LIVE_ZOO := tests/zoo/test_zoo_live.py

.PHONY: help setup fast cluster-up cluster-down cluster-status test test-all check bench sim zoo clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

$(READY): pyproject.toml constraints.txt
	@bash scripts/setup.sh "$(PYTHON)" "$(VENV)"

setup: $(READY) ## make the virtual environment and install everything into it

fast: setup ## compile the modules on the hot paths, once: two to four times their speed
	@$(BIN)/python scripts/compile.py

cluster-up: setup ## start three Raft nodes and wait until they are healthy
	@$(BIN)/ring up

cluster-down: setup ## stop all daemons; data stays
	@$(BIN)/ring down

cluster-status: setup ## a row a node
	@$(BIN)/ring status

test: setup ## the tests that belong to every change: minutes
	@$(APART) && $(TOGETHER)

test-all: setup ## those and the slow ones
	@$(APART) -m '' --ignore $(LIVE_ZOO) && $(TOGETHER) -m '' && $(BIN)/python -m pytest -m '' $(LIVE_ZOO)

check: setup ## ruff, mypy --strict, and the house rules
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/python -m pytest -q tests/test_tidy.py

bench: setup ## every benchmark, beside what people use today where it is installed
	-@$(BIN)/python scripts/compile.py
	@$(BIN)/ring bench --peers

sim: setup ## a hundred seeds of the deterministic simulation
	@$(BIN)/ring sim register --seeds 100

zoo: setup ## planted bugs: every one must be caught (docs/zoo.md)
	@$(BIN)/python -m pytest -n auto --dist worksteal -m '' tests/zoo --ignore $(LIVE_ZOO)
	@$(BIN)/python -m pytest -m '' $(LIVE_ZOO)

clean: ## remove the virtual environment and all caches; .ring stays
	@rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
