# Two commands set up everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= exp=selection_30pct

.PHONY: install demo test test-all lint audit gpu-pack gpu-card

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
	PYRIGHT_PYTHON_GLOBAL_NODE=0 PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python  # own node, asks no network

test: lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --durations=10 -m "not slow"

# With whole jobs that are killed, damaged and starved, over and over.
test-all: lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --durations=10

# Known faults of what is installed, from the public database of advisories: needs the network, and so is no part of the tests.
audit: install
	$(PYTHON) -m venv .audit
	.audit/bin/pip install -q pip-audit
	$(BIN)/python -m pip freeze --exclude-editable > .audit/installed.txt
	.audit/bin/pip-audit --no-deps --disable-pip --progress-spinner off -r .audit/installed.txt > .audit/found 2> .audit/log; \
	status=$$?; cat .audit/found; all=$$(grep -c == .audit/installed.txt); skipped=$$(grep -c "could not be audited" .audit/found); \
	if ! grep -qE "^(No known vulnerabilities|Found [0-9]+ known)" .audit/log || [ $$skipped -ge $$all ]; then \
	echo "NOT AUDITED: no advisories can be read from here ($$(tail -n 1 .audit/log))"; exit 2; fi; \
	echo "$$((all - skipped)) of $$all packages audited: $$(tail -n 1 .audit/log)"; exit $$status

# The GPU card (docs/gpu.md): on a CUDA machine, and what a lent one without network needs to be brought.
CORPUS ?= ../shared/data/corpus/wide
ITEMS ?= ../shared/data/benchmarks
gpu-card: install
	PATH="$(abspath $(BIN)):$$PATH" CORPUS=$(CORPUS) ITEMS=$(ITEMS) benchmarks/gpu/card.sh results/benchmarks

gpu-pack: install
	$(BIN)/python -m benchmarks.gpu.pack --corpus $(CORPUS) --items $(ITEMS)
