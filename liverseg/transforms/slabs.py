"""The slab convention, once for training and inference: which slices a 2.5-D network sees as channels.

Slices are those across the axis that runs closest to feet-head by the file's affine, in axial order from feet to head
(`liverseg.imageio.volume`), whatever axis of the file that is. The network labels the middle one.
"""

from __future__ import annotations

import numpy as np

__all__ = ["SLAB_SLICES", "slab_indices"]

SLAB_SLICES = 3
"""Axial slices a slab holds; the paper's three."""


def slab_indices(
    centers: np.ndarray | int,
    depth: int,
    slices: int = SLAB_SLICES,
    *,
    slice_mm: float = 1.0,
    slab_spacing_mm: float | None = None,
) -> np.ndarray:
    """Slice numbers of the slabs around `centers`, in axial order (feet to head), edge slices repeated.

    Adjacent slices are the paper's. What they show depends on the volume: a millimetre apart they are nearly the same,
    at five a small lesion is in one of them only. With `slab_spacing_mm` they are the slices nearest to that distance
    instead, but never the middle one again, which would tell the network nothing.

    Args:
        centers: slice numbers in 0 ... depth-1, one or an array of shape (n,).
        depth: number of slices of the volume.
        slices: slices a slab holds, odd.
        slice_mm: distance of the volume's neighbouring slices in mm; not looked at where `slab_spacing_mm` is None.
        slab_spacing_mm: distance of a slab's neighbouring slices in mm; None takes adjacent ones.

    Returns:
        Whole numbers of shape (slices,) or (n, slices).

    Raises:
        ValueError: if `slices` is even, a distance is not above 0 or a centre lies outside the volume.

    Example:
        >>> slab_indices(10, 100, slice_mm=1.25, slab_spacing_mm=5.0)
        array([ 6, 10, 14])
    """
    if slices < 1 or slices % 2 == 0:
        raise ValueError(f"a slab of {slices} slices has no middle slice; take an odd number")
    middle = np.asarray(centers)
    if middle.size and (middle.min() < 0 or middle.max() >= depth):
        raise ValueError(f"slice {middle.min()} to {middle.max()} asked for in a volume of {depth} slices")
    offsets = np.arange(slices) - slices // 2
    if slab_spacing_mm is not None:
        if not (slab_spacing_mm > 0 and slice_mm > 0):
            raise ValueError(f"slab spacing {slab_spacing_mm} mm for slices {slice_mm} mm apart; both must be above 0")
        nearest = np.rint(np.abs(offsets) * slab_spacing_mm / slice_mm).astype(int)
        offsets = np.sign(offsets) * np.maximum(nearest, np.abs(offsets))
    return np.clip(middle[..., None] + offsets, 0, depth - 1)
