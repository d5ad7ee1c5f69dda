"""Exceptions for errors that a user can correct, and the exit codes of every liverseg command.

- LiversegError, exit code 1
    - UsageError, exit code 2: the command, or the manifest it names, is wrong
    - SomeCasesFailed, exit code 3: some cases of a run failed, the others are done
    - UnreadableError: an input cannot be read
    - GeometryError: an input does not state where its voxels are, or contradicts itself
    - NotCTError: an input is not a CT in HU
    - OutputError: a file cannot be written
    - ConflictError: the output folder holds the results of another CT

The five with the exit code of their base class are the failure categories of a batch.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from enum import IntEnum

__all__ = [
    "ConflictError",
    "ExitCode",
    "GantryTiltError",
    "GeometryError",
    "LiversegError",
    "NotCTError",
    "OutputError",
    "SomeCasesFailed",
    "UnreadableError",
    "UsageError",
    "causes",
    "one_line",
    "suggest",
    "user_error",
]


class ExitCode(IntEnum):
    """Exit codes shared by the command line and the bundles."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    SOME_CASES_FAILED = 3


class LiversegError(Exception):
    """Something a user can correct, described in one line: what was found, in which file, what is allowed, what to do.

    For a table with several bad rows, the message has a line for each.

    The command line prints the message without a traceback and exits with `exit_code`.
    """

    exit_code: ExitCode = ExitCode.FAILED


class UsageError(LiversegError):
    """The command is wrong: an unknown option, key or value, also in a config or manifest that it names."""

    exit_code = ExitCode.USAGE


class SomeCasesFailed(LiversegError):
    """Some cases of a run failed; the others are done."""

    exit_code = ExitCode.SOME_CASES_FAILED


class UnreadableError(LiversegError):
    """An input cannot be read: missing, not permitted, damaged, of another format, over a limit, or ambiguous."""


class GeometryError(LiversegError):
    """An input does not state where its voxels are, or states an impossible grid: gaps, tilt, repeated slices."""


class GantryTiltError(GeometryError):
    """DICOM slices are displaced along one line within their planes, as a tilted gantry acquires them."""


class NotCTError(LiversegError):
    """An input is not a CT in HU that can be processed: another modality, a localiser, values that are not HU."""


class OutputError(LiversegError):
    """A file cannot be written: the disk is full, the folder is gone or read-only."""


class ConflictError(LiversegError):
    """The output folder holds the results of another CT."""


def user_error(error: BaseException) -> LiversegError | None:
    """Return the LiversegError among an error's causes, if any: MONAI wraps errors of transforms and configs."""
    return next((cause for cause in causes(error) if isinstance(cause, LiversegError)), None)


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its cause, the cause of that, and so on."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def one_line(error: BaseException) -> str:
    """Return the message of another library's error in one line, or its class if there is no message."""
    return " ".join(str(error).split()) or type(error).__name__


def suggest(word: str, choices: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the choice most similar to a misspelt word, for "did you mean"; None if none is similar.

    Args:
        word: the misspelt word.
        choices: the allowed words.
        cutoff: least similarity, 0 to 1, by `difflib.get_close_matches`.
    """
    return next(iter(difflib.get_close_matches(word, list(choices), n=1, cutoff=cutoff)), None)
