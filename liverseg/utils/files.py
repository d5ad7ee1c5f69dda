"""Write files atomically, hash them, and check that they exist, with one-line errors."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import stat
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from liverseg.errors import LiversegError, OutputError, UnreadableError, one_line

__all__ = [
    "TEMPORARY_PREFIX",
    "append_json_line",
    "atomic_write",
    "backslash_hint",
    "describe_special",
    "ensure_writable",
    "fsync_paths",
    "is_dir",
    "is_file",
    "list_folder",
    "read_json",
    "read_json_object",
    "refuse_special",
    "sha256_file",
    "sha256_text",
    "size_or_zero",
    "visible_files",
    "write_text",
]

TEMPORARY_PREFIX = ".unfinished-"
"""Start of the names that files have while they are written."""
_SPECIAL_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@contextmanager
def atomic_write(
    path: str | os.PathLike, content: str = "", advice: str = "is the disk full?", make_folder: bool = False
) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends, delete it when the block fails.

    The temporary name starts with `.unfinished-` and ends with the name of `path`, for writers that choose a format by
    the ending. It is unique among threads and among machines that share a disk.

    Args:
        path: the file to write.
        content: noun for the error message, as "the data list".
        advice: end of the error message.
        make_folder: create the folder of `path` if missing; otherwise it must exist.

    Raises:
        OutputError: if the block or the renaming raises an OSError.
    """
    path = Path(path)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}-{path.name}")
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            subject = f"{content} cannot" if content else "cannot"
            reason = error.strerror or error
            raise OutputError(f"{path}: {subject} be written ({reason}); {advice}") from error
        raise


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file atomically as UTF-8 into an existing folder; bytes of a path that are not UTF-8 are escaped.

    Raises:
        OutputError: if it cannot be written.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def append_json_line(path: str | os.PathLike, line: Mapping[str, Any], mode: int = 0o666) -> int:
    """Append a line to a log of JSON lines, completely or not at all.

    Args:
        path: of the log; its folder must exist.
        line: what JSON does not know is written as text.
        mode: permissions of a new file, before the process's mask.

    Returns:
        The size of the log in bytes.

    Raises:
        OSError: if it cannot be written.
    """
    data = (json.dumps(line, default=str) + "\n").encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # over NFS, O_APPEND alone would let lines overlap
        size = os.fstat(descriptor).st_size
        if os.write(descriptor, data) != len(data):
            os.ftruncate(descriptor, size)
            raise OSError(f"only part of a line could be written to {os.path.basename(path)}")
    finally:
        os.close(descriptor)
    return size + len(data)


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file, UTF-8 with or without byte order mark.

    Raises:
        UnreadableError: if it cannot be opened, is not UTF-8 or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:  # RecursionError: nested too deeply
        reason = getattr(error, "strerror", None) or one_line(error)
        raise UnreadableError(f"{path}: cannot be read as JSON ({reason})") from error


def read_json_object(path: str | os.PathLike) -> dict[str, Any] | None:
    """Return the object in a JSON file; None if the file is missing or damaged or holds another value."""
    try:
        content = read_json(path)
    except UnreadableError:
        return None
    return content if isinstance(content, dict) else None


def fsync_paths(*paths: str | os.PathLike) -> None:
    """Flush files and folders to the disk: a file must be there before its renaming, to survive a loss of power.

    Raises:
        OSError: if the system cannot, as on a full disk.
    """
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sha256_file(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file, hexadecimal.

    Raises:
        UnreadableError: if it cannot be read, or is not a plain file: pipes and some devices may never end.
    """
    refuse_special(path)
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise UnreadableError(f"{path}: cannot be read ({error.strerror or error})") from error
    return digest.hexdigest()


def sha256_text(text: str) -> str:
    """Return the SHA-256 of a text's UTF-8 bytes, hexadecimal: that of the file `write_text` writes."""
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def is_file(path: str | os.PathLike) -> bool:
    """Return whether a path is a file.

    Raises:
        UnreadableError: if its folder may not be read, or the name is impossible for a file.
    """
    try:
        return Path(path).is_file()
    except (OSError, ValueError) as error:
        raise _inaccessible(path, error) from error


def is_dir(path: str | os.PathLike) -> bool:
    """Return whether a path is a folder.

    Raises:
        UnreadableError: as `is_file`.
    """
    try:
        return Path(path).is_dir()
    except (OSError, ValueError) as error:
        raise _inaccessible(path, error) from error


def describe_special(path: str | os.PathLike) -> str | None:
    """Return what a path is if it is neither a file nor a folder, with what to do; None if it is one or is missing.

    Such files are not opened: reading a pipe may wait forever, and a device may never end.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return None
    kind = _SPECIAL_KINDS.get(stat.S_IFMT(mode))
    return None if kind is None else f"{kind}, neither a file nor a folder; give a file"


def refuse_special(path: str | os.PathLike) -> None:
    """Refuse a pipe, a socket or a device.

    Raises:
        UnreadableError: with what it is.
    """
    kind = describe_special(path)
    if kind is not None:
        raise UnreadableError(f"{path}: {kind}")


def backslash_hint(path: str | os.PathLike) -> str:
    """Return the end of a message about a missing file whose path is written as on Windows; empty for other paths."""
    text = os.fspath(path)
    if re.match(r"[A-Za-z]:[\\/]", text):
        return "; it is a path of a Windows machine: write it as a path of this one"
    return "; write / instead of \\ between folders" if "\\" in text else ""


def size_or_zero(path: str | os.PathLike) -> int:
    """Return the bytes of a file, 0 if it is missing or may not be looked at; used to read large files first."""
    with suppress(OSError, ValueError):
        return Path(path).stat().st_size
    return 0


def list_folder(path: str | os.PathLike) -> list[Path]:
    """Return the files and folders in a folder, sorted by name.

    Raises:
        UnreadableError: if it may not be read.
    """
    try:
        return sorted(Path(path).iterdir())
    except OSError as error:
        raise _inaccessible(path, error) from error


def visible_files(path: str | os.PathLike) -> tuple[Path, ...]:
    """Return the files in a folder, sorted by name, without hidden ones: `._1.dcm` holds a file system's notes.

    Raises:
        UnreadableError: if it may not be read.
    """
    return tuple(file for file in list_folder(path) if file.is_file() and not file.name.startswith("."))


def _inaccessible(path: str | os.PathLike, error: Exception) -> LiversegError:
    reason = getattr(error, "strerror", None) or error
    return UnreadableError(f"{path}: cannot be accessed ({reason}); check the path and its permissions")


def ensure_writable(path: str | os.PathLike) -> str:
    """Create a folder if it is missing, and check that files can be written in it.

    Returns:
        Its absolute path.

    Raises:
        OutputError: if it cannot be created or written to.
    """
    folder = Path(path).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{folder}: output cannot be written there ({reason}); choose another folder") from error
    return str(folder)
