# Every task of the repository; `make` alone lists them. CI and pre-commit call the same targets.
# Python 3.11, make and git are enough: the rest goes into .venv, from the pins with hashes in requirements/.

PYTHON ?= python3.11
ARGS ?=
WORKERS ?= 2
LOCK_DIR ?= requirements

BIN := .venv/bin
UV := $(BIN)/uv
SERVICES := $(sort $(patsubst services/%/pyproject.toml,%,$(wildcard services/*/pyproject.toml)))
PROJECTS := . streams protocols $(SERVICES:%=services/%) examples/support_desk
METADATA := $(PROJECTS:%=%/pyproject.toml)
OURS := agentflow-mesh agentflow-streams agentflow-protocols $(SERVICES:%=agentflow-%) agentflow-support-desk

# Whoever has the development set has all that the demo needs.
DEMO_STAMP := $(if $(wildcard .venv/.dev),.venv/.dev,.venv/.demo)

# uv reads neither the system's certificates nor pip's index unless it is told to; behind a proxy it needs both.
export UV_SYSTEM_CERTS ?= true
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help setup demo chaos dev test check bench docs lock clean fmt cov lint types layers lock-check house

help: ## List the targets
	@awk 'BEGIN { FS = ":.*## "; print "make TARGET [ARGS=\"…\"]\n" } \
		/^[a-z-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: .venv/.dev ## Make .venv with everything for development, from the pins

demo: $(DEMO_STAMP) ## Run the support desk on an embedded server; no account, no key
	@$(BIN)/agentflow demo $(ARGS)

chaos: $(DEMO_STAMP) ## The demo while everything is killed and restarted; ARGS="--seed 7 --kills 5"
	@$(BIN)/agentflow demo --chaos $(ARGS)

dev: .venv/.dev ## Run a mesh on this machine: server and services
	@$(BIN)/agentflow dev $(ARGS)

test: .venv/.dev ## Run all tests; ARGS="tests/core -k seal" narrows them
	@$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

check: lint types layers lock-check house ## Run every check that is not a test: style, types, layers, pins, house rules

lint: .venv/.dev ## … ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: .venv/.dev ## … mypy, strict, over source and tests
	@$(BIN)/mypy .

layers: .venv/.dev ## … import-linter: who may import whom
	@$(BIN)/lint-imports --no-logo

lock-check: $(UV) ## … the pins still follow from every pyproject.toml (hashes aside)
	@rm -rf .venv/lock && cp -R requirements .venv/lock && $(MAKE) lock LOCK_DIR=.venv/lock ARGS=
	@for pins in requirements/*.txt; do \
		grep -E '^[a-z0-9]' $$pins > .venv/lock/expected; \
		grep -E '^[a-z0-9]' .venv/lock/$${pins##*/} | diff .venv/lock/expected - || \
			{ echo "$$pins is out of date: run make lock" >&2; exit 1; }; \
	done

house: .venv/.dev ## … the house rules that can be measured
	@$(BIN)/python -m pytest -q -m "not slow" tests/house

bench: .venv/.dev ## Run the benchmarks
	@$(BIN)/python -m benchmarks $(ARGS)

docs: .venv/.dev ## Build the documentation site into site/; needs no network
	@$(BIN)/zensical build --strict --clean $(ARGS)

fmt: .venv/.dev ## Format, and mend what ruff can mend
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

cov: .venv/.dev ## Run all tests and show which lines and branches they miss
	@$(BIN)/python -m pytest -n $(WORKERS) --cov --cov-report=term-missing:skip-covered $(ARGS)

COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	--annotation-style line --custom-compile-command 'make lock' $(OURS:%=--no-emit-package %) $(ARGS)

lock: $(UV) ## Pin anew what changed in a pyproject.toml; ARGS=--upgrade takes the newest of all
	@$(COMPILE) --group bootstrap -o $(LOCK_DIR)/bootstrap.txt > /dev/null
	@$(COMPILE) --all-extras --group dev $(METADATA) -o $(LOCK_DIR)/dev.txt > /dev/null
	@$(COMPILE) -c $(LOCK_DIR)/dev.txt --extra classifier examples/support_desk/pyproject.toml \
		-o $(LOCK_DIR)/demo.txt > /dev/null
	@for service in $(SERVICES); do \
		$(COMPILE) -c $(LOCK_DIR)/dev.txt --all-extras services/$$service/pyproject.toml \
			-o $(LOCK_DIR)/$$service.txt > /dev/null || exit 1; \
	done

clean: ## Remove .venv and all that tools left behind
	@rm -rf .venv dist build site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

INSTALL := $(UV) pip install --quiet --python $(BIN)/python

.venv/.dev .venv/.demo: .venv/.%: requirements/%.txt $(METADATA) $(UV)
	@echo "Installing the pins of $< into .venv" >&2
	@$(INSTALL) --require-hashes -r $<
	@$(INSTALL) --no-deps $(PROJECTS:%=-e %)
	@touch $@

$(UV): requirements/bootstrap.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 …" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || \
		{ echo "This Python cannot make environments: install its venv package (Debian: python3.11-venv)" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@
