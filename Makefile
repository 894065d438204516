# Everything runs in .venv; `make` alone lists the targets.
VENV   ?= .venv
PYTHON ?= python3
RUN    := $(VENV)/bin
PYTEST := $(RUN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help check format test all demo bench bench-gates bench-runtime chaos property-long ci docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

$(VENV)/.ready: pyproject.toml
	test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	$(RUN)/pip install -q -e '.[dev,bench]'
	touch $@

check: $(VENV)/.ready ## format, lint, types, imports, unit and property tests
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy --strict
	$(RUN)/lint-imports
	$(PYTEST) tests/unit $(wildcard tests/property)

format: $(VENV)/.ready ## let ruff format and mend what it can
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .

test: check ## check, and the tests that need a Redis
	$(PYTEST) tests/integration

all: $(VENV)/.ready ## every default test, real workers included, three files side by side
	$(PYTEST) -n 3

demo: $(VENV)/.ready ## the newsroom, on this machine
	$(RUN)/techrevati demo examples/brief.md

bench: $(VENV)/.ready ## measure; the figures' meaning is in docs/benchmarks.md
	$(RUN)/python -m tests.benchmarks.speed
	$(RUN)/python -m tests.benchmarks.latency
	$(RUN)/python -m tests.benchmarks.concurrency
	$(RUN)/python -m tests.benchmarks.goodput
	$(RUN)/python -m tests.benchmarks.saver

bench-gates: $(VENV)/.ready ## what a shared breaker, bucket and slot cost, beside what others do
	$(RUN)/python -m tests.benchmarks.gates

bench-runtime: $(VENV)/.ready ## what the in-process layer costs
	$(RUN)/python -m tests.benchmarks.bench_runtime

chaos: $(VENV)/.ready ## long fault runs: kill -9 of workers, coordinators, Redis
	$(PYTEST) -m chaos --timeout 1800 tests
	$(RUN)/python -m tests.chaos.budgets

property-long: $(VENV)/.ready ## the state machines, for as long as it takes
	HYPOTHESIS_PROFILE=long $(PYTEST) --timeout 3600 tests/property

docs: $(VENV)/.ready ## write the generated parts of docs/
	$(RUN)/python -m tests.unit.project.generated --write

ci: ## what CI runs, in a clean copy
	.ci/run

clean: ## remove what tools leave behind; the venv stays
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage htmlcov
	find techrevati workers examples tests -name __pycache__ -prune -exec rm -rf {} +
