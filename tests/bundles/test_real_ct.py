"""Both bundles' overlay for real CT: a few training steps on phantoms."""

import json

import pytest
import torch
import yaml
from commands import JOINT, PRETRAIN, TINY, run_bundle

from liverseg.inference import find_bundle
from liverseg.networks import read_record

pytestmark = pytest.mark.integration
REAL = ("train", "real_ct")


def settings_of(folder):
    return json.loads(torch.load(folder / "checkpoint.pt", weights_only=True)["settings"])


@pytest.mark.parametrize("bundle", [PRETRAIN, JOINT])
def test_a_training_records_its_scanners_and_does_not_go_on_with_others(bundle, lits_tree, cohort_tree, tmp_path):
    run = {**TINY, "epochs": 1, "output_dir": tmp_path / "out", "ckpt_dir": tmp_path / "out" / "models"}
    run["dataset_dir"] = lits_tree if bundle == PRETRAIN else cohort_tree
    if bundle == JOINT:
        run["pretrain_weights"] = "null"
    result = run_bundle(bundle, "training", REAL, **run)
    assert result.code == 0, result.err
    written = yaml.safe_load((find_bundle(bundle) / "configs" / "real_ct.yaml").read_text(encoding="utf-8"))
    overlay = {key: value for key, value in written["scanner_augmentation"].items() if key != "_target_"}
    settings = settings_of(tmp_path / "out")
    assert settings["scanner_augmentation"].pop("_target_") == "liverseg.transforms.RandScannerd"
    assert settings["scanner_augmentation"] == overlay
    view = settings["train"]["view"]
    assert (view["rotation"], view["zoom"], view["crop_size"]) == (20, 0.25, 64)
    assert read_record(tmp_path / "out" / "models" / "model.pt").input_spec.hu_window == (0, 250)

    for change, words in (
        ({"scanner_augmentation::noise_prob": 0.9}, "scanner_augmentation::noise_prob 0.5, this run has 0.9; "),
        ({"scanner_augmentation": "null"}, "scanner_augmentation {'_target_': 'liverseg.transforms.RandScannerd', "),
    ):
        line = run_bundle(bundle, "training", REAL, **run, **change).refusal()
        assert f"the checkpoint is of a run with {words}" in line


@pytest.mark.parametrize("bundle", [PRETRAIN, JOINT])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"scanner_augmentation::noise_hu": "[25, 0]"},
            "scanner augmentation: noise_hu is [25, 0]; it must be two numbers, the lower first, 0 to 1000",
        ),
        (
            {"scanner_augmentation": 3},
            "augmentation: 3 is not a random transform of liverseg.transforms; give a mapping",
        ),
    ],
)
def test_a_scanner_that_cannot_be_is_refused_before_anything_is_read(bundle, change, words, tmp_path):
    run = {**TINY, "dataset_dir": tmp_path / "none", "output_dir": tmp_path / "out", **change}
    line = run_bundle(bundle, "training", REAL, **run).refusal(code=2)
    assert line.startswith(f"liverseg: {words}")
    assert not (tmp_path / "out").exists()
