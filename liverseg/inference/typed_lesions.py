"""Measure lesions of known types as inference measures the lesions it finds."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from liverseg.datalists import read_datalist
from liverseg.datasets.store import check_pair
from liverseg.errors import LiversegError
from liverseg.evaluation.lesion_ranges import lesion_ranges
from liverseg.imageio.volume import read_volume
from liverseg.inference.lesions import find_lesions
from liverseg.inference.measurements import lesion_table
from liverseg.inference.prediction import SlabPrediction
from liverseg.labels import JOINT_LABELS, LESION, LESION_TYPES, result_labels

__all__ = ["measure_typed_lesions"]


def measure_typed_lesions(
    datalist: str | os.PathLike | None, dataset_dir: str | os.PathLike | None = None
) -> dict[str, dict[str, tuple[float, float]]] | None:
    """Return the field `lesion_ranges` of a weights record, measured on the outlines of a list of typed lesions.

    Args:
        datalist: a list with the joint label table; items whose lesions are not all outlined and typed are left out.
            None returns None.
        dataset_dir: folder of its relative paths; by default the list's folder.

    Raises:
        LiversegError: if the list or one of its files cannot be used, its lesions have no types, or a type has too few
            lesions.
    """
    if datalist is None:
        return None
    listed = read_datalist(datalist)
    if len(listed.labels) != len(JOINT_LABELS):
        raise LiversegError(f"{datalist}: its lesions have no types; a list with the joint label table is needed")
    folder = Path(datalist).parent if dataset_dir is None else Path(dataset_dir)
    items = {
        (item.image, item.label): item
        for item in (*listed.training, *listed.test)
        if item.label is not None and item.labelled is None
    }
    if not items:
        raise LiversegError(f"{datalist}: no item's lesions are outlined and typed")
    tables = []
    for item in items.values():
        check_pair(item, folder)
        labels = np.ascontiguousarray(read_volume(folder / str(item.label)).axial).astype(np.uint8)
        of_type = np.eye(len(LESION_TYPES), dtype=np.float32)[labels[labels >= LESION] - LESION]
        volume = read_volume(folder / item.image)
        found = find_lesions(SlabPrediction(labels, of_type), volume.voxel_ml)
        tables.append(lesion_table(found, volume, result_labels(len(JOINT_LABELS))).to_frame())
    try:
        return lesion_ranges(pd.concat([table for table in tables if len(table)] or tables[:1]))
    except ValueError as error:
        raise LiversegError(f"{datalist}: {error}") from error
