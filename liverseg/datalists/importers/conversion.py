"""Converted files of importers, written atomically, and again only if their sources or options have changed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from liverseg.utils.files import atomic_write, is_file, read_json_object, write_text

__all__ = ["file_states", "is_current", "write_nifti", "write_record"]

_FORMAT = 1


def file_states(root: Path, files: Iterable[Path]) -> dict[str, list[int]]:
    """Return size in bytes and modification time in ns of the files that exist, by their path relative to `root`."""
    stats = ((path, path.stat()) for path in files if is_file(path))
    return {Path(os.path.relpath(path, root)).as_posix(): [stat.st_size, stat.st_mtime_ns] for path, stat in stats}


def is_current(
    record: Path, root: Path, sources: dict[str, list[int]], outputs: Sequence[Path], recipe: Any = None
) -> bool:
    """Whether the sources, the outputs and the options of a conversion are those of its record.

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
        LiversegError: if it cannot be written.
    """
    write_text(record, json.dumps(_content(root, sources, outputs, recipe), indent=1) + "\n")


def _content(root: Path, sources: dict[str, list[int]], outputs: Sequence[Path], recipe: Any) -> dict[str, Any]:
    files = {**sources, **file_states(root, outputs)}
    return {"format": _FORMAT, "files": files} | ({} if recipe is None else {"recipe": recipe})


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    """Write a volume, shape (I, J, K) with its affine to RAS+ mm, atomically; create the folder if needed.

    Raises:
        LiversegError: if it cannot be written.
    """
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    with atomic_write(path, make_folder=True) as temporary:
        nib.save(image, temporary)
