PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Where CamVid and the pretrained checkpoints lie; tests and recipes that need them say so where it is not set.
export SEGPLUS_DATA
export HF_HUB_OFFLINE ?= 1
export NO_ALBUMENTATIONS_UPDATE := 1
export NO_MKDOCS_2_WARNING := 1

.PHONY: quickstart test test-slow test-networks test-wheel check docs audit format clean

$(VENV)/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --requirement requirements.txt --editable ".[test,check]"
	touch $@

quickstart: $(VENV)/installed  ## train, evaluate, report, and segment one image
	$(BIN)/segplus train quickstart
	$(BIN)/segplus predict runs/quickstart runs/quickstart/pictures/input.png --output runs/quickstart/predicted.png --kind overlay

test: $(VENV)/installed  ## every test that takes seconds
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: $(VENV)/installed  ## the tests that take minutes
	$(BIN)/python -m pytest -m "slow and not wheel and not networks"

test-networks: $(VENV)/installed  ## every network compiled, and trained on four images
	$(BIN)/python -m pytest -m networks

test-wheel: $(VENV)/installed  ## the wheel in an empty environment, used from an empty folder
	$(BIN)/python -m pytest -m wheel

check: $(VENV)/installed docs  ## lint, format, types, layers, spelling, documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/typos

docs: $(VENV)/installed  ## the documentation, in build/docs; a warning or a broken link is an error
	$(BIN)/python -m mkdocs build --quiet --strict

audit: $(VENV)/installed  ## known weaknesses of the packages in requirements.txt; asks the package index, so it is no part of check
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet pip-audit
	$(VENV)/audit/bin/pip-audit --strict --requirement requirements.txt

format: $(VENV)/installed  ## what check would ask for
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache
