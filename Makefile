# Everything a checkout needs: `make demo` and `make test` work on a machine with python3 (with venv), make and git.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= runs/demo
STUDY := runs/study
STARTER := runs/starter
# Folder of the published slices: images/, masks/ and slices.csv; data_lists/README.md says where they are from.
SLICES ?= data/msd_liver_slices
# HCC_007 of TCIA's HCC-TACE-Seg as NIfTI, portal venous phase. The pre-trained network outlines its liver, on every slice
# as a reader would; of HCC_006, HCC_009, CRLM-CT-1004 and 1006 it takes bowel or stomach for liver on some.
CT ?= data/hcc_007.nii.gz
# Processes that load slices while a GPU trains; without a GPU the network needs all processors itself.
WORKERS ?= 0
# Chosen by looking at 3D-IRCADb 1 and five patients of TCIA: few false lesions, and outlines nearer to the reader's.
VOXEL_THRESHOLD := 0.1
LESION_THRESHOLD := 0.8
STARTER_EXPORT := --voxel_threshold $(VOXEL_THRESHOLD) --lesion_threshold $(LESION_THRESHOLD)
STARTER_PRETRAIN := --config_file "['configs/train.yaml','configs/real_ct.yaml']" --num_workers $(WORKERS) --seed 1
STARTER_JOINT := --config_file "['configs/train.yaml','configs/strategies/ours.yaml','configs/real_ct.yaml']" \
  --dataset_dir ../../$(STARTER) --datalist ../../$(STARTER)/joint-list.json --cache_dir ../../$(STARTER)/cache \
  --num_workers $(WORKERS) --network_def::windows "[5, 11]" --network_def::evidence both
# Further options of the trainings. A trial of `make starter` without a GPU, some 25 minutes on two processors:
# make starter PRETRAIN_OPTIONS="--epochs 9 --batch_size 16 --repeats 1" JOINT_OPTIONS="--epochs 2 --batch_size 16 --repeats 1"
PRETRAIN_OPTIONS ?=
JOINT_OPTIONS ?=
# Each of the processes that run tests takes up to 2 GB of memory.
PYTEST ?= -n 2 --dist worksteal --durations 15
SOAK ?= --kills 20 --inputs 100 --minutes 12
PHANTOM_LIST := --from "liverseg phantom: synthetic volumes, no patients" --licence CC0-1.0 --name phantom
# PyPI's torch for Linux is a CUDA build of several gigabytes; this index has the CPU build of the same version. For a GPU:
# make TORCH_INDEX=https://download.pytorch.org/whl/cu130 ...
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: demo study starter soak test test-fast test-all coverage lint lock venv clean

demo: $(VENV)/.demo
	$(BIN)/liverseg demo $(DEMO)

# The comparison of docs/study.md, whole: phantoms, pre-training, every cell, report. An interrupted one goes on.
study: $(VENV)/.imagenet
	$(BIN)/liverseg phantom $(STUDY)/data --kind lits --volumes 80 --matrix 256 --seed 0
	$(BIN)/liverseg phantom $(STUDY)/data --kind cohort --patients 140 --slices 332 --matrix 256 --seed 1
	$(BIN)/liverseg datalist lits $(STUDY)/data/lits $(PHANTOM_LIST)-lits
	$(BIN)/liverseg datalist cohort $(STUDY)/data/cohort --folds 3 $(PHANTOM_LIST)-cohort
	cd bundles/liver_lesion_pretrain && ../../$(BIN)/python -m monai.bundle run training \
	  --config_file "['configs/train.yaml','configs/phantom.yaml']" --dataset_dir ../../$(STUDY)/data/lits --epochs 16 \
	  --network_size lite --initialisation imagenet --batch_norm_momentum 0.1 --amp False \
	  --output_dir ../../$(STUDY)/pretrain --ckpt_dir ../../$(STUDY)/pretrain --cache_dir ../../$(STUDY)/cache
	cd bundles/liver_lesion_pretrain && ../../$(BIN)/python -m monai.bundle run export \
	  --config_file configs/export.yaml --ckpt_dir ../../$(STUDY)/pretrain --output_dir ../../$(STUDY)
	$(BIN)/liverseg study run studies/phantom.yaml
	$(BIN)/liverseg study report studies/phantom.yaml --output docs

# The weights that come with the software: a pre-training and a joint network on published slices of patients. Some 20
# minutes on a GPU with 16 processors (WORKERS=14), some nine hours on two processors; an interrupted run goes on.
PRETRAIN_RUN = cd bundles/liver_lesion_pretrain && ../../$(BIN)/python -m monai.bundle run
JOINT_RUN = cd bundles/liver_lesion_joint && ../../$(BIN)/python -m monai.bundle run
starter: $(VENV)/.demo
	$(BIN)/liverseg datalist slices $(SLICES) --hu 0:255 --pixel-mm 1.5 --labelled liver --name msd --folds 5 \
	  --from "Medical Segmentation Decathlon Task03 (LiTS), slices of 256 x 256" --licence "CC BY-SA 4.0" \
	  -o $(STARTER)/slices/datalist.json
	$(BIN)/liverseg phantom $(STARTER)/phantoms --kind lits --volumes 12 --matrix 256 --seed 1000
	$(BIN)/liverseg phantom $(STARTER)/phantoms --kind cohort --patients 60 --slices 180 --matrix 256 --seed 1001
	$(BIN)/liverseg datalist lits $(STARTER)/phantoms/lits $(PHANTOM_LIST)-lits
	$(BIN)/liverseg datalist cohort $(STARTER)/phantoms/cohort $(PHANTOM_LIST)-cohort
	$(BIN)/liverseg synthesize $(STARTER)/slices/datalist.json -o $(STARTER)/untyped --fold 0 --seed 7 \
	  --outline-margin-mm 2 --min-detectability 6 --untyped || test $$? = 3
	$(BIN)/liverseg synthesize $(STARTER)/slices/datalist.json -o $(STARTER)/typed --fold 0 --seed 7 \
	  --outline-margin-mm 2 --min-detectability 6 || test $$? = 3
	$(BIN)/liverseg datalist join --same-patients --name starter-pretrain -o $(STARTER)/pretrain-list.json \
	  $(STARTER)/slices/datalist.json $(STARTER)/untyped/datalist.json $(STARTER)/phantoms/lits/datalist.json
	$(PRETRAIN_RUN) training $(STARTER_PRETRAIN) \
	  --dataset_dir ../../$(STARTER) --datalist ../../$(STARTER)/pretrain-list.json --cache_dir ../../$(STARTER)/cache \
	  --output_dir ../../$(STARTER)/pretrain --ckpt_dir ../../$(STARTER)/pretrain $(PRETRAIN_OPTIONS)
	$(PRETRAIN_RUN) export --config_file configs/export.yaml --ckpt_dir ../../$(STARTER)/pretrain \
	  --output_dir ../../$(STARTER) $(STARTER_EXPORT)
	mkdir -p $(STARTER)/cts
	cp $(CT) $(STARTER)/cts/hcc_007.nii.gz
	$(BIN)/liverseg pseudo-label $(STARTER)/cts/hcc_007.nii.gz -o $(STARTER)/cts \
	  --weights $(STARTER)/pretrain.safetensors --bundle bundles/liver_lesion_pretrain --min-largest-part 0.85 \
	  --name tcia --from "TCIA HCC-TACE-Seg" --licence "CC BY 4.0"
	$(BIN)/liverseg datalist join --same-patients --name starter-joint -o $(STARTER)/joint-list.json \
	  $(STARTER)/slices/datalist.json $(STARTER)/typed/datalist.json $(STARTER)/phantoms/cohort/datalist.json \
	  $(STARTER)/cts/datalist.json
	$(JOINT_RUN) training $(STARTER_JOINT) --seed 1 --pretrain_weights ../../$(STARTER)/pretrain.safetensors \
	  --output_dir ../../$(STARTER)/joint --ckpt_dir ../../$(STARTER)/joint $(JOINT_OPTIONS)
	$(JOINT_RUN) average --config_file configs/average.yaml --ckpt_dir ../../$(STARTER)/joint --output_dir ../../$(STARTER) \
	  --pretrain_weights ../../$(STARTER)/pretrain.safetensors
	$(JOINT_RUN) training $(STARTER_JOINT) --pretrain_weights ../../$(STARTER)/averaged.safetensors --carry_heads True \
	  --fine_tuning heads --head_factor 1 --batch_size 16 --repeats 1 --lesion_free 0.3 --epochs 16 --val_interval 4 \
	  --output_dir ../../$(STARTER)/heads --ckpt_dir ../../$(STARTER)/heads $(JOINT_OPTIONS)
	$(PRETRAIN_RUN) export --config_file configs/export.yaml --ckpt_dir ../../$(STARTER)/pretrain \
	  --output_dir ../../$(STARTER)/weights $(STARTER_EXPORT) --half True
	$(JOINT_RUN) export --config_file configs/export.yaml --ckpt_dir ../../$(STARTER)/heads \
	  --output_dir ../../$(STARTER)/weights $(STARTER_EXPORT) --half True \
	  --lesion_ranges_from ../../$(STARTER)/typed/datalist.json

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
	$(BIN)/python -m pip install --progress-bar off -c constraints.txt -e '.[pacs]'
	touch $@

$(VENV)/.imagenet: $(VENV)/.demo
	$(BIN)/python -m pip install --progress-bar off -c constraints.txt -e '.[imagenet]'
	touch $@

$(VENV)/.test: $(VENV)/.demo
	$(BIN)/python -m pip install --progress-bar off -c constraints.txt -e '.[test]'
	touch $@

$(VENV)/.dev: $(VENV)/.test
	$(BIN)/python -m pip install --progress-bar off -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
