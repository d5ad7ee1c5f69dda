"""The slab convention: which slices a 2.5-D network sees as channels."""

from __future__ import annotations

import numpy as np

__all__ = ["SLAB_SLICES", "slab_indices"]

SLAB_SLICES = 3
"""Adjacent axial slices a slab holds; the paper's three."""


def slab_indices(centers: np.ndarray | int, depth: int, slices: int = SLAB_SLICES) -> np.ndarray:
    """Slice numbers of the slabs around `centers`, in axial order (feet to head), edge slices repeated.

    Args:
        centers: slice numbers in 0 ... depth-1, one or an array of shape (n,).
        depth: number of slices of the volume.
        slices: slices a slab holds, odd.

    Returns:
        Whole numbers of shape (slices,) or (n, slices).

    Raises:
        ValueError: if `slices` is even or a centre lies outside the volume.
    """
    if slices < 1 or slices % 2 == 0:
        raise ValueError(f"a slab of {slices} slices has no middle slice; take an odd number")
    middle = np.asarray(centers)
    if middle.size and (middle.min() < 0 or middle.max() >= depth):
        raise ValueError(f"slice {middle.min()} to {middle.max()} asked for in a volume of {depth} slices")
    offsets = np.arange(slices) - slices // 2
    return np.clip(middle[..., None] + offsets, 0, depth - 1)
