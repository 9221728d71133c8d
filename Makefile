# Every target is safe to repeat.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Files in their own order: sorted by the number of their tests, the slowest (a real SLURM) would begin last.
SIDE_BY_SIDE := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: install quickstart test test-long test-alone test-gpu lint docs bench clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade -c constraints.txt pip
	# torch first and pinned: a later package that asks for any torch then takes what is there.
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

quickstart: install
	$(BIN)/trainlarge run quickstart

test: install
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not long and not gpu and not alone"

test-long: install
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m long

# Measures time: nothing else may run on the machine.
test-alone: install
	$(BIN)/python -m pytest -m alone

# With PYTHON=... that interpreter as it is, with nothing installed: the machine with the GPU may have no network.
ifeq ($(origin PYTHON),command line)
test-gpu: GPU_PYTHON := $(PYTHON)
else
test-gpu: GPU_PYTHON := $(BIN)/python
test-gpu: install
endif
test-gpu:
	PYTHONPATH=$(CURDIR)/src$${PYTHONPATH:+:$$PYTHONPATH} $(GPU_PYTHON) -m pytest -m gpu tests/gpu

lint: install
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install
	$(BIN)/python docs/make_configuration.py

bench: install
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/finetuning.py
	$(BIN)/python benchmarks/compress_grid.py
	$(BIN)/python benchmarks/recovery.py
	$(BIN)/python benchmarks/sweep_overhead.py
	$(BIN)/python benchmarks/grid_price.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache
