"""Lesion load of the items of a data list, for balanced splits."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from tqdm.contrib.concurrent import thread_map

from liverseg.datalists.checks.findings import Defect
from liverseg.datalists.checks.reading import read_file
from liverseg.datalists.model import DataItem
from liverseg.labels import LESION

__all__ = ["lesion_loads"]


def lesion_loads(
    items: Sequence[DataItem], root: str | os.PathLike, *, progress: bool = True
) -> tuple[float | None, ...]:
    """Measure the lesion load of each item; all label values at or above `LESION` count.

    Each label file is read once, however many items share it. An unreadable file is no error here, because an import
    does not depend on it. One warning is logged for all such files; `liverseg datalist check` gives the reasons.

    Args:
        items: labelled items, of volumes or annotated slices.
        root: folder their paths are relative to.
        progress: show a progress bar on a terminal.

    Returns:
        In the order of the items: lesion volume in ml for a volume, lesion area in mm² for an annotated slice. None if
        the label file is unreadable or lacks the slice or a valid affine, there is no label, or lesions are not
        outlined.
    """
    slices_of: dict[str, set[int | None]] = {}
    for item in items:
        if item.label is not None and item.lesions_are_outlined:
            slices_of.setdefault(os.path.normpath(item.label), set()).add(item.slice)
    measured = thread_map(
        lambda name: _measure(Path(root) / name, slices_of[name]),
        slices_of,
        max_workers=os.cpu_count(),
        desc="lesion loads",
        unit="label",
        disable=None if progress else True,
    )
    loads = dict(zip(slices_of, measured, strict=True))
    unknown = [name for name, slices in slices_of.items() if slices - loads[name].keys()]
    if unknown:
        logging.getLogger(__name__).warning(
            "lesion load not known from %d label files, such as %s; `liverseg datalist check` gives the reasons",
            len(unknown),
            unknown[0],
        )
    return tuple(loads.get(os.path.normpath(item.label or ""), {}).get(item.slice) for item in items)


def _measure(path: Path, slices: Collection[int | None]) -> dict[int | None, float]:
    """Return the load of each slice, or of the volume under None; loads that are not known are left out."""
    try:
        label = read_file(path)
    except Defect:
        return {}
    if label.grid.affine is None:
        return {}
    edges, axis = label.grid.affine[:3, :3], label.grid.slice_axis
    in_plane = np.delete(edges, axis, axis=1)
    pixel_mm2 = float(np.linalg.norm(np.cross(in_plane[:, 0], in_plane[:, 1])))
    voxel_ml = abs(float(np.linalg.det(edges))) / 1000
    loads: dict[int | None, float] = {}
    for number in slices:
        if number is None:
            loads[None] = np.count_nonzero(label.array >= LESION) * voxel_ml
        elif number < label.grid.shape[axis]:
            loads[number] = np.count_nonzero(label.array.take(number, axis) >= LESION) * pixel_mm2
    return loads
