"""Invalid values of keys: one line with the allowed values, before anything is written.

tests/bundle/test_validation.py and tests/bundle/test_config.py test the rules. These tests cover the configs: read
directly, in one run per bundle, and, among the slow tests, in one run per key.
"""

import pytest
import yaml
from commands import EVALUATE, INFER, JOINT, PRETRAIN, run_bundle, train

from liverseg.bundle.validation import RULES
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
    "crop_size": (0, "is 0; it must be a whole number, 64 or more"),
    "val_interval": (0, "is 0; it must be a whole number, 1 or more"),
    "num_workers": (-1, "is -1; it must be a whole number, 0 or more"),
    "resume": ("false", "is 'false'; it must be True or False"),
}


def one_run_each(keys):
    """Return parameters of which all but the first are slow."""
    first, *rest = keys
    return [
        first,
        *(pytest.param(*(key if isinstance(key, tuple) else (key,)), marks=pytest.mark.slow) for key in rest),
    ]


def read(bundle, name):
    return yaml.safe_load((find_bundle(bundle) / "configs" / f"{name}.yaml").read_text(encoding="utf-8"))


WITHOUT_RULE = ("series", "pretrain_weights", "imagenet_weights", "lesion_ranges_from", "cache_dir")
"""Keys that are null or a path or a text."""
OBJECTS = ("synthetic_lesions", "scanner_augmentation")
"""Keys that are null or an object, which checks its own arguments."""


def is_plain(value):
    """Return true for numbers, booleans, null and lists of numbers."""
    return isinstance(value, bool | int | float | None) or (
        isinstance(value, list) and all(isinstance(number, int | float) for number in value)
    )


@pytest.mark.parametrize(
    ("bundle", "name"),
    [(bundle, name) for bundle in (PRETRAIN, JOINT) for name in ("train", "evaluate", "inference", "export")]
    + [(JOINT, "average")],
)
def test_every_config_checks_its_values_before_anything_else(bundle, name):
    content = read(bundle, name)
    nested = [content["load"] if step == "%load" else [step] for step in content["initialize"]]
    steps = [step.split("(")[0] for part in nested for step in part]
    first = ["$bundle.install_excepthook", "$bundle.refuse_unknown_overrides"]
    first += ["$bundle.require_single_process"] * (name == "evaluate")
    assert steps[: len(first) + 1] == [*first, "$bundle.check_config"]


@pytest.mark.parametrize("bundle", [PRETRAIN, JOINT])
@pytest.mark.parametrize("name", ["train", "inference", "export", "multi_gpu_train"])
def test_every_plain_key_has_a_rule(bundle, name):
    known = {*RULES, *WITHOUT_RULE, *OBJECTS}
    assert [key for key, value in read(bundle, name).items() if is_plain(value) and key not in known] == []


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
def test_a_number_is_needed_for_each_label(bundle, labels, key, tmp_path):
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
