"""Kinds of arguments the verbs share."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["some_path"]


def some_path(text: str) -> Path:
    """A path; an empty text, which an unset variable of a script leaves, would be the current folder.

    Raises:
        argparse.ArgumentTypeError: if the text is empty.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("a path is needed, this is empty")
    return Path(text)
