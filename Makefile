# Two commands set up everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= exp=selection_30pct

.PHONY: install demo test lint

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch  # first, so that nothing pulls a newer build
	$(BIN)/pip install -q -c constraints.txt -e '.[dev,cluster]'
	touch $@

install: $(VENV)/.installed

demo: install
	$(BIN)/python -m repro.run $(DEMO)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

test: lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --durations=10
