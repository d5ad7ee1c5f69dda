"""Files that are whole or not there, and what tells one file from another."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from liverseg.errors import LiversegError, OutputError, UnreadableError

__all__ = [
    "TEMPORARY_PREFIX",
    "atomic_write",
    "fsync_paths",
    "is_dir",
    "is_file",
    "list_folder",
    "sha256_file",
    "sha256_text",
    "size_or_zero",
    "visible_files",
    "write_text",
]

TEMPORARY_PREFIX = ".unfinished-"
"""What the temporary names of files begin with while they are written."""


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """A path to write to beside `path`: renamed to it when the block ends, removed when the block fails.

    The folder must exist. The name begins with `.unfinished-` and ends as that of `path`, for writers that go by the
    ending; no two writers get the same, be they threads or machines on one disk. What the block raises, or an OSError
    of the renaming, goes on to the caller.
    """
    path = Path(path)
    unfinished = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}-{path.name}")
    try:
        yield unfinished
        unfinished.replace(path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file whole, UTF-8, into an existing folder; a path's bytes that are no UTF-8 are escaped.

    Raises:
        LiversegError: if it cannot be written.
    """
    try:
        with atomic_write(path) as unfinished:
            unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}); is the disk full?") from error


def fsync_paths(*paths: str | os.PathLike) -> None:
    """Have the system write files and folders to the disk now; a rename that survives a loss of power needs it before.

    Raises:
        OSError: if it cannot, as where the disk is full.
    """
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sha256_file(path: str | os.PathLike) -> str:
    """SHA-256 of a file, hexadecimal.

    Raises:
        LiversegError: if it cannot be read, or is no plain file: a pipe may never end, some devices do not.
    """
    if os.path.exists(path) and not is_file(path):
        raise UnreadableError(f"{path}: not a plain file")
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise UnreadableError(f"{path}: cannot be read ({error.strerror or error})") from error
    return digest.hexdigest()


def sha256_text(text: str) -> str:
    """SHA-256 of a text's UTF-8 bytes, hexadecimal: that of the file `write_text` makes of it."""
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def is_file(path: str | os.PathLike) -> bool:
    """Whether there is such a file.

    Raises:
        LiversegError: if the folder it would be in may not be looked into, or the name can be no file's.
    """
    try:
        return Path(path).is_file()
    except (OSError, ValueError) as error:
        raise _not_looked_at(path, error) from error


def is_dir(path: str | os.PathLike) -> bool:
    """Whether there is such a folder.

    Raises:
        LiversegError: as `is_file`.
    """
    try:
        return Path(path).is_dir()
    except (OSError, ValueError) as error:
        raise _not_looked_at(path, error) from error


def size_or_zero(path: str | os.PathLike) -> int:
    """Bytes of a file, 0 where there is none or it cannot be told: to read the largest first."""
    with suppress(OSError, ValueError):
        return Path(path).stat().st_size
    return 0


def list_folder(path: str | os.PathLike) -> list[Path]:
    """What is in a folder, sorted by name.

    Raises:
        LiversegError: if it may not be looked into.
    """
    try:
        return sorted(Path(path).iterdir())
    except OSError as error:
        raise _not_looked_at(path, error) from error


def visible_files(path: str | os.PathLike) -> tuple[Path, ...]:
    """The files in a folder, sorted by name, less the hidden ones: `._1.dcm` is a file system's note, not a slice.

    Raises:
        LiversegError: if it may not be looked into.
    """
    return tuple(file for file in list_folder(path) if file.is_file() and not file.name.startswith("."))


def _not_looked_at(path: str | os.PathLike, error: Exception) -> LiversegError:
    reason = getattr(error, "strerror", None) or error
    return UnreadableError(f"{path}: cannot be looked at ({reason}); check the path and its permissions")
