"""Fingerprints of files and settings, by which a resumed command recognises what it has already made."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from liverseg.utils.files import is_file, read_json_object, sha256_text, write_text

__all__ = ["FileState", "file_fingerprint", "file_states", "is_current", "list_states", "settings_hash", "write_record"]

FileState = tuple[str, int, int]
"""Name, size in bytes and modification time in ns of a file."""

_FORMAT = 1


def settings_hash(settings: Any) -> str:
    """Return the SHA-256 of JSON content."""
    return sha256_text(json.dumps(settings, sort_keys=True, default=str))


def list_states(path: Path) -> tuple[FileState, ...]:
    """Return the state of a file, or of all visible files in a folder and below it.

    Empty if it is not readable; reading the file then raises the error.
    """
    try:
        if not path.is_dir():
            stat = path.stat()
            return ((path.name, stat.st_size, stat.st_mtime_ns),)
        states = []
        for folder, subfolders, names in os.walk(path):
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            for file in (os.path.join(folder, name) for name in names if not name.startswith(".")):
                stat = os.lstat(file)
                states.append((os.path.relpath(file, path), stat.st_size, stat.st_mtime_ns))
        return tuple(sorted(states))
    except (OSError, ValueError):
        return ()


def file_fingerprint(path: Path) -> str:
    """Return a SHA-256 of names, sizes and modification times, to detect changes of a file or folder cheaply."""
    return sha256_text("\n".join(f"{name!a} {size} {time}" for name, size, time in list_states(path)))


def file_states(root: Path, files: Iterable[Path]) -> dict[str, list[int]]:
    """Return size in bytes and modification time in ns of the files that exist, by their path relative to `root`."""
    states = ((path, list_states(path)) for path in files if is_file(path))
    return {Path(os.path.relpath(path, root)).as_posix(): list(state[1:]) for path, found in states for state in found}


def is_current(
    record: Path, root: Path, sources: dict[str, list[int]], outputs: Sequence[Path], recipe: Any = None
) -> bool:
    """Return whether the sources, the outputs and the options of a conversion are those of its record.

    Args:
        record: JSON file written by `write_record`.
        root: folder that paths in the record are relative to.
        sources: `file_states` of the sources before they are read.
        outputs: the files converted from them.
        recipe: options that the result depends on, as JSON values.
    """
    # a record that is missing or damaged is written again
    return read_json_object(record) == _content(root, sources, outputs, recipe)


def write_record(
    record: Path, root: Path, sources: dict[str, list[int]], outputs: Sequence[Path], recipe: Any = None
) -> None:
    """Write the record that `is_current` reads; same arguments.

    Raises:
        OutputError: if it cannot be written.
    """
    write_text(record, json.dumps(_content(root, sources, outputs, recipe), indent=1) + "\n")


def _content(root: Path, sources: dict[str, list[int]], outputs: Sequence[Path], recipe: Any) -> dict[str, Any]:
    files = {**sources, **file_states(root, outputs)}
    return {"format": _FORMAT, "files": files} | ({} if recipe is None else {"recipe": recipe})
