"""Invalid values of keys: one line with the allowed values."""

import math

import numpy as np
import pytest

from liverseg.bundle.validation import check_values
from liverseg.errors import UsageError

REFUSED = [
    ("epochs", "three", "a whole number, 1 or more"),
    ("epochs", True, "a whole number, 1 or more"),
    ("epochs", 1.0, "a whole number, 1 or more"),
    ("epochs", None, "a whole number, 1 or more"),
    ("batch_size", 0, "a whole number, 1 or more"),
    ("amp", "maybe", "auto, true or false"),
    ("seed", -1, "a whole number, 0 to 4294967295"),
    ("seed", 2**32, "a whole number, 0 to 4294967295"),
    ("fold", "x", "a whole number, 0 or more"),
    ("patience", 0, "a whole number, 1 or more, or null"),
    ("learning_rate", "x", "a number above 0"),
    ("learning_rate", 0, "a number above 0"),
    ("learning_rate", math.nan, "a number above 0"),
    ("learning_rate", math.inf, "a number above 0"),
    ("lesion_free", 2, "a number, 0 to 1"),
    ("lesion_free", False, "a number, 0 to 1"),
    ("min_lesion_ml", -1, "a number, 0 or more"),
    ("slab_spacing_mm", 0, "a number above 0, 100 at most, or null"),
    ("slab_spacing_mm", 101, "a number above 0, 100 at most, or null"),
    ("pixel_mm", 0.1, "a number above 0.1, 10 at most, or null"),
    ("pixel_mm", "1.5 mm", "a number above 0.1, 10 at most, or null"),
    ("hu_window", [250, -200], "two numbers, the lower first, in HU"),
    ("hu_window", [1, 2, 3], "two numbers, the lower first, in HU"),
    ("hu_window", 5, "two numbers, the lower first, in HU"),
    ("hu_window", "ab", "two numbers, the lower first, in HU"),
    ("class_weights", [0, "a", 1], "a list of numbers, 0 or more and not all 0, one for each label"),
    ("class_weights", [0, 0, 0], "a list of numbers, 0 or more and not all 0, one for each label"),
    ("class_weights", [], "a list of numbers, 0 or more and not all 0, one for each label"),
    ("crop_ratios", [0, 0, 1], "a list of numbers above 0, one for each label"),
    ("crop_size", 63, "a whole number, 64 or more"),
    ("val_interval", 0, "a whole number, 1 or more"),
    ("num_workers", -1, "a whole number, 0 or more"),
    ("resume", "false", "True or False"),
    ("resume", 1, "True or False"),
    ("initialisation", "jpeg", "scratch, imagenet or lits"),
]


@pytest.mark.parametrize(("key", "value", "words"), REFUSED)
def test_a_value_that_is_not_allowed_is_refused(key, value, words):
    with pytest.raises(UsageError) as caught:
        check_values(labels=3, **{key: value})
    assert str(caught.value) == f"{key} is {value!r}; it must be {words}"


@pytest.mark.parametrize("key", ["class_weights", "crop_ratios"])
@pytest.mark.parametrize("labels", [3, 5])
def test_a_number_is_needed_for_each_label(key, labels):
    with pytest.raises(UsageError) as caught:
        check_values(labels=labels, **{key: [1, 1]})
    assert str(caught.value) == f"{key} is [1, 1], 2 numbers; it must have {labels}, one for each label"
    check_values(labels=labels, **{key: [1] * labels})


def test_the_first_wrong_value_is_named():
    with pytest.raises(UsageError, match="seed is -1"):
        check_values(epochs=3, seed=-1, fold="x")


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": np.int64(3), "patience": None, "seed": 0, "fold": 0},
        {"amp": True, "progress": False, "initialisation": "LiTS"},
        {"learning_rate": 1, "lesion_free": 0, "min_lesion_ml": np.float32(0.5), "slab_spacing_mm": 100},
        {"hu_window": (-200, 250.5), "liver_crop": None, "pixel_mm": None, "type_weight": 0},
    ],
)
def test_values_that_are_allowed(values):
    check_values(**values)


def test_a_key_without_a_rule_is_a_mistake_of_the_config():
    with pytest.raises(KeyError):
        check_values(epoch=3)
