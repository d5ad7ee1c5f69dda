"""pydicom's validation of values, switched off for a while: it logs what it finds odd, a birth date for one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pydicom.config import disable_value_validation

__all__ = ["without_validation"]

_one_at_a_time = threading.RLock()
"""The switch is of the whole process: of two threads, the first to leave would switch it on again for the other."""


@contextmanager
def without_validation() -> Iterator[None]:
    """No validation in the block; another thread's block waits for its end."""
    with _one_at_a_time, disable_value_validation():
        yield
