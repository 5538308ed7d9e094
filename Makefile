PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2

.PHONY: demo test lint docs clean

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $@

demo: $(VENV)/ready
	$(BIN)/plq train --config digits_w1a2 --workdir runs/digits_w1a2
	$(BIN)/plq evaluate --workdir runs/digits_w1a2
	$(BIN)/plq evaluate --model runs/digits_w1a2/model

test: $(VENV)/ready lint
	$(BIN)/python -m pytest -n $(JOBS)

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/shellcheck --external-sources launch/*.sh

docs: $(VENV)/ready
	$(BIN)/pip install --quiet --editable '.[docs]'
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) runs
