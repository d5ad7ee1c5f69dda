"""What a case was computed from: told in its record, and asked for again when a run goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from liverseg.errors import LiversegError, UnreadableError
from liverseg.utils.files import sha256_file, sha256_text

__all__ = ["describe_input", "file_fingerprint", "matches_input", "unchanged_while_read"]

Listing = tuple[tuple[str, int, int], ...]


def describe_input(path: Path, files: Sequence[Path], series: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a record tells of its input.

    Args:
        path: what was given.
        files: what of it is the CT, in order. The SHA-256 is that of a single file's bytes; of several it is that of
            their SHA-256s, as hexadecimal text one after the other.
        series: `uid`, `description` (None where identifiers are not kept) and number of `slices`, where it came as
            DICOM.

    Returns:
        `path`, `sha256`, `bytes`, and where it was a folder `files`, their paths in it, and `listing_sha256`, of the
        names and sizes of all that is in the folder: a slice that comes later makes it another input.
    """
    hashes = [sha256_file(file) for file in files]
    facts: dict[str, Any] = {
        "path": str(path),
        "sha256": hashes[0] if len(hashes) == 1 else sha256_text("".join(hashes)),
        "bytes": sum(file.stat().st_size for file in files),
    }
    if path.is_dir():
        facts |= {"files": [os.path.relpath(file, path) for file in files], "listing_sha256": _listing_hash(path)}
    return facts if series is None else {**facts, "series": dict(series)}


def matches_input(path: Path, facts: Mapping[str, Any]) -> bool:
    """Whether what lies at a path is what a record's `describe_input` were of; false for facts that are not whole."""
    try:
        if not path.is_dir():
            return sha256_file(path) == facts["sha256"]
        if _listing_hash(path) != facts["listing_sha256"]:
            return False
        files = [path / name for name in facts["files"]]
        return describe_input(path, files)["sha256"] == facts["sha256"]
    except (LiversegError, OSError, KeyError, TypeError, ValueError):
        return False


def file_fingerprint(path: Path) -> str:
    """What tells, without reading it, whether a file or folder has changed: SHA-256 of names, sizes and times."""
    return sha256_text("\n".join(f"{name!a} {size} {time}" for name, size, time in _listing(path)))


@contextmanager
def unchanged_while_read(path: Path) -> Iterator[None]:
    """See that a file, or all in a folder and below it, was the same before and after the block: names, sizes, times.

    Raises:
        LiversegError: if it was not: half a CT may have been read, or another one hashed than was read.
    """
    before = _listing(path)
    yield
    if _listing(path) != before:
        raise UnreadableError(f"{path}: changed while it was read; give it again once it is complete")


def _listing(path: Path) -> Listing:
    """Name, size and time of change in nanoseconds of a file, or of every visible file in a folder and below it.

    Empty where it cannot be looked at: whatever reads it says why.
    """
    try:
        if not path.is_dir():
            found = path.stat()
            return ((path.name, found.st_size, found.st_mtime_ns),)
        listed = []
        for folder, below, names in os.walk(path):
            below[:] = [name for name in below if not name.startswith(".")]
            for one in (os.path.join(folder, name) for name in names if not name.startswith(".")):
                found = os.lstat(one)
                listed.append((os.path.relpath(one, path), found.st_size, found.st_mtime_ns))
        return tuple(sorted(listed))
    except (OSError, ValueError):
        return ()


def _listing_hash(path: Path) -> str:
    names = "\n".join(f"{name!a} {size}" for name, size, _ in _listing(path))
    return sha256_text(names)
