# Everything a checkout needs: `make demo` and `make test` work on a machine with python3 (with venv), make and git.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= runs/demo
STUDY := runs/study
# Each of the processes that run tests takes up to 2 GB of memory.
PYTEST ?= -n 2 --dist worksteal --durations 15
SOAK ?= --kills 20 --inputs 100 --minutes 12
PHANTOM_LIST := --from "liverseg phantom: synthetic volumes, no patients" --licence CC0-1.0 --name phantom
# PyPI's torch for Linux is a CUDA build of several gigabytes; this index has the CPU build of the same version. For a GPU:
# make TORCH_INDEX=https://download.pytorch.org/whl/cu130 ...
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: demo study soak test test-fast test-all coverage lint lock venv clean

demo: $(VENV)/.demo
	$(BIN)/liverseg demo $(DEMO)

# The comparison of docs/study.md, whole: phantoms, pre-training, every cell, report. An interrupted one goes on.
study: $(VENV)/.demo
	$(BIN)/liverseg phantom $(STUDY)/data --kind lits --volumes 80 --matrix 256 --seed 0
	$(BIN)/liverseg phantom $(STUDY)/data --kind cohort --patients 140 --slices 332 --matrix 256 --seed 1
	$(BIN)/liverseg datalist lits $(STUDY)/data/lits $(PHANTOM_LIST)-lits
	$(BIN)/liverseg datalist cohort $(STUDY)/data/cohort --folds 3 $(PHANTOM_LIST)-cohort
	cd bundles/liver_lesion_pretrain && ../../$(BIN)/python -m monai.bundle run training \
	  --config_file "['configs/train.yaml','configs/phantom.yaml']" --dataset_dir ../../$(STUDY)/data/lits --epochs 12 \
	  --output_dir ../../$(STUDY)/pretrain --ckpt_dir ../../$(STUDY)/pretrain --cache_dir ../../$(STUDY)/cache
	cd bundles/liver_lesion_pretrain && ../../$(BIN)/python -m monai.bundle run export \
	  --config_file configs/export.yaml --ckpt_dir ../../$(STUDY)/pretrain --output_dir ../../$(STUDY)
	$(BIN)/liverseg study run studies/phantom.yaml || test $$? = 3 # 3: rows that cannot be had here, told in the report
	$(BIN)/liverseg study report studies/phantom.yaml --output docs

# Kills, damaged and hostile inputs for `liverseg batch`, about a quarter of an hour. The whole campaign of
# docs/reliability.md: make soak SOAK="--kills 200 --inputs 500 --minutes 180". An interrupted one goes on.
soak: $(VENV)/.demo
	$(BIN)/python -m benchmarks.soak all runs/soak $(SOAK)

# Bytecode is kept even where the environment says otherwise: without it each process compiles all tests anew.
test test-fast test-all coverage: export PYTHONDONTWRITEBYTECODE :=

# Three tiers, see CONTRIBUTING.md: on every save, before every commit, before a release.
test-fast: $(VENV)/.test
	$(BIN)/python -m pytest $(PYTEST) -m "not integration and not slow"

test: $(VENV)/.test
	$(BIN)/python -m pytest $(PYTEST) -m "not slow"

test-all: $(VENV)/.test
	$(BIN)/python -m pytest $(PYTEST)

# Lines and branches that a tier reaches, child processes included but for those that are killed. All tests; or
# make coverage TIER="not slow"
TIER ?=
coverage: $(VENV)/.dev
	mkdir -p runs/coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(PYTEST) -m "$(TIER)"; code=$$?; \
	  $(BIN)/coverage combine -q && $(BIN)/coverage report && exit $$code

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The pinned and hashed dependencies of the container, after a change of constraints.txt or setup.cfg.
lock: $(VENV)/.dev
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python docker/lock.py

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
