"""Description of a case's input for its record, and checks whether an input has changed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from liverseg.errors import LiversegError, UnreadableError
from liverseg.utils.files import sha256_file, sha256_text
from liverseg.utils.fingerprints import list_states

__all__ = ["describe_input", "matches_input", "unchanged_while_read"]


def describe_input(path: Path, files: Sequence[Path], series: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Describe an input for the record of its case.

    Args:
        path: the file or folder that was given.
        files: files of the CT, in order. `sha256` is that of a single file's bytes, or that of the hexadecimal SHA-256s
            of several files, joined.
        series: for DICOM, `uid`, `description` (None if identifiers are not kept) and number of `slices`.

    Returns:
        `path`, `sha256`, `bytes`, and for a folder `files`, their paths in it, and `listing_sha256`, of the names and
        sizes of all files in the folder, which changes if a slice is added later.
    """
    hashes = [sha256_file(file) for file in files]
    description: dict[str, Any] = {
        "path": str(path),
        "sha256": hashes[0] if len(hashes) == 1 else sha256_text("".join(hashes)),
        "bytes": sum(file.stat().st_size for file in files),
    }
    if path.is_dir():
        relative = [os.path.relpath(file, path) for file in files]
        description |= {"files": relative, "listing_sha256": _hash_listing(path)}
    return description if series is None else {**description, "series": dict(series)}


def matches_input(path: Path, description: Mapping[str, Any]) -> bool:
    """Whether a file or folder has the content that a record's `describe_input` has; False if that is incomplete."""
    try:
        if not path.is_dir():
            return sha256_file(path) == description["sha256"]
        if _hash_listing(path) != description["listing_sha256"]:
            return False
        files = [path / name for name in description["files"]]
        return describe_input(path, files)["sha256"] == description["sha256"]
    except (LiversegError, OSError, KeyError, TypeError, ValueError):
        return False


@contextmanager
def unchanged_while_read(path: Path) -> Iterator[None]:
    """Make sure that a file or folder does not change during the block, by names, sizes and modification times.

    Raises:
        LiversegError: if it changed: an incomplete CT may have been read, or another one hashed than was read.
    """
    before = list_states(path)
    yield
    if list_states(path) != before:
        raise UnreadableError(f"{path}: changed while it was read; give it again once it is complete")


def _hash_listing(path: Path) -> str:
    names = "\n".join(f"{name!a} {size}" for name, size, _ in list_states(path))
    return sha256_text(names)
