"""Values a key cannot have: one line that says what is allowed, before anything is written.

The rules are tested in tests/test_values.py. Here, that each config asks for them: by reading it, in one run for each
bundle, and among the long tests in a run for each key.
"""

import re

import pytest
import yaml
from commands import EVALUATE, INFER, JOINT, PRETRAIN, run_bundle, train

from liverseg.bundle.validation import _RULES
from liverseg.inference import find_bundle

BAD_TRAINING = {
    "epochs": ("three", "is 'three'; it must be a whole number, 1 or more"),
    "batch_size": (0, "is 0; it must be a whole number, 1 or more"),
    "amp": ("maybe", "is 'maybe'; it must be auto, true or false"),
    "seed": (-1, "is -1; it must be a whole number, 0 to 4294967295"),
    "fold": ("x", "is 'x'; it must be a whole number, 0 or more"),
    "learning_rate": ("x", "is 'x'; it must be a number above 0"),
    "lesion_free": (2, "is 2; it must be a number, 0 to 1"),
    "class_weights": (
        [0, "a", 1],
        "is [0, 'a', 1]; it must be a list of numbers, 0 or more and not all 0, one for each label",
    ),
    "crop_ratios": ([0, 0, 1], "is [0, 0, 1]; it must be a list of numbers above 0, one for each label"),
    "slab_spacing_mm": (0, "is 0; it must be a number above 0, 100 at most, or null"),
    "pixel_mm": (15, "is 15; it must be a number above 0.1, 10 at most, or null"),
    "hu_window": ([250, -200], "is [250, -200]; it must be two numbers, the lower first, in HU"),
    "crop_size": (0, "is 0; it must be a whole number, 1 or more"),
    "val_interval": (0, "is 0; it must be a whole number, 1 or more"),
    "num_workers": (-1, "is -1; it must be a whole number, 0 or more"),
    "resume": ("false", "is 'false'; it must be True or False"),
}


def one_run_each(keys):
    """Parameters of which the first alone is not slow."""
    first, *rest = keys
    return [
        first,
        *(pytest.param(*(key if isinstance(key, tuple) else (key,)), marks=pytest.mark.slow) for key in rest),
    ]


@pytest.mark.parametrize("bundle", [PRETRAIN, JOINT])
@pytest.mark.parametrize("config", ["train", "evaluate", "inference"])
def test_every_key_with_a_rule_is_checked_before_anything_else(bundle, config):
    content = yaml.safe_load((find_bundle(bundle) / "configs" / f"{config}.yaml").read_text(encoding="utf-8"))
    checks = [step for step in content["initialize"] if "check_values" in step]
    checked = dict(re.findall(r"(\w+)=(?:bundle\.none_if_null\()?@(\w+)", " ".join(checks)))
    keys = content.keys() & _RULES.keys()
    if bundle == JOINT:
        keys -= {"key_score"}  # each strategy has its own, which the metric checks
    if config == "evaluate":  # an overlay of train, of whose keys it uses these
        keys = {"amp", "fold", "hu_window", "num_workers", "pixel_mm", "progress", "seed", "slab_spacing_mm"}
        keys |= {"val_batch_size"}
        keys |= {"liver_crop"} if bundle == JOINT else {"key_score"}
    assert checked.keys() >= keys
    renamed = {key: name for key, name in checked.items() if key != name}
    assert renamed == ({"batch_size": "slabs_at_a_time"} if config == "inference" else {})
    first = content["initialize"].index(checks[0])
    assert content["initialize"][first : first + len(checks)] == checks
    assert not [step for step in content["initialize"][:first] if "@" in step.replace("@torch_device", "")]


@pytest.mark.integration
@pytest.mark.parametrize("key", one_run_each(BAD_TRAINING))
@pytest.mark.parametrize("bundle", [PRETRAIN, JOINT])
def test_a_training_is_refused(bundle, key, tmp_path):
    value, words = BAD_TRAINING[key]
    line = train(bundle, tmp_path / "none", tmp_path / "out", **{key: value}).refusal(code=2)
    assert line == f"liverseg: {key} {words}"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("bundle", "labels"), [(PRETRAIN, 3), (JOINT, 5)])
@pytest.mark.parametrize("key", one_run_each(["class_weights", "crop_ratios"]))
@pytest.mark.integration
def test_a_number_is_wanted_for_each_label(bundle, labels, key, tmp_path):
    line = train(bundle, tmp_path / "none", tmp_path / "out", **{key: [1, 1]}).refusal(code=2)
    assert line == f"liverseg: {key} is [1, 1], 2 numbers; it must have {labels}, one for each label"


@pytest.mark.parametrize(
    ("key", "value", "most"),
    one_run_each([("rotation", 400, 180), ("zoom", 1, 0.9), ("zoom", -0.1, 0.9), ("shift", "abc", 1)]),
)
@pytest.mark.integration
def test_an_augmentation_is_refused(key, value, most, tmp_path):
    given = {f"train::view::{key}": value}
    line = train(JOINT, tmp_path / "none", tmp_path / "out", **given).refusal(code=2)
    assert line == f"liverseg: augmentation: {key} is {value!r}; it must be a number, 0 to {most}"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("run_id", "configs", "key", "value"),
    [
        *one_run_each([("evaluating", EVALUATE, "fold", "x"), ("evaluating", EVALUATE, "val_batch_size", 0)]),
        *one_run_each(
            [
                ("inference", INFER, "batch_size", 0),
                ("inference", INFER, "amp", "maybe"),
                ("inference", INFER, "min_lesion_ml", -1),
                ("inference", INFER, "hu_window", 5),
            ]
        ),
    ],
)
@pytest.mark.integration
@pytest.mark.parametrize("bundle", [PRETRAIN, JOINT])
def test_an_evaluation_or_inference_is_refused(bundle, run_id, configs, key, value, tmp_path):
    run = {"dataset_dir": tmp_path / "none", "output_dir": tmp_path / "out", key: value}
    line = run_bundle(bundle, run_id, configs, **run).refusal(code=2)
    assert line.startswith(f"liverseg: {key} is {value!r}; it must be ")
    assert not (tmp_path / "out").exists()
