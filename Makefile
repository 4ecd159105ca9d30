PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format docs bench-quality bench-freshness bench-leave-one-out bench-imbalance bench-cold-start bench-safety bench-realtime bench-recommend clean

help:
	@echo "make setup    make .venv with everything pinned; PYTHON=... picks the interpreter"
	@echo "make demo     the four-minute demo"
	@echo "make test     all tests, doctests too; WORKERS=... processes"
	@echo "make lint     ruff, mypy, import directions"
	@echo "make format   let ruff format, and fix what it can"
	@echo "make docs     write docs/configuration.md from the settings"
	@echo "make bench-quality  figures of quality beside peers; ARGS='--limit 15000'"
	@echo "make bench-freshness  what updates are worth that come at once; ARGS='--limit 15000'"
	@echo "make bench-leave-one-out  many passes beside SASRec's; ARGS='--minutes 5'"
	@echo "make bench-imbalance  what each setting against imbalance does; ARGS='--limit 5000'"
	@echo "make bench-cold-start  hits on new items, with content and without; ARGS='--limit 20000'"
	@echo "make bench-safety  gate, poison, drift, tuner and rollback; ARGS='--quick' or '--resume'"
	@echo "make bench-realtime  freshness, throughput, latency, recovery; ARGS='--quick freshness'"
	@echo "make bench-recommend  lists per second and the search, 100,000 and 1,000,000 items; ARGS='--quick'"
	@echo "make clean    remove .venv and every cache"

setup: $(READY)

# The build backend comes first, pinned like the rest, so that nothing is built in isolation from
# the constraints.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "headwater needs Python 3.11 or newer, and PYTHON=$(PYTHON) is" \
	    "$$($(PYTHON) --version 2>/dev/null || echo not there). Name another: make setup PYTHON=python3.11" >&2; \
	  exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	  hatchling editables
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	  --no-build-isolation --editable '.[plot,drift,dev]'
	@touch $@

demo: setup
	$(BIN)/headwater demo

test: setup
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup
	$(BIN)/python -c 'from headwater.config import configuration_markdown as page; print(page(), end="")' \
	  > docs/configuration.md

bench-quality: setup
	$(BIN)/python -m benchmarks.quality $(ARGS)

bench-freshness: setup
	$(BIN)/python -m benchmarks.freshness $(ARGS)

bench-leave-one-out: setup
	$(BIN)/python -m benchmarks.leave_one_out $(ARGS)

bench-imbalance: setup
	$(BIN)/python -m benchmarks.imbalance $(ARGS)

bench-cold-start: setup
	$(BIN)/python -m benchmarks.cold_start $(ARGS)

bench-safety: setup
	$(BIN)/python -m benchmarks.safety $(ARGS)

bench-realtime: setup
	$(BIN)/python -m benchmarks.realtime $(ARGS)

bench-recommend: setup
	$(BIN)/python -m benchmarks.recommend $(ARGS)

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
