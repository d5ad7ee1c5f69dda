"""Distances between the surfaces of two outlines, by MONAI's metrics alone: libraries differ in what a surface is."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

__all__ = ["surface_distances"]

_MARGIN = 1


def surface_distances(pred: np.ndarray, true: np.ndarray, spacing_mm: Sequence[float]) -> tuple[float, float]:
    """Average and maximum symmetric surface distance (ASSD, MSSD) in mm of two masks, neither empty.

    A mask's surface are its voxels with a background voxel at one of their faces; outside of the image is background.
    Distances run between voxel centres. ASSD is their mean over the surface voxels of both masks together, MSSD their
    largest, the Hausdorff distance. MONAI crops to the two masks first.

    Args:
        pred: predicted mask, 2-D or 3-D.
        true: true mask of that shape.
        spacing_mm: voxel spacing along each axis.

    Raises:
        ValueError: if a mask is empty.
    """
    if not (pred.any() and true.any()):
        raise ValueError("surface distances of an empty mask are not defined")
    one, two = (torch.from_numpy(np.pad(mask, _MARGIN).astype(np.float32))[None, None] for mask in (pred, true))
    spacing = [float(step) for step in spacing_mm]
    with warnings.catch_warnings():
        # MONAI warns of an argument that it passes to itself
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy", category=FutureWarning)
        average = compute_average_surface_distance(one, two, include_background=True, symmetric=True, spacing=spacing)
        largest = compute_hausdorff_distance(one, two, include_background=True, spacing=spacing)
    return float(average), float(largest)
