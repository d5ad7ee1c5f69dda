"""The bundles' front door, function by function."""

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
