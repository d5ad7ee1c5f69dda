"""Set-up of bundle runs, function by function."""

import logging
import sys

import numpy as np
import pytest

from liverseg.bundle import setup as bundle
from liverseg.bundle.validation import check_values
from liverseg.errors import UsageError, user_error
from liverseg.inference import failures


def wrapped(error):
    """Return the error as MONAI raises it: from and while handling others."""
    try:
        try:
            raise error
        except Exception as cause:
            raise ValueError("a transform failed") from cause
    except ValueError:
        try:
            raise RuntimeError("a config failed")
        except RuntimeError as outer:
            return outer


def test_one_search_finds_the_users_error_wherever_it_is_wrapped():
    mistake = UsageError("epochs is 0")
    assert user_error(wrapped(mistake)) is user_error(mistake) is mistake
    assert user_error(wrapped(OSError("disk"))) is None
    assert bundle.user_error is failures.user_error is user_error


@pytest.mark.parametrize(
    ("argv", "is_command"),
    [
        (["/venv/monai/bundle/__main__.py", "run", "training"], True),
        (["/venv/monai/bundle/__main__.py", "ckpt_export"], False),
        (["/home/me/monai/predict.py", "run"], False),
        ([""], False),
    ],
)
def test_errors_are_made_plain_in_monais_command_only(argv, is_command, monkeypatch):
    logger = logging.getLogger("ignite")
    before = sys.excepthook, logger.level
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    try:
        bundle.install_excepthook()
        assert ((sys.excepthook, logger.level) != before) is is_command
    finally:
        logger.setLevel(before[1])


@pytest.mark.parametrize(
    ("key", "allowed", "refused", "words"),
    [
        ("epochs", [1, 60, np.int64(3)], [0, -1, 3.0, "three", True, None], "a whole number, 1 or more"),
        ("seed", [0, 2**32 - 1], [-1, 2**32, 0.5], "a whole number, 0 to 4294967295"),
        ("patience", [1, None], [0, "null"], "a whole number, 1 or more, or null"),
        ("learning_rate", [1, 1e-4], [0, -1, "x", float("nan"), float("inf"), True], "a number above 0"),
        ("lesion_free", [0, 0.1, 1], [-0.1, 2, "all"], "a number, 0 to 1"),
        ("min_lesion_ml", [0, 5], [-1, "small"], "a number, 0 or more"),
        ("amp", ["auto", "True", "false", True, False], ["maybe", 1, None], "auto, true or false"),
        ("resume", [True, False], ["false", "no", 0, None], "True or False"),  # any text would be true
    ],
)
def test_a_value_is_checked_against_its_keys_rule(key, allowed, refused, words):
    for value in allowed:
        check_values(**{key: value})
    for value in refused:
        with pytest.raises(UsageError) as caught:
            check_values(fold=0, **{key: value})
        assert str(caught.value) == f"{key} is {value!r}; it must be {words}"


@pytest.mark.parametrize("name", ["mps", "xpu:0", "meta", "gpu"])
def test_a_device_that_is_neither_cpu_nor_cuda_is_refused(name):
    with pytest.raises(UsageError, match=f"device '{name}' is not known; take auto, cpu, cuda or cuda:N"):
        bundle.get_device(name)


@pytest.mark.parametrize(
    ("name", "count", "words"),
    [("cuda", 0, "no usable CUDA GPU; take cpu"), ("cuda:2", 2, "this machine has cuda:0 to cuda:1")],
)
def test_a_gpu_that_is_not_there_is_refused(name, count, words, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: count > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    with pytest.raises(UsageError, match=words):
        bundle.get_device(name)
