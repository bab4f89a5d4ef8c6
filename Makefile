# Every way to work on tandem. Each target sets up .venv itself when it is missing or out of date.

PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint bench clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: .venv/ready ## Compare Keras and PyTorch on handwritten digits: a report in about two minutes
	$(BIN)/tandem run examples/quickstart.yaml

test: lint ## Lint, types, import rules, and all tests but the slow ones
	$(BIN)/pytest -m "not slow"

test-all: lint ## Every test, the slow ones included
	$(BIN)/pytest

lint: .venv/ready ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/ready ## Paired benchmarks; writes benchmarks/RESULTS.md
	$(BIN)/pip install --quiet --editable ".[bench]"
	$(BIN)/python -m benchmarks

clean: ## Remove the environment, caches and results of the examples
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache *.egg-info tandem-results

.venv/ready: pyproject.toml
	@echo "setting up .venv: installs Ray, TensorFlow and PyTorch, a few minutes the first time"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable ".[dev]"
	@touch $@
