# Two commands for a fresh machine: `make demo` and `make test`. They need python3 with venv and the
# package index, nothing else.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
MAILMAPS := $(BIN)/mailmaps

.PHONY: demo test check test-packages clean

demo: $(VENV)/.demo
	@exec $(MAILMAPS) demo

# `make test ARGS="-k socketmap"` runs a part. With CI=true the Debian packages are installed first,
# and a part that is left out is a failure.
test: $(VENV)/.dev $(if $(filter true,$(CI)),test-packages)
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py tests/test_docs.py

# Postfix for the tests that talk to the real one (as root; starts no service).
test-packages:
	sh tests/packages.sh

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[demo,dev]'
	@touch $@

clean:
	rm -rf $(VENV) .demo .mypy_cache .ruff_cache .pytest_cache
