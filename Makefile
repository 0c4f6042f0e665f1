# Everything runs in .venv, made from the committed lock. `make demo` and `make test` are all a newcomer needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Tests and demo share two cores with whatever else runs: more threads than cores only wait for each other.
export DO_NOT_TRACK = 1
export MLFLOW_DISABLE_TELEMETRY = true
export PREFECT_SERVER_ANALYTICS_ENABLED = false

.PHONY: demo test proofs check bench format clean

$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4))' || { echo "Python >= 3.11.4 is needed (archives are unpacked by tarfile's filters): make PYTHON=FILE of a newer python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/ctfactory demo

test: $(STAMP)
	$(BIN)/python -m pytest

# The long forms of tests/proofs: 200 kills, every write refused in three ways, 600 runs of the lake's model and 200 of the labels'. An hour and a half.
proofs: $(STAMP)
	PYTHONPATH=.:tests $(BIN)/python tests/proofs/crash_ingest.py --kills 200
	PYTHONPATH=.:tests $(BIN)/python tests/proofs/crash_pseudo_label.py --kills 20
	PYTHONPATH=.:tests $(BIN)/python tests/proofs/io_faults.py
	PYTHONPATH=.:tests $(BIN)/python tests/proofs/crash_promotion.py --kills 100
	CTFACTORY_MODEL_EXAMPLES=600 $(BIN)/python -m pytest -o timeout=7200 tests/proofs/test_lake_model.py
	CTFACTORY_MODEL_EXAMPLES=200 $(BIN)/python -m pytest -o timeout=7200 tests/proofs/test_label_model.py

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/python -m benchmarks

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .hypothesis
