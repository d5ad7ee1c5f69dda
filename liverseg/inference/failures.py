"""What a run says when cases fail."""

from __future__ import annotations

from liverseg.errors import ExitCode, LiversegError, user_error

__all__ = ["SomeCasesFailed", "cause_in_words"]


class SomeCasesFailed(LiversegError):
    """Part of a run's cases failed; the others are done."""

    exit_code = ExitCode.SOME_CASES_FAILED


def cause_in_words(error: BaseException) -> str:
    """One line that says why a case failed."""
    known = user_error(error)
    if known is not None:
        return str(known)
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
