"""A pre-training from ImageNet weights, and a joint training of the same size from it."""

import json

import pytest
from commands import JOINT, PRETRAIN, TINY, run_bundle

from liverseg.networks import read_record

pytestmark = pytest.mark.integration
LITE = {**TINY, "epochs": 1, "crop_size": 64, "batch_size": 4, "network_size": "lite"}


def test_a_lite_network_starts_from_imagenet_and_hands_its_weights_over(lits_tree, cohort_tree, tmp_path):
    run = {**LITE, "dataset_dir": lits_tree, "output_dir": tmp_path / "pre", "ckpt_dir": tmp_path / "pre"}
    result = run_bundle(PRETRAIN, "training", ("train", "phantom"), **run, initialisation="imagenet")
    assert result.code == 0, result.err
    transfer = json.loads((tmp_path / "pre" / "transfer.json").read_text(encoding="utf-8"))
    assert "encoder.layer4.4.project.conv.weight" in transfer["loaded"]
    assert transfer["left"]["head.weight"] == "ImageNet has no such part"
    line = run_bundle(PRETRAIN, "training", ("train", "phantom"), **run).refusal()
    assert "the checkpoint is of a run with initialisation 'imagenet', this run has 'scratch'" in line

    result = run_bundle(PRETRAIN, "export", ("export",), output_dir=tmp_path, ckpt_dir=tmp_path / "pre")
    assert result.code == 0, result.err
    assert read_record(tmp_path / "pretrain.safetensors").arguments["size"] == "lite"
    run = {**LITE, "dataset_dir": cohort_tree, "output_dir": tmp_path / "joint", "ckpt_dir": tmp_path / "joint"}
    weights = {"pretrain_weights": tmp_path / "pretrain.safetensors", "liver_crop": 64}
    result = run_bundle(JOINT, "training", ("train", "phantom"), **run, **weights)
    assert result.code == 0, result.err
    loaded = json.loads((tmp_path / "joint" / "transfer.json").read_text(encoding="utf-8"))["loaded"]
    assert {name.split(".")[0] for name in loaded} == {"encoder", "decoder"}


def test_a_pre_training_has_no_weights_of_its_own_to_start_from(lits_tree, tmp_path):
    run = {**LITE, "dataset_dir": lits_tree, "output_dir": tmp_path / "pre", "initialisation": "lits"}
    line = run_bundle(PRETRAIN, "training", ("train", "phantom"), **run).refusal(code=2)
    assert "initialisation lits: no pretrain_weights are given; say scratch or imagenet" in line
