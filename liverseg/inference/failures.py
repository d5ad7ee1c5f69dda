"""What a run says when cases fail."""

from __future__ import annotations

from liverseg.errors import user_error

__all__ = ["cause_in_words"]


def cause_in_words(error: BaseException) -> str:
    """One line that says why a case failed."""
    known = user_error(error)
    if known is not None:
        return str(known)
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
