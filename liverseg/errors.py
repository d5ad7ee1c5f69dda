"""Errors a user can mend, and the exit codes of every liverseg command."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

__all__ = [
    "ConflictError",
    "ExitCode",
    "GeometryError",
    "LiversegError",
    "NotCTError",
    "OutputError",
    "SomeCasesFailed",
    "UnreadableError",
    "UsageError",
    "causes",
    "one_line",
    "user_error",
]


class ExitCode(IntEnum):
    """Exit codes shared by the command line and the bundles."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    SOME_CASES_FAILED = 3


class LiversegError(Exception):
    """A mistake in the input, told in one line: what was found, in which file, what is allowed, what to do.

    Of a table with several bad rows each has its line.

    The command line prints the message alone, without a traceback, and exits with `exit_code`.
    """

    exit_code: ExitCode = ExitCode.FAILED


class UsageError(LiversegError):
    """The command itself was wrong: an unknown option, key or value."""

    exit_code = ExitCode.USAGE


class SomeCasesFailed(LiversegError):
    """Part of a run's cases failed; the others are done."""

    exit_code = ExitCode.SOME_CASES_FAILED


class UnreadableError(LiversegError):
    """An input cannot be had: missing, not permitted, damaged, of another format, over a limit, or not the only one."""


class GeometryError(LiversegError):
    """An input does not say where its voxels are, or says what cannot be: gaps, tilt, doubled slices, another grid."""


class NotCTError(LiversegError):
    """An input is no CT in HU that can be computed: another modality, a localiser, values that are not HU."""


class OutputError(LiversegError):
    """Something cannot be written: the disk is full, the folder gone or read-only."""


class ConflictError(LiversegError):
    """Where results are to go are those of another CT."""


def user_error(error: BaseException) -> LiversegError | None:
    """The LiversegError an error was caused by, if any: MONAI wraps what a transform or a config raises."""
    return next((cause for cause in causes(error) if isinstance(cause, LiversegError)), None)


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error, what it was caused by, and so on."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def one_line(error: BaseException) -> str:
    """What another library's error says, in one line; its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
