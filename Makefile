# Everything a checkout needs: `make demo` and `make test` work on a machine with python3 (with venv), make and git.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= runs/demo
# PyPI's torch for Linux is a CUDA build of several gigabytes; this index has the CPU build of the same version. For a GPU:
# make TORCH_INDEX=https://download.pytorch.org/whl/cu130 ...
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: demo test lint venv clean

demo: $(VENV)/.demo
	$(BIN)/liverseg demo $(DEMO)

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

venv: $(VENV)/.demo

# torch comes first, exactly and alone, so that no other package chooses a CUDA build; what it needs comes with the rest
$(VENV)/.demo: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 10) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --progress-bar off --no-deps --extra-index-url $(TORCH_INDEX) torch==2.13.0
	$(BIN)/python -m pip install --progress-bar off -c constraints.txt -e .
	touch $@

$(VENV)/.test: $(VENV)/.demo
	$(BIN)/python -m pip install --progress-bar off -c constraints.txt -e '.[test]'
	touch $@

$(VENV)/.dev: $(VENV)/.test
	$(BIN)/python -m pip install --progress-bar off -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
