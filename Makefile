# The README's two commands, `make demo` and `make test`, need Python 3.11 or later and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check clean

demo: $(READY)
	$(BIN)/kshot demo -o kshot-demo --overwrite

test: $(READY)
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered -n 2 -q

check: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/check

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) kshot-demo .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
