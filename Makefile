# Every target installs what it needs first; `make help` lists them. What is installed, and how: scripts/setup.sh.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

python := .venv/bin/python
fuzz_s ?= 60

.PHONY: help demo test soak lint format unit fuzz ovs lab setup test-setup pin clean distclean

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null \
	  || sed -nE 's/^([a-z-]+):.*## (.*)/  make \1: \2/p' $(MAKEFILE_LIST)

demo: setup ## a real overlay, a fault in it, and the answer (root or sudo)
	@scripts/demo.sh

test: lint ## lint, types, import layers, then all tests (root or sudo)
	@scripts/run-tests.sh tests

soak: test-setup ## all tests with the fault and survival matrices whole, not samples (long)
	@$(MAKE) fuzz fuzz_s=5
	@VTRACE_SOAK=1 scripts/run-tests.sh tests

lint: test-setup ## format, lint, types, import layers
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-logo
	@for script in scripts/*.sh scripts/pin-requirements .ci/run; do bash -n "$$script"; done

format: test-setup ## let the formatter and the linter mend what they can
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

unit: test-setup ## tests that need neither root nor daemons
	@$(python) -m pytest tests/unit

fuzz: test-setup ## every reader of what comes from outside, fuzz_s=60 seconds each; skipped where there is no atheris
	@scripts/setup.sh fuzz
	@$(python) tests/fuzz/run.py --seconds $(fuzz_s)

ovs: test-setup ## tests against Open vSwitch daemons of their own (root or sudo)
	@scripts/run-tests.sh tests/ovs

lab: test-setup ## tests on labs of their own (root or sudo)
	@scripts/run-tests.sh tests/lab

setup: ## install what `vtrace` and its lab need, and build .venv
	@scripts/setup.sh demo

test-setup: ## that, and what the tests need
	@scripts/setup.sh test

pin: ## write requirements*.txt anew from pyproject.toml
	@scripts/pin-requirements

clean: ## remove caches and build output
	@rm -rf build dist out .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## that, and .venv
	@rm -rf .venv src/*.egg-info
