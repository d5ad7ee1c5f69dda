"""Importer for LiTS: `volume-N.nii[.gz]` and `segmentation-N.nii[.gz]`, anywhere below one folder.

The two training batches may be in one folder or in several. The challenge's test set is `test-volume-N.nii`, without
labels.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from liverseg.datalists.model import DataItem
from liverseg.errors import LiversegError
from liverseg.utils.files import is_dir, list_folder

__all__ = ["LICENCE", "SOURCE", "lits_items"]

SOURCE = "LiTS, Liver Tumor Segmentation Challenge: Bilic et al., Medical Image Analysis 84 (2023) 102680"
LICENCE = "CC BY-NC-ND 4.0"

_NAME = re.compile(r"(volume|segmentation|test-volume)-(\d+)\.nii(\.gz)?$", re.IGNORECASE)


def lits_items(root: str | os.PathLike) -> tuple[tuple[DataItem, ...], tuple[DataItem, ...]]:
    """List the volumes of a LiTS tree in the order of their numbers; each volume is one patient.

    Returns:
        Labelled volumes and volumes without a segmentation (the challenge's test set), without folds.

    Raises:
        LiversegError: if the folder is missing, holds no volumes, or has a number twice or a segmentation without a
            volume.
    """
    root = Path(root)
    if not is_dir(root):
        raise LiversegError(f"{root}: no such folder; a LiTS tree holds volume-N.nii and segmentation-N.nii")
    list_folder(root)  # refuses an unreadable folder, which would seem empty below
    found: dict[str, dict[int, Path]] = {"volume": {}, "segmentation": {}, "test-volume": {}}
    for path in sorted(root.rglob("*")):
        match = _NAME.match(path.name)
        if match and path.is_file():
            kind, number = match.group(1).lower(), int(match.group(2))
            if number in found[kind]:
                raise LiversegError(f"{root}: {kind} {number} occurs twice: {found[kind][number]} and {path}")
            found[kind][number] = path
    volumes, segmentations = found["volume"], found["segmentation"]
    if not volumes and not found["test-volume"]:
        raise LiversegError(f"{root}: no volume-N.nii or volume-N.nii.gz in it or below; is this a LiTS tree?")
    unmatched = sorted(set(segmentations) - set(volumes))
    if unmatched:
        raise LiversegError(f"{segmentations[unmatched[0]]}: no volume-{unmatched[0]} beside it")
    labelled: list[DataItem] = []
    unlabelled: list[DataItem] = []
    for number, path in sorted(volumes.items()):
        label = segmentations.get(number)
        item = DataItem(
            image=path.relative_to(root).as_posix(),
            label=label.relative_to(root).as_posix() if label else None,
            patient=f"lits-{number:03d}",
        )
        (labelled if label else unlabelled).append(item)
    for number, path in sorted(found["test-volume"].items()):
        image = path.relative_to(root).as_posix()
        unlabelled.append(DataItem(image=image, label=None, patient=f"lits-test-{number:03d}"))
    return tuple(labelled), tuple(unlabelled)
