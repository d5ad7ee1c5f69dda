"""How much lesion each item of a data list holds, for splits that spread it evenly."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from liverseg.datalists.checks.findings import Defect
from liverseg.datalists.checks.reading import read_whole
from liverseg.datalists.model import DataItem
from liverseg.labels import LESION

__all__ = ["lesion_loads"]


def lesion_loads(
    items: Sequence[DataItem], root: str | os.PathLike, *, progress: bool = True
) -> tuple[float | None, ...]:
    """The lesion load of each item: every label value at or above `LESION` counts.

    Each label file is read once, whatever number of items share it. A file that tells no load is not refused here,
    because an import does not depend on it: all such files make one warning, and `liverseg datalist check` says more.

    Args:
        items: labelled items, of volumes or annotated slices.
        root: folder their paths are relative to.
        progress: show a bar on a terminal.

    Returns:
        In the items' order: lesion volume in ml for a whole volume; lesion area in mm² for an annotated slice, on that
        slice of the label file. None where the file is unreadable, lacks the slice or an affine, there is no label, or
        lesions are not outlined.
    """
    asked: dict[str, set[int | None]] = {}
    for item in items:
        if item.label is not None and item.lesions_are_outlined:
            asked.setdefault(os.path.normpath(item.label), set()).add(item.slice)

    def measured(name: str) -> dict[int | None, float]:
        return _measure(Path(root) / name, asked[name])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = tqdm(
            pool.map(measured, asked),
            total=len(asked),
            desc="lesion loads",
            unit="label",
            file=sys.stderr,
            disable=None if progress else True,
        )
        loads = dict(zip(asked, found, strict=True))
    silent = [name for name, slices in asked.items() if slices - loads[name].keys()]
    if silent:
        logging.getLogger(__name__).warning(
            "lesion load not known from %d label files, %s for one; `liverseg datalist check` tells why",
            len(silent),
            silent[0],
        )
    return tuple(loads.get(os.path.normpath(item.label or ""), {}).get(item.slice) for item in items)


def _measure(path: Path, slices: Collection[int | None]) -> dict[int | None, float]:
    """Load by slice, None for the whole volume; what cannot be told is left out."""
    try:
        label = read_whole(path)
    except Defect:
        return {}
    if label.grid.affine is None:
        return {}
    edges, axis = label.grid.affine[:3, :3], label.grid.slice_axis
    across = np.delete(edges, axis, axis=1)
    pixel_mm2 = float(np.linalg.norm(np.cross(across[:, 0], across[:, 1])))
    voxel_ml = abs(float(np.linalg.det(edges))) / 1000
    loads: dict[int | None, float] = {}
    for number in slices:
        if number is None:
            loads[None] = np.count_nonzero(label.array >= LESION) * voxel_ml
        elif number < label.grid.shape[axis]:
            loads[number] = np.count_nonzero(label.array.take(number, axis) >= LESION) * pixel_mm2
    return loads
