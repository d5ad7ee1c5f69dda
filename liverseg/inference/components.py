"""Connected parts of a label map: the one liver, and the lesions in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import cc3d
import numpy as np
from scipy import ndimage

from liverseg.imageio.boxes import bounding_box
from liverseg.inference.prediction import SlabPrediction
from liverseg.labels import FACE_CONNECTIVITY, LESION, LIVER

__all__ = [
    "AROUND",
    "components_touching",
    "keep_largest_liver",
    "largest_part",
    "lesion_components",
    "liver_contact",
    "restrict_to_liver",
]

_ANY_NEIGHBOUR: Final = 26
AROUND: Final = 2
"""Steps over faces that a lesion's surroundings reach."""
_THIN: Final = 3
"""Of arrays with so short an axis cc3d 4.1 counts on fewer parts by 26 neighbours than there may be, and fails."""


def largest_part(mask: np.ndarray) -> np.ndarray:
    """The largest 3-D part of a mask, 26 neighbours; the mask itself where it is one part or none."""
    if min(mask.shape) <= _THIN:
        inner = slice(_THIN, -_THIN)
        return largest_part(np.pad(mask, _THIN))[inner, inner, inner]
    parts, count = cc3d.connected_components(mask, connectivity=_ANY_NEIGHBOUR, return_N=True)
    if count <= 1:
        return mask
    return np.asarray(parts == 1 + int(np.argmax(cc3d.statistics(parts)["voxel_counts"][1:])))


def components_touching(mask: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Those parts of a 3-D mask, joined by faces, that hold at least one of the seeds; both of one shape."""
    parts = cc3d.connected_components(mask, connectivity=FACE_CONNECTIVITY[3])
    reached = np.zeros(int(parts.max(initial=0)) + 1, bool)
    reached[np.unique(parts[seeds])] = True
    reached[0] = False
    return np.asarray(reached[parts])


def keep_largest_liver(prediction: SlabPrediction) -> SlabPrediction:
    """Keep the largest 3-D part of liver and lesions together, 26 neighbours; lesions outside it go with the rest.

    A body has one liver: what else the network calls liver is spleen or stomach wall.

    Returns:
        A new prediction; the same one where there is nothing to take away.
    """
    box = bounding_box(prediction.inside >= LIVER)
    if box is None:
        return prediction
    found = prediction.inside[box]
    kept = largest_part(found >= LIVER)
    if np.count_nonzero(kept) == np.count_nonzero(found):
        return prediction
    inside = np.zeros_like(prediction.inside)
    inside[box] = np.where(kept, found, 0)
    return prediction.relabelled(inside)


def restrict_to_liver(prediction: SlabPrediction, liver: np.ndarray) -> SlabPrediction:
    """Take the liver from a mask: what the network calls liver goes, lesions stay where they touch the mask.

    Masks of the liver often leave large lesions out, so a lesion that touches the mask by a face or lies in it is kept
    whole.

    Args:
        prediction: of any box.
        liver: true in the liver, shape of the box.
    """
    lesion = prediction.inside >= LESION
    # a path of faces from the mask through lesion reaches all that touches it
    touching = lesion & components_touching(lesion | liver, liver)
    inside = np.where(touching, prediction.inside, liver.astype(np.uint8) * LIVER)
    return replace(prediction.relabelled(inside), liver=liver)


def lesion_components(lesion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """3-D parts of a lesion mask that touch by a face, LiTS's convention (Bilic et al. 2023).

    Args:
        lesion: true where there is lesion of any type, 3-D.

    Returns:
        Part numbers 1 ... n of the mask's shape, 0 elsewhere, and each part's voxels, shape (n,).
    """
    parts = cc3d.connected_components(lesion, connectivity=FACE_CONNECTIVITY[3])
    return parts, np.asarray(cc3d.statistics(parts)["voxel_counts"])[1:].astype(np.int64)


def liver_contact(parts: np.ndarray, organ: np.ndarray) -> np.ndarray:
    """How much of each lesion's surroundings is liver or another lesion: 1 deep in the liver, less at its surface.

    Surroundings are the voxels that two steps over faces lead to from the lesion; those outside the arrays are unknown
    and do not count. What lies mostly outside the liver is gallbladder, stomach wall or fat of the hilum.

    Args:
        parts: lesions numbered 1 ... n, 0 elsewhere, 3-D.
        organ: true in liver and lesions, same shape.

    Returns:
        0 to 1, shape (n,); 1 for a lesion that fills the arrays.
    """
    faces = ndimage.generate_binary_structure(3, 1)
    contact = []
    for number, found in enumerate(ndimage.find_objects(parts), 1):
        box = tuple(slice(max(0, side.start - AROUND), side.stop + AROUND) for side in found)
        own = parts[box] == number
        around = ndimage.binary_dilation(own, faces, iterations=AROUND) & ~own
        contact.append(organ[box][around].mean() if around.any() else 1.0)
    return np.array(contact, np.float64)
