"""Argument types that subcommands share."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from liverseg.errors import UsageError

__all__ = ["add_list_arguments", "hu_range", "path_or_url", "read_shard", "seconds", "some_path"]


def some_path(text: str) -> Path:
    """Convert to a path. Empty text, for example from an unset shell variable, would otherwise be the current folder.

    Raises:
        argparse.ArgumentTypeError: if the text is empty.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("a path is needed, this is empty")
    return Path(text)


def path_or_url(text: str) -> Path | str:
    """Convert to a path, but leave the URL of a DICOMweb server as it is: a path would lose one of its slashes.

    Raises:
        argparse.ArgumentTypeError: if the text is empty.
    """
    return text if text.startswith(("http://", "https://")) else some_path(text)


def add_list_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of subcommands that read a data list and its files: list, dataset_dir, workers."""
    parser.add_argument("list", type=some_path, help="the data list")
    parser.add_argument("--dataset-dir", type=some_path, help="folder its paths are relative to (default: the list's)")
    parser.add_argument("--workers", type=int, help="files to read at a time (default: one per processor)")


def seconds(text: str) -> float:
    """Convert to seconds.

    Raises:
        argparse.ArgumentTypeError: if it is not a number above 0.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: seconds are needed, a number above 0")
    return number


def hu_range(text: str) -> tuple[float, float]:
    """Convert LOW:HIGH to two numbers.

    Raises:
        argparse.ArgumentTypeError: if it has another form.
    """
    low, _, high = text.partition(":")
    try:
        return float(low), float(high)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: LOW:HIGH is needed, two numbers in HU such as 0:255") from None


def read_shard(text: str) -> tuple[int, int]:
    """Convert i/n to two numbers.

    Raises:
        UsageError: if it has another form.
    """
    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise UsageError(f"shard {text!r}; it must be i/n with i from 1 to n, such as 2/8")
    return int(part), int(parts)
