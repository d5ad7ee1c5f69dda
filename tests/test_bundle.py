"""The bundles' front door, function by function."""

import logging
import sys

import pytest

from liverseg import bundle
from liverseg.errors import UsageError, user_error
from liverseg.inference import failures


def wrapped(error):
    """The error as MONAI hands it on: raised from and while handling others."""
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
        bundle.plain_errors()
        assert ((sys.excepthook, logger.level) != before) is is_command
    finally:
        logger.setLevel(before[1])
