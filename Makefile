# `make help` lists the targets. Everything is made inside .venv and the user's cache folder; nothing needs root.

SHELL := bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= configs/quickstart.yaml
SCRIPTS := $(filter-out %.py %/__pycache__,$(wildcard scripts/*))
run_extras := llamacpp
dev_extras := dev,llamacpp
# A test waits about as long as it computes: for its children, a clock, a model that a server lets go of. So there are
# two for each core.
two_a_core := --numprocesses $$(( $$(getconf _NPROCESSORS_ONLN) * 2 ))
side_by_side := $(two_a_core) --maxprocesses 6 --dist worksteal
# Of those on real engines only their files are collected: first tests/real, where the long ones are, and there first
# the one whose tests share what took long to measure. Who has no more tests takes some of another's last.
real_side_by_side := $(two_a_core) --maxprocesses 4 --dist worksteal \
	$$(grep -rl --include="test_*.py" "mark\.real" tests | sort -t/ -k2,2r -k3)
where_time_went := --durations 15 --durations-min 3

.PHONY: help sweep test test-fast test-slow lint bench ollama model clean python run-packages dev-packages real

help:  ## list the targets
	@awk 'BEGIN {FS = ":.*  ## "} /^[a-z-]+:.*  ## / {printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

sweep: run-packages  ## packages and a small real model, then configs/quickstart.yaml to a finished heatmap
	@model="$$($(BIN)/python scripts/get_model)" && $(BIN)/python sweep.py run $(CONFIG) --model "$$model"

test: lint real  ## set up, check and run every test except the slow ones; the real Ollamas are built once
	@$(BIN)/python -m pytest $(where_time_went) $(side_by_side) -m "not real and not slow"
	@$(BIN)/python -m pytest $(where_time_went) $(real_side_by_side) -m "real and not slow"

test-fast: dev-packages  ## the tests that need no Ollama
	@$(BIN)/python -m pytest $(where_time_went) $(side_by_side) -m "not real and not slow"

test-slow: dev-packages real  ## the slow tests only
	@$(BIN)/python -m pytest $(where_time_went) -m slow || test $$? -eq 5

lint: dev-packages  ## ruff (rules and format) and mypy
	@$(BIN)/ruff check --quiet . $(SCRIPTS)
	@$(BIN)/ruff format --quiet --check . $(SCRIPTS)
	@$(BIN)/mypy

bench: dev-packages real  ## the benchmarks of docs/benchmarks.md, one after the other
	@set -e; for script in benchmarks/[!_]*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

ollama: python  ## private Ollamas for the tests, in the cache folder
	@"$(PYTHON)" scripts/get_ollama

model: run-packages  ## the small model, in the cache folder
	@$(BIN)/python scripts/get_model

clean:  ## remove .venv and caches; sweeps.db, heatmaps/ and the user's cache folder stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find ollama_sweep tests scripts benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# What the real tests need. Without a C compiler they skip and say so; with CI=true that is an error.
real: dev-packages
	@$(BIN)/python scripts/get_ollama > /dev/null || { \
	  code=$$?; test $$code -eq 5 && test "$${CI:-}" != true || exit $$code; \
	  echo "the tests on a real Ollama will skip"; \
	}
	@$(BIN)/python scripts/get_model > /dev/null

python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || { \
	  echo "error: Python 3.11 or newer is needed; name one: make PYTHON=python3.13 $(MAKECMDGOALS)" >&2; exit 1; \
	}

run-packages: python
	@$(call install,run)

dev-packages: python
	@$(call install,dev)

# $(call install,NAME): a virtual environment with the package and the extras NAME_extras, unless its stamp says that
# this pyproject.toml was installed from this folder already. A half-made one has no stamp and is made again.
install = set -e; \
	want="$($(1)_extras) $(CURDIR) $$(cksum < pyproject.toml)"; stamp="$(VENV)/stamp-$(1)"; \
	if test "$$(cat "$$stamp" 2> /dev/null)" = "$$want" && $(BIN)/python -c '' 2> /dev/null; then exit 0; fi; \
	rm -f "$$stamp"; \
	if ! $(BIN)/python -m pip --version > /dev/null 2>&1; then \
	  echo "making $(VENV)"; \
	  "$(PYTHON)" -m venv --clear $(VENV) || { \
	    echo "error: $(PYTHON) cannot make a virtual environment; on Debian install python3-venv" >&2; exit 1; }; \
	fi; \
	echo "installing packages into $(VENV) (once)"; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$($(1)_extras)]'; \
	echo "$$want" > "$$stamp"
