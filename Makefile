# What one types. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help

ARGS ?=
N ?=
BACKBONE ?=
# coverage floors, percent; COVERAGE=0 DOMAIN_COVERAGE=0 switches the gate off
COVERAGE ?= 90
DOMAIN_COVERAGE ?= 100
# processes that share the tests out, file by file
WORKERS ?= 2
# read by infra.up
export PARTS BROKERS LEDGER FAST

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
SOURCES := citykit services simulation verifier infra operators tools tests
DOMAIN := services/*/domain.py,services/*/domain/*,services/*/contract.py

define install
if [ -z "$(PYTHON)" ]; then \
	echo "setup: Python 3.11 or newer is needed; the PATH has $$(python3 --version 2>&1 || echo none)." \
		"Install it, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 3; \
fi; "$(PYTHON)" tools/bootstrap.py $(1)
endef

.PHONY: help setup dev run up down test test-real test-cluster test-node check fix gen lock release image image-lock bench crash mutate

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what running needs into .venv, without running
	@$(call install,run)

dev:
	@$(call install,dev)

run: setup ## the whole city in one process; ARGS="--speed 900 --port 8080 ..."
	@$(BIN)/city run $(ARGS)

up: setup ## start Kafka, PostgreSQL and a ledger on this machine; PARTS=kafka,postgres,ledger BROKERS=1|3 LEDGER=dev|raft1|raft3|bft4
	@$(BIN)/python -m infra.up up $(ARGS)

down: ## stop what `make up` started; what it stored stays in .city/real
	@$(BIN)/python -m infra.up down $(ARGS)

test: dev ## all tests that need Python only, with the coverage gate; ARGS are pytest's
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)
	@$(BIN)/coverage combine --quiet
	@echo "coverage of domain and contracts, branches included (floor $(DOMAIN_COVERAGE) %):"
	@$(BIN)/coverage report --include='$(DOMAIN)' --fail-under=$(DOMAIN_COVERAGE) --skip-covered --show-missing
	@echo "coverage of everything but what make test-real runs (floor $(COVERAGE) %):"
	@$(BIN)/coverage report --omit="$$($(BIN)/python -m tools.test_real --parts)" --fail-under=$(COVERAGE) --skip-covered

test-real: dev ## the tests that need Kafka, PostgreSQL, a ledger, Node or Go; starts its own; ARGS are pytest's
	@$(BIN)/python -m tools.test_real $(ARGS)

check: dev ## format, lint, types, architecture, protos, generated code, words; edits nothing
	@$(BIN)/python -m tools.check

fix: dev ## what check finds and a tool can mend
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format --quiet .
	@$(BIN)/python -m tools.gen

gen: dev ## protos/ to gen/
	@$(BIN)/python -m tools.gen

lock: dev ## lock the requirements of pyproject.toml again; ARGS=--upgrade for newer versions
	@$(BIN)/python -m tools.lock $(ARGS)

release: dev ## write down the event types of this release, which later ones may only add to
	@$(BIN)/python -m tools.released

image: setup ## build the container images into .city/images; ARGS="city kafka postgres pause --offline"
	@$(BIN)/python -m infra.image build $(ARGS)

image-lock: setup ## lock what the images are built from again
	@$(BIN)/python -m infra.image lock $(ARGS)

test-cluster: dev ## chart and operator on a real API server, which is built at the first call; ARGS are pytest's
	@$(BIN)/python -m tools.test_cluster $(ARGS)

test-node: dev ## the city in real pods on one node of its own; needs root; ARGS are pytest's
	@$(BIN)/python -m tools.test_cluster --node $(ARGS)

bench: setup ## measure the figures; ARGS="NAME --json"
	@$(BIN)/city bench $(ARGS)

crash: dev ## kill the city N times under load and check what it kept; BACKBONE=real: any of its processes and parts
	@$(BIN)/python -m tools.$(if $(filter real,$(BACKBONE)),crash_real,crash) $(or $(N),25) $(ARGS)

mutate: dev ## change N single bytes in proofs and stored files; all must be detected
	@$(BIN)/python -m tools.mutate $(or $(N),10000) $(ARGS)
