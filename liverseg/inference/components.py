"""Connected components of a label map: the liver, and the lesions in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import cc3d
import numpy as np

from liverseg.imageio.boxes import bounding_box
from liverseg.inference.prediction import SlabPrediction
from liverseg.labels import FACE_CONNECTIVITY, LESION, LIVER
from liverseg.networks.lesion_regions import SMALLEST_CORE, cyst_beside_lesion

__all__ = [
    "SURROUNDING_STEPS",
    "components_touching",
    "keep_largest_liver",
    "largest_component",
    "lesion_components",
    "liver_contact",
    "restrict_to_liver",
    "separate_cysts",
]

_VERTEX_CONNECTIVITY: Final = 26
SURROUNDING_STEPS: Final = 2
"""Size of a lesion's surroundings in steps over faces."""
_MAX_THIN_EDGE: Final = 3
"""With an axis this short, cc3d 4.1 expects fewer components of 26 neighbours than there may be, and fails."""


def largest_component(mask: np.ndarray) -> np.ndarray:
    """Return the largest 3-D component of a mask, 26 neighbours; the mask itself if it has at most one."""
    if min(mask.shape) <= _MAX_THIN_EDGE:
        inner = slice(_MAX_THIN_EDGE, -_MAX_THIN_EDGE)
        return largest_component(np.pad(mask, _MAX_THIN_EDGE))[inner, inner, inner]
    parts, count = cc3d.connected_components(mask, connectivity=_VERTEX_CONNECTIVITY, return_N=True)
    if count <= 1:
        return mask
    return np.asarray(parts == 1 + int(np.argmax(cc3d.statistics(parts)["voxel_counts"][1:])))


def components_touching(mask: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Return the components of a 3-D mask, joined by faces, that contain a seed; both arrays have one shape."""
    parts = cc3d.connected_components(mask, connectivity=FACE_CONNECTIVITY[3])
    reached = np.zeros(int(parts.max(initial=0)) + 1, bool)
    reached[np.unique(parts[seeds])] = True
    reached[0] = False
    return np.asarray(reached[parts])


def keep_largest_liver(prediction: SlabPrediction) -> SlabPrediction:
    """Keep the largest 3-D component of liver and lesions together, 26 neighbours, and remove all others.

    A body has one liver: other components that the network calls liver are spleen or stomach wall.

    Returns:
        A new prediction; the same object if there is nothing to remove.
    """
    box = bounding_box(prediction.inside >= LIVER)
    if box is None:
        return prediction
    found = prediction.inside[box]
    kept = largest_component(found >= LIVER)
    if np.count_nonzero(kept) == np.count_nonzero(found):
        return prediction
    inside = np.zeros_like(prediction.inside)
    inside[box] = np.where(kept, found, 0)
    return prediction.relabelled(inside)


def restrict_to_liver(prediction: SlabPrediction, liver: np.ndarray) -> SlabPrediction:
    """Replace the network's liver by a mask, and keep the lesions that touch it.

    Masks of the liver often leave large lesions out. A lesion that overlaps the mask or touches it by a face is
    therefore kept entirely.

    Args:
        prediction: of any box.
        liver: true in the liver, shape of the box.
    """
    lesion = prediction.inside >= LESION
    # seeds in the mask reach every lesion that is joined to it by faces
    touching = lesion & components_touching(lesion | liver, liver)
    inside = np.where(touching, prediction.inside, liver.astype(np.uint8) * LIVER)
    return replace(prediction.relabelled(inside), liver=liver)


def lesion_components(lesion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the 3-D components of a lesion mask, joined by faces: LiTS's convention (Bilic et al. 2023).

    Args:
        lesion: true in lesions of any type, 3-D.

    Returns:
        Component numbers 1 ... n in the mask's shape, 0 elsewhere, and the voxels of each, shape (n,).
    """
    parts = cc3d.connected_components(lesion, connectivity=FACE_CONNECTIVITY[3])
    return parts, np.asarray(cc3d.statistics(parts)["voxel_counts"])[1:].astype(np.int64)


def separate_cysts(parts: np.ndarray, voxels: np.ndarray, cyst: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Separate cysts from lesions of other types that they touch.

    A lesion is separated into its cysts and the rest if a slice shows them side by side, see `cyst_beside_lesion`. If
    slices only disagree about the type, it stays one lesion, for which they vote. If the rest consists of pieces that
    only cysts connect, each is a lesion of its own. Pieces too small for a core are not separated.

    Args:
        parts: lesions numbered 1 ... n, 0 elsewhere, (slice, row, column).
        voxels: of each lesion, shape (n,).
        cyst: lesion voxels whose likeliest type is a cyst, shape of `parts`.

    Returns:
        Both, with further lesions.
    """
    of_cysts = np.bincount(parts[cyst], minlength=len(voxels) + 1)[1:]
    mixed = np.minimum(of_cysts, voxels - of_cysts) >= SMALLEST_CORE
    if not mixed.any():
        return parts, voxels
    parts = parts.astype(np.uint32)
    count = len(voxels)
    boxes = cc3d.statistics(parts)["bounding_boxes"]
    for number in np.flatnonzero(mixed) + 1:
        found = parts[boxes[number]]
        own = found == number
        slices = zip(own, cyst[boxes[number]], strict=True)
        if not any(cyst_beside_lesion(region, of_slice) is not None for region, of_slice in slices):
            continue
        pieces, sizes = lesion_components(own & cyst[boxes[number]])
        count = _number_pieces(found, pieces, sizes >= SMALLEST_CORE, count)
        pieces, sizes = lesion_components(found == number)
        separate = sizes >= SMALLEST_CORE
        separate[np.argmax(sizes)] = False
        count = _number_pieces(found, pieces, separate, count)
    return parts, np.asarray(cc3d.statistics(parts)["voxel_counts"])[1:].astype(np.int64)


def _number_pieces(parts: np.ndarray, pieces: np.ndarray, separate: np.ndarray, count: int) -> int:
    """Give the pieces 1 ... n that are separate the numbers after `count`, in place; return the highest number."""
    numbers = np.zeros(len(separate) + 1, parts.dtype)
    numbers[1:][separate] = np.arange(count + 1, count + 1 + np.count_nonzero(separate))
    new = numbers[pieces]
    np.copyto(parts, new, where=new > 0)
    return count + int(np.count_nonzero(separate))


def liver_contact(parts: np.ndarray, organ: np.ndarray) -> np.ndarray:
    """Return the share of each lesion's surroundings that is liver or another lesion.

    It is 1 deep in the liver and less at its surface. Surroundings are the voxels within two steps over faces; those
    outside the arrays are unknown and do not count. A lesion mostly outside the liver is gallbladder, stomach wall or
    fat of the hilum.

    Args:
        parts: lesions numbered 1 ... n, 0 elsewhere, 3-D.
        organ: true in liver and lesions, same shape.

    Returns:
        0 to 1, shape (n,); 1 for a lesion that fills the arrays.
    """
    from scipy import ndimage  # a tenth of a second

    faces = ndimage.generate_binary_structure(3, 1)
    contact = []
    for number, found in enumerate(ndimage.find_objects(parts), 1):
        box = tuple(slice(max(0, side.start - SURROUNDING_STEPS), side.stop + SURROUNDING_STEPS) for side in found)
        own = parts[box] == number
        around = ndimage.binary_dilation(own, faces, iterations=SURROUNDING_STEPS) & ~own
        contact.append(organ[box][around].mean() if around.any() else 1.0)
    return np.array(contact, np.float64)
