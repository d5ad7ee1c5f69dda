"""What of a liver is surely no lesion, where only the liver was outlined."""

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
_DARK_RADIUS_MM: Final = 3.2  # smoothing makes spots wider by some .5 mm
_BRIGHT_RADIUS_MM: Final = 7.0
_MARGIN_MM: Final = 3.0


def label_normal_liver(
    hu: np.ndarray, label: np.ndarray, liver_hu: float, noise_hu: float, pixel_mm: Sequence[float]
) -> np.ndarray:
    """A label map whose `LIVER_OR_LESION` is liver where nothing suggests a lesion (ours).

    Outlines of livers without their lesions say nothing of what in them is no lesion, and a network that learns lesions
    from synthesis alone sees them everywhere. What stays `LIVER_OR_LESION` are spots darker than the parenchyma that
    hold a disc of 6 mm diameter, and brighter ones that hold a disc of 14 mm, which vessels seldom do, each with a
    margin of 3 mm. All else in the outline is liver: parenchyma, vessels, and its blurred rim.

    Args:
        hu: one slice, (row, column).
        label: its label map.
        liver_hu: attenuation of its parenchyma.
        noise_hu: standard deviation of a pixel's noise.
        pixel_mm: between rows and between columns.
    """
    unknown = label == LIVER_OR_LESION
    sigma = [_SIGMA_MM / mm for mm in pixel_mm]
    # the liver alone is averaged, and without its outermost pixels: its rim is no lesion
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
