# `make demo` and `make test` need Python 3.11 or newer, make and gcc; each makes the environment it needs in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BASE := $(VENV)/.base
DEV := $(VENV)/.dev

.PHONY: help demo test test-fast test-integration bench lint lock clean

help:
	@echo "make demo       environment, then a real table of DSI++ (minutes)"
	@echo "make test       environment, fast suite, integration suite"
	@echo "make test-fast  fast suite only"
	@echo "make bench      speed of the engine against its budgets"
	@echo "make lint       ruff and mypy"

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(BASE): pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install -q -c constraints.txt -e .
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(BASE)
	$(BIN)/pip install -q -c constraints.txt -e .[dev]
	@touch $@

demo: $(BASE)
	$(BIN)/repro table dsi_pp/continual --scale tiny --seeds 2 --rows cl_new,cl_all,genmem_all

test: lint test-fast test-integration

test-fast: $(DEV)
	$(BIN)/python -m pytest -n 2

test-integration: $(DEV)
	$(BIN)/python -m pytest -m integration -rs -v

bench: $(DEV)
	$(BIN)/python -m tests.benchmarks.engine

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Exact versions of everything: run after changing a pin in pyproject.toml.
lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock && build/lock/bin/pip install -q -e .[dev]
	build/lock/bin/pip freeze --exclude-editable | sed 's/+cpu//' > constraints.txt

clean:
	rm -rf $(VENV) build
