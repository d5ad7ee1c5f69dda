"""Connected regions of lesions on slices, with cysts separate from the lesions that they touch."""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np
import torch

from liverseg.labels import FACE_CONNECTIVITY, LESION, LESION_TYPES

__all__ = ["SMALLEST_CORE", "Regions", "cyst_beside_lesion", "label_regions", "typed_regions"]

_CORE = np.ones((5, 5), bool)
"""What remains of a part when two pixels are eroded counts; edges of lesions look like other types."""

SMALLEST_CORE = _CORE.size
"""Pixels of the smallest part with a core."""

_ENCLOSED = 0.6
"""Largest share of a cyst's edge that is another lesion. Beyond it, the cyst is taken for a part of that lesion."""


@dataclass(frozen=True)
class Regions:
    """Connected lesions of a batch.

    Attributes:
        ids: number of each pixel's region, 1 ... `count` over all slabs of the batch, 0 elsewhere; int64 (batch, H, W).
        count: of regions.
    """

    ids: torch.Tensor
    count: int

    def weights(self) -> torch.Tensor:
        """Return weights of pixels that add up to 1 in each region, 0 outside, float32 (batch, H, W)."""
        areas = torch.bincount(self.ids.flatten(), minlength=self.count + 1).clamp(min=1)
        return torch.where(self.ids > 0, 1.0 / areas[self.ids], 0.0)


def label_regions(lesion: torch.Tensor, cyst: torch.Tensor | None = None) -> Regions:
    """Number the connected regions of a batch of lesion masks; pixels touch by an edge.

    A cyst that touches another lesion gets a region of its own. Otherwise both would get one type, and the measurements
    of both would be mixed.

    Args:
        lesion: boolean (batch, H, W).
        cyst: lesion pixels that look like a cyst, boolean of the same shape; None to separate nothing.
    """
    mask = lesion.cpu().numpy()
    ids, count = np.zeros(mask.shape, np.int32), 0
    for slab, of_slab in zip(ids, mask, strict=True):
        # by default numbers have 16 bits, too few for a batch, if the slab is small
        found, number = cc3d.connected_components(
            of_slab, connectivity=FACE_CONNECTIVITY[2], out_dtype=np.uint32, return_N=True
        )
        slab[of_slab] = found[of_slab] + count
        count += number
    if cyst is not None and count:
        count = _separate_cysts(ids, count, mask & cyst.cpu().numpy())
    return Regions(torch.from_numpy(ids).to(lesion.device, torch.int64), int(count))


def typed_regions(labels: torch.Tensor) -> Regions:
    """Number the lesions of known type; lesions of different types that touch are different regions.

    Args:
        labels: label maps of the joint table, (batch, H, W).
    """
    ids, count = torch.zeros_like(labels, dtype=torch.int64), 0
    for label in range(LESION, LESION + len(LESION_TYPES)):
        of_type = label_regions(labels == label)
        ids = torch.where(of_type.ids > 0, of_type.ids + count, ids)
        count += of_type.count
    return Regions(ids, count)


def _separate_cysts(ids: np.ndarray, count: int, cyst: np.ndarray) -> int:
    """Give cysts that touch other lesions numbers of their own, in place, and return the new number of regions."""
    of_region = np.bincount(ids.ravel(), minlength=count + 1)
    of_cysts = np.bincount(ids[cyst], minlength=count + 1)
    mixed = np.minimum(of_cysts, of_region - of_cysts) >= SMALLEST_CORE
    mixed[0] = False
    if not mixed.any():
        return count
    from scipy import ndimage  # a tenth of a second

    boxes = ndimage.find_objects(ids)
    for number in np.flatnonzero(mixed).tolist():
        box = boxes[number - 1]
        found = ids[box][0]  # a view; a region is in one slab
        part = cyst_beside_lesion(found == number, cyst[box][0])
        if part is not None:
            count += 1
            found[part] = count
    return count


def cyst_beside_lesion(region: np.ndarray, cyst: np.ndarray) -> np.ndarray | None:
    """Return the part of a region that is a cyst beside another lesion, or None if the region is a single lesion.

    The parts must touch, and both must have pixels that remain when two pixels are eroded. Every pixel belongs to the
    nearer of these cores. A cyst that the rest of the region encloses is a necrotic centre.

    Args:
        region: pixels of lesion, boolean (rows, columns).
        cyst: true where a pixel looks like a cyst, same shape.
    """
    from scipy import ndimage  # a tenth of a second

    cores = [ndimage.binary_erosion(region & part, _CORE) for part in (cyst, ~cyst)]
    if not (cores[0].any() and cores[1].any()):
        return None
    to_cyst, to_other = (ndimage.distance_transform_edt(~core) for core in cores)
    part = np.asarray(region & (to_cyst < to_other))
    edge = ndimage.binary_dilation(np.pad(part, 1)) & ~np.pad(part, 1)  # beyond the arrays, too
    touching = np.count_nonzero(edge[1:-1, 1:-1] & region)
    return part if 0 < touching <= _ENCLOSED * np.count_nonzero(edge) else None
