# `make lab` opens the course, `make test` proves that it runs; each sets up what it needs, once.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
ARGS ?=
# A cell that runs past its limit is interrupted like Ctrl-C, and a trainer then stops as it should: nbval calls that
# an unexpected pass, and xfail_strict makes it the failure that it is. The limit is far above what a busy machine takes.
NBVAL := --nbval-lax --nbval-current-env --nbval-cell-timeout=900 -o xfail_strict=true

.PHONY: lab test test-fast test-package test-notebooks lint notebooks exercises constraints

lab: $(READY)
	$(BIN)/course lab $(ARGS)

# Package and lessons side by side, each on a core of its own.
test: lint
	COURSE_THREADS=1 OMP_NUM_THREADS=1 $(MAKE) --jobs=2 --keep-going test-package test-notebooks

test-package: $(READY)
	$(BIN)/pytest $(ARGS)

test-notebooks: $(READY)
	COURSE_PROGRESS=$(CURDIR)/.venv/progress-of-tests.json $(BIN)/pytest $(NBVAL) notebooks solutions

test-fast: $(READY)
	$(BIN)/pytest -m "not slow" $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/python tools/notebooks.py check
	$(BIN)/python tools/exercises.py check

# Run all lessons and solutions, write their outputs, and put the lessons' measured minutes and memory into their headers.
notebooks: $(READY)
	$(BIN)/python tools/notebooks.py run $(ARGS)

# Make exercises/ anew from solutions/.
exercises: $(READY)
	$(BIN)/python tools/exercises.py write

# Needs uv; pins the torch release that the course is tested with.
constraints:
	sed 's/"torch>=[0-9.]*"/"torch==2.13.0"/' pyproject.toml > .constraints-pyproject.toml
	uv pip compile --universal --python-version 3.11 --extra dev --no-header --no-annotate -o constraints.txt .constraints-pyproject.toml
	rm .constraints-pyproject.toml

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "The course needs Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	@touch $(READY)
