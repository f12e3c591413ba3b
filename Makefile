# One target a line of thought; CI and people run the same ones.
# Looked for when it is first needed, and once: that takes seconds, and twice it might not come out the same.
PYTHON ?= $(eval PYTHON := $(shell python3 tools/interpreter.py || command -v python3.11))$(PYTHON)
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.8
MEMBERS := core protocol gateway api webhook datasource client
SPEEDUPS := packages/speedups
CARGO := $(shell command -v cargo)
BUILT := $(VENV)/.speedups-$(if $(CARGO),compiled,pure)

# Style rules, and the optional demand that every async function is a checkpoint: ours say so where they are not.
# ASYNC127 asks for another HTTP client than httpx, which would be a decision of its own.
ASYNC_IGNORED := ASYNC127,ASYNC109,ASYNC113,ASYNC114,ASYNC124,ASYNC128,ASYNC900,ASYNC910,ASYNC911,ASYNC912,ASYNC913

.DEFAULT_GOAL := help
.PHONY: help setup serve test check lint types format lock bench wheels rust clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

setup: $(VENV)/.ready $(BUILT) ## install everything into .venv

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "triolet needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

# uv.lock names versions and hashes but no index, so that mirrors work: it is exported and installed by hash.
$(VENV)/.ready: uv.lock pyproject.toml $(wildcard packages/*/pyproject.toml) | $(BIN)/uv
	$(BIN)/uv export --quiet --frozen --all-packages --all-groups --no-emit-workspace --no-header --output-file $(VENV)/requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --requirement $(VENV)/requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation $(foreach m,$(MEMBERS),--editable packages/$(m)) --editable .
	@touch $@

# The compiled hot path is a bonus: without cargo, or if it cannot be built, the same functions run in Python.
$(BUILT): $(VENV)/.ready $(wildcard $(SPEEDUPS)/Cargo.* $(SPEEDUPS)/rust/*.rs)
ifdef CARGO
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable $(SPEEDUPS) \
		|| echo "triolet-speedups could not be built (see above); the server runs in pure Python"
else
	@echo "there is no cargo: triolet-speedups is not built, the server runs in pure Python"
endif
	@touch $@

serve: setup ## start the server with its data in ./data
	$(BIN)/triolet run -e rootDir=./data

test: setup ## run all tests
	$(BIN)/python -m pytest

check: lint types ## everything CI checks besides the tests

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/flake8 --select ASYNC --extend-ignore $(ASYNC_IGNORED) packages
	$(BIN)/lint-imports

types: setup
	$(BIN)/mypy packages/core/src packages/protocol/src packages/gateway/src packages/api/src packages/webhook/src packages/datasource/src packages/client/src packages/speedups/src tests/typing

format: setup ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(BIN)/uv ## resolve anew and write uv.lock
	$(BIN)/python tools/lock.py $(BIN)/uv

bench: setup ## run the benchmarks three times: a table, JSON and a chart in benchmarks/results
	$(BIN)/python -m benchmarks --runs 3

wheels: setup ## build every distribution into dist/, that of packages/speedups where cargo is found
	for package in $(MEMBERS:%=packages/%) .; do \
		$(BIN)/uv build --quiet --no-build-isolation --python $(BIN)/python --wheel --out-dir dist $$package || exit; \
	done
ifdef CARGO
	$(BIN)/maturin build --quiet --release --locked --manifest-path $(SPEEDUPS)/Cargo.toml --out dist
endif

rust: setup ## format, lints and unit tests of packages/speedups and the load generator, which take cargo
	for crate in $(SPEEDUPS) benchmarks/loadgen; do \
		(cd $$crate && cargo fmt --check && cargo clippy --quiet --locked --all-targets -- -D warnings && cargo test --quiet --locked) || exit; \
	done

clean: ## remove the environment
	rm -rf $(VENV)
