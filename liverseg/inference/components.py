"""Connected parts of a label map: the one liver, and the lesions in it."""

from __future__ import annotations

from typing import Final

import cc3d
import numpy as np

from liverseg.boxes import bounding_box
from liverseg.inference.inferer import SlabPrediction
from liverseg.labels import LESION, LIVER

__all__ = ["keep_largest_liver", "lesion_components"]

_ANY_NEIGHBOUR: Final = 26
_FACE_NEIGHBOUR: Final = 6


def keep_largest_liver(prediction: SlabPrediction) -> SlabPrediction:
    """Keep the largest 3-D part of liver and lesions together, 26 neighbours; lesions outside it go with the rest.

    A body has one liver: what else the network calls liver is spleen or stomach wall.

    Returns:
        A new prediction; the same one where there is nothing to take away.
    """
    box = bounding_box(prediction.labels >= LIVER)
    if box is None:
        return prediction
    inside = prediction.labels[box]
    parts, count = cc3d.connected_components(inside >= LIVER, connectivity=_ANY_NEIGHBOUR, return_N=True)
    if count == 1:
        return prediction
    largest = 1 + int(np.argmax(cc3d.statistics(parts)["voxel_counts"][1:]))
    kept = np.where(parts == largest, inside, 0).astype(np.uint8)
    labels = np.zeros_like(prediction.labels)
    labels[box] = kept
    # C order of the box is C order of the volume, so the rows stay with their voxels
    still_lesion = kept[inside >= LESION] >= LESION
    return SlabPrediction(labels, prediction.type_probabilities[still_lesion])


def lesion_components(lesion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """3-D parts of a lesion mask that touch by a face, LiTS's convention (Bilic et al. 2023).

    Args:
        lesion: true where there is lesion of any type, 3-D.

    Returns:
        Part numbers 1 ... n of the mask's shape, 0 elsewhere, and each part's voxels, shape (n,).
    """
    parts = cc3d.connected_components(lesion, connectivity=_FACE_NEIGHBOUR)
    return parts, np.asarray(cc3d.statistics(parts)["voxel_counts"])[1:].astype(np.int64)
