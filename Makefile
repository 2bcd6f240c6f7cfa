# `make lab` opens the course, `make test` proves that it runs; each sets up what it needs, once.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
ARGS ?=

.PHONY: lab test test-fast notebooks lint constraints

lab: $(READY)
	$(BIN)/course lab $(ARGS)

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/python tools/notebooks.py check
	$(BIN)/pytest $(ARGS)
	$(BIN)/pytest --nbval-lax --nbval-current-env --nbval-cell-timeout=180 notebooks

test-fast: $(READY)
	$(BIN)/pytest -m "not slow" $(ARGS)

# Run all lessons, write their outputs, and put the measured minutes and memory into their headers.
notebooks: $(READY)
	$(BIN)/python tools/notebooks.py run $(ARGS)

# Needs uv; pins the torch release that the course is tested with.
constraints:
	sed 's/"torch>=[0-9.]*"/"torch==2.13.0"/' pyproject.toml > .constraints-pyproject.toml
	uv pip compile --universal --python-version 3.11 --all-extras --no-header --no-annotate -o constraints.txt .constraints-pyproject.toml
	rm .constraints-pyproject.toml

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "The course needs Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	@touch $(READY)
