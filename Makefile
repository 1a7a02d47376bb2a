# Two commands for a fresh machine: `make demo` and `make test`. They need python3 with venv and the
# package index, nothing else.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
MAILMAPS := $(BIN)/mailmaps

.PHONY: demo test check install uninstall test-packages clean differential test-debian13 test-install bench bench-quick bench-picture chaos outages

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

# The program in /opt/mailmaps, units, manual pages; starts nothing (systemd/README.md). `make install DESTDIR=/tmp/x`
# stages it below a folder. Again for an upgrade.
DESTDIR ?=
PREFIX ?= /opt/mailmaps

install:
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' PYTHON='$(PYTHON)' sh packaging/install.sh

# Takes that away again; settings, what is below /var, mail and the database stay (docs/installing.md).
uninstall:
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' sh packaging/uninstall.sh

clean:
	rm -rf $(VENV) .demo .mypy_cache .ruff_cache .pytest_cache

# The same mail through Postfix with pgsql: and with mailmaps, as many recipients as you like (as root):
# `make differential N=100000`, and SEED=... to see the same ones again.
N ?= 10000
DIFFERENTIAL = --count $(N) $(if $(SEED),--seed $(SEED)) $(ARGS)

differential: $(VENV)/.dev
	$(BIN)/python -m tests.system.differential $(DIFFERENTIAL)

# That with Debian 13's Postfix, in a tree of its own in .debian13 (as root; wants debootstrap).
test-debian13: $(VENV)/.dev
	sh tests/debian13.sh $(BIN)/python $(DIFFERENTIAL)

# From nothing to delivered mail in a bare Debian 12 of its own, .installed (as root; wants debootstrap; two
# minutes, three the first time). `make test-install ARGS="setup mail"` stops after these steps.
test-install: $(VENV)/.dev
	sh tests/installed.sh $(BIN)/python $(ARGS)

# The benchmarks (as root, with Debian's Postfix): a table, and benchmarks/RESULTS.md; about an hour.
# `make bench ARGS="--only one"` measures one row, `make bench-quick` tries all of them in two minutes.
bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks $(ARGS)

bench-quick: $(VENV)/.bench
	$(BIN)/python -m benchmarks --quick $(ARGS)

bench-picture: $(VENV)/.bench
	$(BIN)/python -m benchmarks.picture $(ARGS)

$(VENV)/.bench: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[demo,bench]'
	@touch $@

# PostgreSQL away, slow and wrong, the network too, against the running daemon (as root; many minutes).
outages: $(VENV)/.dev
	MAILMAPS_OUTAGES=1 $(BIN)/python -m pytest tests/system/outages tests/system/test_chaos.py $(ARGS)

# 2,000 messages and 2,000 RCPTs to unknown users through a real Postfix while PostgreSQL and the daemon are
# stopped, hung and killed (as root; about six minutes). `make chaos SEED=... ARGS="--by socketmap"`
chaos: $(VENV)/.dev
	$(BIN)/python -m tests.system.chaos $(if $(SEED),--seed $(SEED)) $(ARGS)
