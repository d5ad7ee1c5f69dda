"""Regions of a liver without lesions, for label maps that outline the liver only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy import ndimage

from liverseg.labels import LIVER, LIVER_OR_LESION
from liverseg.synthesis.appearance import Surroundings
from liverseg.synthesis.placement import depth_mm

__all__ = ["label_normal_liver", "suspicious_liver", "widest_unusual_disc_mm"]

_SIGMA_MM: Final = 1.5
_TOLERANCE_HU: Final = 10.0
_DARK_RADIUS_MM: Final = 3.2  # smoothing makes spots about 0.5 mm wider
_BRIGHT_RADIUS_MM: Final = 7.0
_MARGIN_MM: Final = 3.0
_ABOVE_VESSELS_HU: Final = 100.0
_MIN_WEIGHT: Final = 0.02


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
    smooth, weight = _smooth_liver(hu, label, pixel_mm)
    unknown_core = unknown & (weight > _MIN_WEIGHT)
    tolerance = _tolerance(noise_hu)
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


def suspicious_liver(hu: np.ndarray, liver: np.ndarray, around: Surroundings, pixel_mm: Sequence[float]) -> np.ndarray:
    """Return where a liver may have a lesion without an outline, which must not be partly painted over.

    Args:
        hu: (slice, row, column).
        liver: boolean, same shape; the liver without outlined lesions.
        around: attenuation and noise of the liver.
        pixel_mm: distance of rows and of columns.
    """
    unknown = np.where(liver, np.uint8(LIVER_OR_LESION), np.uint8(0))
    slices = [label_normal_liver(hu[z], unknown[z], around.liver_hu, around.noise_hu, pixel_mm) for z in range(len(hu))]
    return np.stack(slices) == LIVER_OR_LESION


def widest_unusual_disc_mm(
    hu: np.ndarray, liver: np.ndarray, liver_hu: float, noise_hu: float, pixel_mm: Sequence[float]
) -> float:
    """Return the diameter of the largest disc in a spot of a liver that is dark or brighter than vessels; 0 without.

    Dark is the same as for `label_normal_liver`. The blurred edge of a liver, fissures and noise seldom contain a disc
    of more than 9 mm. More than 100 HU above the parenchyma are treated tumours with iodised oil, or calcifications.

    Args:
        hu: one slice, (row, column).
        liver: its liver with lesions, boolean, same shape.
        liver_hu, noise_hu, pixel_mm: as for `label_normal_liver`.
    """
    smooth, weight = _smooth_liver(hu, liver.astype(np.uint8), pixel_mm)
    core = liver & (weight > _MIN_WEIGHT)
    spots = (core & (smooth < liver_hu - _tolerance(noise_hu)), core & (smooth > liver_hu + _ABOVE_VESSELS_HU))
    return 2 * max(float(depth_mm(spot, pixel_mm).max(initial=0.0)) for spot in spots)


def _smooth_liver(hu: np.ndarray, label: np.ndarray, pixel_mm: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean HU around each pixel over the liver, and the share of liver there.

    The outermost pixels are left out, so that the blurred edge does not count as dark.
    """
    sigma = [_SIGMA_MM / mm for mm in pixel_mm]
    inside = ndimage.binary_erosion(label >= LIVER).astype(np.float32)
    weight = ndimage.gaussian_filter(inside, sigma, truncate=3.0)
    smooth = ndimage.gaussian_filter(hu * inside, sigma, truncate=3.0) / np.maximum(weight, np.float32(1e-3))
    return smooth, weight


def _tolerance(noise_hu: float) -> float:
    """Return how far below the parenchyma a mean is dark, HU."""
    return max(_TOLERANCE_HU, 0.8 * noise_hu)
