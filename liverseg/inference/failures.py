"""Describe and categorise the failures of cases."""

from __future__ import annotations

import errno

import torch

from liverseg.cases.events import CaseFailed
from liverseg.errors import (
    ConflictError,
    GeometryError,
    LiversegError,
    NotCTError,
    OutputError,
    UnreadableError,
    causes,
    user_error,
)

__all__ = ["FAILURE_CATEGORIES", "case_failed", "categorise_failure", "describe_cause"]

FAILURE_CATEGORIES = ("unreadable", "geometry", "not CT", "out of memory", "output", "conflict", "internal")
"""Categories of `categorise_failure`."""

_CATEGORIES: dict[type[LiversegError], str] = {
    UnreadableError: "unreadable",
    GeometryError: "geometry",
    NotCTError: "not CT",
    OutputError: "output",
    ConflictError: "conflict",
}
_BY_STAGE = {"read": "unreadable", "write": "output"}
"""Category of an error without a kind, by the stage in which a CT is read or its results are written."""
_NO_MEMORY = ("can't allocate memory", "defaultcpuallocator", "out of memory", "alloc_failed", "failed to allocate")
"""Messages, in lower case, of torch's CPU allocator, CUDA, cuBLAS or cuDNN, and ITK, each in a RuntimeError."""


def describe_cause(error: BaseException) -> str:
    """Return the reason why a case failed, in one line."""
    known = user_error(error)
    if known is not None:
        return str(known)
    first = error
    while first.__cause__ is not None:  # MONAI wraps it in an error about a transform
        first = first.__cause__
    words = " ".join(str(first).split())
    return f"{type(first).__name__}: {words}" if words else type(first).__name__


def categorise_failure(error: BaseException, stage: str) -> str:
    """Return the category of a case's failure, one of `FAILURE_CATEGORIES`, to sort the failures of a batch.

    The causes of an error count as well. "out of memory" takes precedence: a CT whose voxels do not fit in memory is
    reported as unreadable, but a larger machine may read it.

    Args:
        error: the exception that ended the case.
        stage: "read", "write" or another. A LiversegError or OSError without a kind is "unreadable" in the first and
            "output" in the second; in all others it is "internal".
    """
    chain = list(causes(error))
    if any(map(_is_out_of_memory, chain)):
        return "out of memory"
    for cause in chain:
        for kind, category in _CATEGORIES.items():
            if isinstance(cause, kind):
                return category
    if any(isinstance(cause, (LiversegError, OSError)) for cause in chain):
        return _BY_STAGE.get(stage, "internal")
    return "internal"


def case_failed(case: str, stage: str, error: Exception) -> CaseFailed:
    """Describe the failure of a case by its category and its cause.

    Args:
        case: name of the case.
        stage: the stage that failed, as in `categorise_failure`.
        error: the exception that ended the case.
    """
    return CaseFailed(case, stage, categorise_failure(error, stage), describe_cause(error), error)


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, RuntimeError):
        said = str(error).lower()
        return isinstance(error, torch.OutOfMemoryError) or any(words in said for words in _NO_MEMORY)
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
