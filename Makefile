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

EVAL := $(BIN)/hired eval
results: $(VENV)/.demo  ## measure the shipped model again (half an hour on two cores)
	$(EVAL) --task forms -o benchmarks/forms.json -o benchmarks/forms.png
	$(EVAL) --task forms --fonts unseen --methods hired,random,overview -o benchmarks/forms-unseen-fonts.json
	$(EVAL) --task dense --limit 500 --methods hired,uniform,random,overview -o benchmarks/dense.json
	$(EVAL) --task forms --budgets 0.4,0.2,0.1 --methods hired,random --newlines keep -o benchmarks/forms-newlines.json
	$(EVAL) --task forms --budgets 0.4,0.2,0.1 --methods hired --positions original -o benchmarks/forms-positions.json
	$(EVAL) --task forms --budgets 0.4,0.2,0.1 --methods hired --alpha 0.25 -o benchmarks/forms-alpha.json
	$(EVAL) --task forms --budgets 1 --methods hired,no-newlines,blank-half -o benchmarks/checks.json
	$(BIN)/python benchmarks/table.py > /dev/null

train: $(VENV)/.dev  ## train the shipped model again (hours on two cores; resumes where it stopped)
	$(BIN)/python -m training.encoder --minutes 24.5 --lr 2e-3 --name encoder
	$(BIN)/python -m training.encoder --minutes 14.5 --lr 1.5e-3 --seed 1 --start encoder --name encoder2
	$(BIN)/python -m training.llm --minutes 30 --lr 2e-3 --encoder encoder2 --name llm
	$(BIN)/python -m training.llm --minutes 13 --lr 1.5e-3 --seed 2 --encoder encoder2 --start llm --name llm2
	$(BIN)/python -m training.llm --minutes 15 --lr 2e-3 --seed 3 --tokens 8000 --encoder encoder2 --start llm2 --name llm3
	$(BIN)/python -m training.record encoder encoder2 llm llm2 llm3

docs-check: $(VENV)/.dev  ## run the code blocks of the docs, check their links
	$(BIN)/python docs/check.py

clean:  ## remove what the targets above set up
	rm -rf $(VENV) $(OLDEST) .mypy_cache .pytest_cache .ruff_cache .hypothesis out
