"""Regions of a liver without lesions, for label maps that outline the liver only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy import ndimage

from liverseg.labels import LIVER, LIVER_OR_LESION
from liverseg.synthesis.placement import depth_mm

__all__ = ["label_normal_liver"]

_SIGMA_MM: Final = 1.5
_TOLERANCE_HU: Final = 10.0
_DARK_RADIUS_MM: Final = 3.2  # smoothing makes spots about 0.5 mm wider
_BRIGHT_RADIUS_MM: Final = 7.0
_MARGIN_MM: Final = 3.0


def label_normal_liver(
    hu: np.ndarray, label: np.ndarray, liver_hu: float, noise_hu: float, pixel_mm: Sequence[float]
) -> np.ndarray:
    """Set `LIVER_OR_LESION` of a label map to liver where nothing suggests a lesion (our method).

    Outlines of livers without their lesions do not show where there is no lesion, and a network that learns lesions
    from synthesis alone sees them everywhere. `LIVER_OR_LESION` stays in spots darker than the parenchyma that contain
    a disc of 6 mm diameter, and in brighter spots that contain a disc of 14 mm, which vessels seldom do, each with a
    margin of 3 mm. The rest of the outline becomes liver: parenchyma, vessels, and the blurred edge.

    Args:
        hu: one slice, (row, column).
        label: label map of the slice, same shape.
        liver_hu: attenuation of its parenchyma.
        noise_hu: standard deviation of a pixel's noise.
        pixel_mm: distance of rows and of columns.
    """
    unknown = label == LIVER_OR_LESION
    sigma = [_SIGMA_MM / mm for mm in pixel_mm]
    # average over the liver only, without its outermost pixels, so that the blurred edge does not count as dark
    inside = ndimage.binary_erosion(label >= LIVER).astype(np.float32)
    weight = ndimage.gaussian_filter(inside, sigma, truncate=3.0)
    smooth = ndimage.gaussian_filter(hu * inside, sigma, truncate=3.0) / np.maximum(weight, np.float32(1e-3))
    unknown_core = unknown & (weight > 0.02)
    tolerance = max(_TOLERANCE_HU, 0.8 * noise_hu)
    suspicious = np.zeros(label.shape, bool)
    for spots, radius in (
        (unknown_core & (smooth < liver_hu - tolerance), _DARK_RADIUS_MM),
        (unknown_core & (smooth > liver_hu + tolerance), _BRIGHT_RADIUS_MM),
    ):
        if spots.any():
            core = depth_mm(spots, pixel_mm) >= radius
            if core.any():
                suspicious |= spots & (ndimage.distance_transform_edt(~core, sampling=pixel_mm) <= radius + _MARGIN_MM)
    if suspicious.any():
        suspicious = ndimage.distance_transform_edt(~suspicious, sampling=pixel_mm) <= _MARGIN_MM
    return np.where(unknown & ~suspicious, np.uint8(LIVER), label)
