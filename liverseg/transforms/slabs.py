"""The slab convention of training and inference: which slices are the channels of a 2.5-D network.

Slices are in axial order from feet to head, across the axis of the file that is closest to feet-head by its affine
(`liverseg.imageio.volume`). The network labels the middle one.
"""

from __future__ import annotations

import numpy as np

__all__ = ["SLAB_SLICES", "slab_indices"]

SLAB_SLICES = 3
"""Axial slices of a slab, as in the paper."""


def slab_indices(
    centers: np.ndarray | int,
    depth: int,
    slices: int = SLAB_SLICES,
    *,
    slice_mm: float = 1.0,
    slab_spacing_mm: float | None = None,
) -> np.ndarray:
    """Return the slice numbers of the slabs around `centers`, in axial order (feet to head), edge slices repeated.

    The paper uses adjacent slices. Their similarity depends on the volume: a millimetre apart they are nearly equal, at
    five a small lesion is in only one of them. With `slab_spacing_mm` the slices nearest to that distance are taken
    instead, but never the middle one again, which would give the network no information.

    Args:
        centers: slice numbers in 0 ... depth-1, a number or an array of shape (n,).
        depth: number of slices of the volume.
        slices: slices of a slab, odd.
        slice_mm: distance of the volume's neighbouring slices in mm; ignored if `slab_spacing_mm` is None.
        slab_spacing_mm: distance of a slab's neighbouring slices in mm; None takes adjacent slices.

    Returns:
        Integers of shape (slices,) or (n, slices).

    Raises:
        ValueError: if `slices` is even, a distance is not above 0 or a centre is outside the volume.

    Example:
        >>> slab_indices(10, 100, slice_mm=1.25, slab_spacing_mm=5.0)
        array([ 6, 10, 14])
    """
    if slices < 1 or slices % 2 == 0:
        raise ValueError(f"a slab of {slices} slices has no middle slice; use an odd number")
    middle = np.asarray(centers)
    if middle.size and (middle.min() < 0 or middle.max() >= depth):
        raise ValueError(f"slices {middle.min()} to {middle.max()} are not all in a volume of {depth} slices")
    offsets = np.arange(slices) - slices // 2
    if slab_spacing_mm is not None:
        if not (slab_spacing_mm > 0 and slice_mm > 0):
            raise ValueError(f"slab spacing {slab_spacing_mm} mm for slices {slice_mm} mm apart; both must be above 0")
        nearest = np.rint(np.abs(offsets) * slab_spacing_mm / slice_mm).astype(int)
        offsets = np.sign(offsets) * np.maximum(nearest, np.abs(offsets))
    return np.clip(middle[..., None] + offsets, 0, depth - 1)
