# Everything happens in one virtual environment, .venv, made here with plain venv and pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: demo test test-slow tools test-all test-cloud pythons matrix mutants soak sdk check bench docs clean help

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "speechpool needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all,dev]'
	@touch $@

demo: $(READY)  ## Speak over a pool against the local service; audio in demo/
	$(BIN)/speechpool demo --output demo

test: $(READY)  ## The test suite (under ten minutes on two cores)
	$(BIN)/python -m pytest -m 'not slow'

test-slow: $(READY)  ## Only what needs minutes or other programs
	$(BIN)/python -m pytest -m slow

tools:  ## What only test-slow needs, by Debian's apt-get: a Prometheus and a browser
	@(for tool in prometheus promtool chromium; do command -v $$tool >/dev/null || exit 1; done) || { $(SUDO) apt-get update -qq && \
		$(SUDO) apt-get install -qq --yes --no-install-recommends prometheus chromium; }

test-all: test test-slow  ## Both

test-cloud: $(READY)  ## Ask the real service what no document says; needs DASHSCOPE_API_KEY, speaks 200 characters
	$(BIN)/python -m pytest tests/cloud/test_cloud.py

pythons: $(READY)  ## The tests of cancellation on every supported Python that is here
	$(BIN)/python tests/pythons/pythons.py

matrix: $(READY)  ## Every fault at every phase, and the table of it in docs/reliability.md
	SPEECHPOOL_WRITE_MATRIX=1 $(BIN)/python -m pytest -q tests/matrix

soak: $(READY)  ## An hour of load with faults and restarts: does anything grow, leak or get lost?
	$(BIN)/python benchmarks/soak.py --seconds $(or $(SECONDS),3600)

mutants: $(READY)  ## Break each promise on purpose: a test must notice every mistake
	$(BIN)/python tests/mutants/run.py

sdk: $(READY)  ## The three versions of the official SDK that test-slow runs, each in an environment of its own
	$(BIN)/python tests/conformance/sdk_environments.py

check: $(READY)  ## Style, types and floors
	$(BIN)/ruff format --check src tests benchmarks examples docs/*.py
	$(BIN)/ruff check src tests benchmarks examples docs/*.py
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(READY)  ## All benchmarks, beside other pools and the official SDK, into docs/benchmarks.md (25 minutes)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]' || \
		echo "LiveKit's pool and aio-websocket-pool cannot be installed here; they are left out."
	$(BIN)/python benchmarks/run.py

docs: $(READY)  ## These pages as a site, in site/; a link that leads nowhere ends it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir site
	@echo site/index.html

clean:  ## Remove the environment and everything made
	rm -rf $(VENV) .venv-sdk .venv-py demo dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
