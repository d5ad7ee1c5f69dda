"""Files an importer makes of others: written whole, and again only when what they were made from has changed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from liverseg.errors import LiversegError
from liverseg.utils.files import atomic_write, is_file, write_text

__all__ = ["file_states", "is_current", "write_nifti", "write_record"]

_FORMAT = 1


def file_states(root: Path, files: Iterable[Path]) -> dict[str, list[int]]:
    """Size in bytes and time of change in ns of the files that are there, by their path from `root`."""
    found = ((path, path.stat()) for path in files if is_file(path))
    return {Path(os.path.relpath(path, root)).as_posix(): [stat.st_size, stat.st_mtime_ns] for path, stat in found}


def is_current(
    record: Path, root: Path, sources: dict[str, list[int]], made: Sequence[Path], recipe: Any = None
) -> bool:
    """Whether a record says that sources and what was made of them are as they were, and made in the same way.

    Args:
        record: the JSON file `write_record` wrote.
        root: folder the record's paths are relative to.
        sources: their state, `file_states`, before they are read.
        made: the files made of them.
        recipe: what else the result depends on, as JSON holds it.
    """
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none, or not one of ours: it is written anew
        return False
    return isinstance(content, dict) and content == _content(root, sources, made, recipe)


def write_record(
    record: Path, root: Path, sources: dict[str, list[int]], made: Sequence[Path], recipe: Any = None
) -> None:
    """Write the record `is_current` reads; arguments as there.

    Raises:
        LiversegError: if it cannot be written.
    """
    write_text(record, json.dumps(_content(root, sources, made, recipe), indent=1) + "\n")


def _content(root: Path, sources: dict[str, list[int]], made: Sequence[Path], recipe: Any) -> dict[str, Any]:
    files = {**sources, **file_states(root, made)}
    return {"format": _FORMAT, "files": files} | ({} if recipe is None else {"recipe": recipe})


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    """Write a volume, shape (I, J, K) with its affine to RAS+ mm, by rename; its folder is made where it is missing.

    Raises:
        LiversegError: if it cannot be written.
    """
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as unfinished:
            nib.save(image, unfinished)
    except OSError as error:
        raise LiversegError(f"{path}: cannot be written ({error.strerror or error}); is the disk full?") from error
