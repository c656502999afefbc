# `make report` and `make test` each do everything from a fresh clone; see README.md for the same without make.
PYTHON ?= python3
VENV   ?= .venv
PRESET ?= quick
BIN     = $(VENV)/bin
# Two runs side by side with one thread each are faster than one run with two: most operations are small.
export OMP_NUM_THREADS ?= 1
export PATH := $(abspath $(BIN)):$(PATH)
CORES  ?= $(shell getconf _NPROCESSORS_ONLN)

.PHONY: help report book test check lab clean
.DEFAULT_GOAL := help

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1: /p' Makefile

report: $(VENV)/installed  ## train the quick preset, build the book with it
	$(BIN)/snakemake --cores $(CORES) --keep-going --quiet rules --config preset=$(PRESET) -- book
	@echo; echo "The book: file://$(CURDIR)/book/_build/html/index.html"

book: $(VENV)/installed  ## build the book from the records at hand, without training
	$(BIN)/jupyter-book build book/ --all -W -n --keep-going --quiet
	@echo; echo "The book: file://$(CURDIR)/book/_build/html/index.html"

test: $(VENV)/installed check  ## all tests, with coverage
	$(BIN)/python -m pytest --cov --cov-report=term

check: $(VENV)/installed  ## lint, format, types, import contract
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

lab: $(VENV)/installed  ## JupyterLab in the experiments folder
	$(BIN)/jupyter lab experiments

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[workflow,dev]'
	touch $@

clean:  ## everything that can be made again, but not the data
	rm -rf $(VENV) book/_build .snakemake
