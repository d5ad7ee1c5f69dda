"""What glibc does with memory that a process has freed: reuse it, or return it to the system."""

from __future__ import annotations

import ctypes
from contextlib import suppress

__all__ = ["keep_freed_memory", "return_freed_memory"]

# parameters of glibc's mallopt(3), by malloc.h, and their largest values
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_MAX_MMAP_THRESHOLD = 32 << 20
_INT_MAX = (1 << 31) - 1
_TOP_PAD = 64 << 20
_NO_GLIBC = (AttributeError, OSError, TypeError)
"""Errors of the calls on macOS and musl, and on Windows."""


def keep_freed_memory() -> None:
    """Let glibc reuse freed memory instead of returning it to the system; without glibc, do nothing.

    A training step allocates and frees the same maps of some megabytes again and again. By default, each comes as fresh
    pages, which the system fills with zeros: a sixth of a step's time on a CPU. The process keeps its largest size.
    """
    with suppress(*_NO_GLIBC):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _MAX_MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, _INT_MAX)
        mallopt(_M_TOP_PAD, _TOP_PAD)


def return_freed_memory() -> None:
    """Let glibc return all freed pages to the system; without glibc, do nothing.

    CTs of different sizes leave free blocks that the next CT does not fit into: without this, a worker with the full
    network kept 1.8 GB after eleven CTs instead of 1.5 GB.
    """
    with suppress(*_NO_GLIBC):
        ctypes.CDLL(None).malloc_trim(0)
