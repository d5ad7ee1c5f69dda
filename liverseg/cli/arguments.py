"""Kinds of arguments the verbs share."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["add_list_arguments", "some_path"]


def some_path(text: str) -> Path:
    """A path; an empty text, which an unset variable of a script leaves, would be the current folder.

    Raises:
        argparse.ArgumentTypeError: if the text is empty.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("a path is needed, this is empty")
    return Path(text)


def add_list_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of whatever reads a data list and its files: list, dataset_dir, workers."""
    parser.add_argument("list", type=some_path, help="the data list")
    parser.add_argument("--dataset-dir", type=some_path, help="folder its paths are relative to (default: the list's)")
    parser.add_argument("--workers", type=int, help="files read at a time (default: one a processor)")
