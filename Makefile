# Needs Python 3.11+ and make; everything else is set up here.
PYTHON ?= python3
VENV := .venv
OLDEST := .venv-oldest
BIN := $(VENV)/bin

.PHONY: demo test test-oldest lint types docs-check train results clean help

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[eval]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

$(OLDEST)/.dev: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install --quiet -c constraints-oldest.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/.demo  ## ask the shipped model about 20 pictures at a 20 % budget
	$(BIN)/python examples/demo.py

test: $(VENV)/.dev  ## all tests, newest supported transformers
	$(BIN)/python -m pytest

test-oldest: $(OLDEST)/.dev  ## all tests, oldest supported transformers
	$(OLDEST)/bin/python -m pytest

lint: $(VENV)/.dev  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev  ## mypy, strict on the package
	$(BIN)/mypy

clean:  ## remove what the targets above set up
	rm -rf $(VENV) $(OLDEST) .mypy_cache .pytest_cache .ruff_cache .hypothesis out
