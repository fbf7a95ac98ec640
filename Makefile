# Creates .venv by itself. PYTHON chooses the interpreter: make test PYTHON=python3.13
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Where `make test-all` looks for servers.
POSTGRES ?= postgres://root@127.0.0.1:5432
MARIADB ?= mysql://root@127.0.0.1:3306

# How long `make chaos` lasts.
SECONDS ?= 600

# The tests start many processes; each starts in half the time where bytecode is kept.
unexport PYTHONDONTWRITEBYTECODE

SUITE := -q -n 2 --dist loadgroup --no-loadscope-reorder

.PHONY: help test test-thirdparty test-all test-servers test-second test-databases test-long chaos fuzz demo bench lint audit clean

help:
	@echo "make demo        two nodes, two servers: saves arriving, a node away and back (STAY=1: leave them running)"
	@echo "make test        the tests, with 500 random histories of the algorithm and 230 of the real code"
	@echo "make test-databases  those without processes of their own, on each of PostgreSQL and MariaDB that answers"
	@echo "make test-all    the same and everything else: task queues, and PostgreSQL and MariaDB where they answer (compose.yaml)"
	@echo "make test-thirdparty  models of real third-party apps on two nodes: mptt, treebeard, money, wagtail and others"
	@echo "make test-second the tests with fewer random histories, for another Python: PYTHON=python3.13 VENV=.venv-second"
	@echo "make chaos       three nodes, eight writers, faults for SECONDS=600; then nothing lost, nothing doubled"
	@echo "make fuzz        mutated documents for the parsers for SECONDS=600, with counts"
	@echo "make test-long   10,000 histories of the algorithm, 5,000 of the real code, 2,000 random models, 10,000 with a malicious peer, 200 crashes: hours"
	@echo "make bench       cost of a save, latency, changes per second, catch-up, beside raw Django's"
	@echo "make audit       known holes in the installed packages, where an index of them can be reached"
	@echo "make lint        ruff, mypy, import-linter, migrations, deployment checks"

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $(STAMP)

test: $(STAMP)
	$(BIN)/python -m pytest $(SUITE)
	DJANGO_SETTINGS_MODULE=tests.files.settings $(BIN)/python -m pytest -q tests/files

# On a second Python, with fewer random histories: which history comes up does not depend on the versions of Python and Django.
test-second: $(STAMP)
	SDATA_HISTORIES=10 HYPOTHESIS_PROFILE=few $(BIN)/python -m pytest $(SUITE)

test-databases: $(STAMP)
	$(BIN)/python -m tests.servers $(POSTGRES) $(MARIADB)

test-all: test test-servers test-thirdparty

# In a virtual environment of its own, which has the third-party apps.
$(VENV)-thirdparty/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)-thirdparty
	$(VENV)-thirdparty/bin/python -m pip install --quiet --upgrade pip
	$(VENV)-thirdparty/bin/python -m pip install --quiet --editable '.[thirdparty]'
	@touch $@

test-thirdparty: $(VENV)-thirdparty/.installed
	DJANGO_SETTINGS_MODULE=tests.thirdparty.settings $(VENV)-thirdparty/bin/python -m pytest -q tests/thirdparty

# The other part of `make test-all`.
test-servers: $(STAMP)
	$(BIN)/python -m tests.servers --all $(POSTGRES) $(MARIADB)

chaos: $(STAMP)
	SDATA_MARIADB=$(MARIADB) $(BIN)/python -m tests.chaos --seconds $(SECONDS)

# Mutated documents for the parsers for SECONDS.
fuzz: $(STAMP)
	DJANGO_SETTINGS_MODULE=tests.settings $(BIN)/python -m tests.fuzz $(SECONDS)

test-long: $(STAMP)
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest -q tests/core
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest -q tests/integration/test_histories.py
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest -q tests/integration/test_related_histories.py
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest -q tests/integration/test_deletion_histories.py
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest -q tests/hostile/test_malice.py
	SDATA_MODELS=2000 $(BIN)/python -m pytest -q tests/integration/test_random_models.py
	SDATA_CRASHES=200 $(BIN)/python -m pytest -q tests/acceptance/test_catch_up.py -k killed
	SDATA_OUTAGE_SECONDS=60 $(BIN)/python -m pytest -q tests/acceptance/test_two_nodes.py -k away

demo: $(STAMP)
	$(BIN)/python -m testproject.demo $(if $(STAY),--stay)

bench: $(STAMP)
	SDATA_BENCH_SERVER=$(POSTGRES) $(BIN)/python -m benchmarks.run

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python manage.py makemigrations --check --dry-run
	DJANGO_DEBUG=0 SDATA_BASE_URL=https://shop.example.com/sdata/shop/myContract/- \
	DJANGO_SECRET_KEY=$$($(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(64))') \
	$(BIN)/python manage.py check --deploy --fail-level WARNING

# Known holes in the installed packages; skipped, with a printed line, where no index of them can be reached.
audit: $(STAMP)
	$(BIN)/python -m tests.audit

clean:
	rm -rf $(VENV)
