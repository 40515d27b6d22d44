# Every target sets up .venv by itself. Python 3.11 to 3.13 with its venv module is all it needs.
# Debian's own Python comes first: it is built with optimizations that many others lack.
PYTHON ?= $(shell for python in /usr/bin/python3.11 /usr/bin/python3.12 /usr/bin/python3.13 \
  python3.11 python3.12 python3.13 python3; do \
  $$python -c 'import ensurepip, venv' 2>/dev/null && { echo $$python; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= gateway.yaml
CASE ?=

.PHONY: help demo run test test-long check format bench profile lock clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/ready: requirements.lock pyproject.toml
	@[ -n "$(PYTHON)" ] || { echo "Python 3.11 to 3.13 with its venv module is needed." \
	  "Debian: apt-get install python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || { echo "Python 3.11 to 3.13 is needed; choose one with: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(VENV)/ready ## Relay a dozen messages through a gateway and show what happened to each
	@$(BIN)/python -m examples.demo

run: $(VENV)/ready ## Run the gateway with gateway.yaml (CONFIG=…)
	@$(BIN)/gateway run -c $(CONFIG)

test: $(VENV)/ready ## Run the tests
	@$(BIN)/python -m pytest -n auto --dist worksteal -q

test-long: $(VENV)/ready ## Run the long forms of the tests: about an hour
	@rm -rf build/faults/long
	@$(BIN)/python -m pytest -m long -v --durations=0

check: $(VENV)/ready ## Lint, types, documentation, and the work that a message costs
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/test_docs.py tests/test_docs_reference.py tests/docs/test_links.py tests/docs/test_reference.py tests/test_architecture.py
	@$(BIN)/python -m bench.budget

format: $(VENV)/ready ## Format the code
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format --quiet .

bench: $(VENV)/ready ## Measure, beside Postfix with OpenDKIM and Haraka where installed (CASE=4k)
	@$(BIN)/python -m bench $(CASE)

profile: $(VENV)/ready ## Show where the time of the workers goes, as a flame graph (CASE=4k)
	@$(BIN)/python -m bench.profile $(CASE)

clean: ## Remove what was installed and built
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
