"""Painting of lesions and distractors into a scan, which keeps its noise. Nothing is painted outside the liver."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage

from liverseg.imageio.boxes import Box
from liverseg.synthesis.appearance import Surroundings
from liverseg.synthesis.distractors import Distractor
from liverseg.synthesis.lesion import Lesion

__all__ = ["Scan", "measure_surroundings"]

_NOISE_SCALE_MM: Final = 4.0
"""Variation over less than about this distance counts as noise, and is kept."""
_MAX_NOISE: Final = 3.0
"""Noise is limited to this many standard deviations, because vessels under a lesion are not noise."""
_THIN_MM: Final = 1.5
_MIN_VESSEL_CONTRAST_HU: Final = 40.0
_MAX_VESSEL_CONTRAST_HU: Final = 100.0
_VESSEL_QUANTILE: Final = 0.99
_MIN_PIXELS: Final = 200


def measure_surroundings(hu: np.ndarray, liver: np.ndarray) -> Surroundings | None:
    """Measure the attenuation of parenchyma and vessels, and the noise; None if there is too little liver.

    The parenchyma is the most frequent value of the slightly smoothed liver, which is robust to outlines that include
    tumours. Vessels are the brightest 1 %, limited to 40 to 100 HU above the parenchyma, since a slice may have none.

    Args:
        hu: (slice, row, column).
        liver: boolean, same shape.
    """
    smooth, inner = np.empty(hu.shape, np.float32), np.empty(hu.shape, bool)
    for number in range(len(hu)):
        smooth[number] = ndimage.uniform_filter(hu[number].astype(np.float32), 3)
        inner[number] = ndimage.binary_erosion(liver[number], iterations=2)
    if np.count_nonzero(inner) < _MIN_PIXELS:
        return None
    values = smooth[inner]
    low, high = np.percentile(values, [5, 95])
    counts, edges = np.histogram(values, bins=max(int(high - low), 4), range=(low, high + 1))
    width = max(len(counts) // 6, 3)
    peak = int(np.argmax(ndimage.uniform_filter1d(counts.astype(float), width, mode="constant")))
    parenchyma = float(edges[peak] + edges[peak + 1]) / 2
    residual = hu[inner] - values
    # the mean of nine pixels includes the pixel itself, so the difference lacks 1/9 of the variance
    noise = 1.4826 * float(np.median(np.abs(residual - np.median(residual)))) * math.sqrt(9 / 8)
    contrast = float(np.quantile(values, _VESSEL_QUANTILE)) - parenchyma
    vessel = parenchyma + float(np.clip(contrast, _MIN_VESSEL_CONTRAST_HU, _MAX_VESSEL_CONTRAST_HU))
    return Surroundings(parenchyma, vessel, noise, contrast)


@dataclass
class Scan:
    """Slices to paint on.

    Attributes:
        hu: float32 (slice, row, column), changed in place.
        liver: boolean, same shape, including lesions. Nothing is painted outside.
        positions_mm: positions of the slices along their axis; several may be equal.
        thickness_mm: slice thickness.
        pixel_mm: distance of rows and of columns.
        around: attenuation and noise of the liver.
    """

    hu: np.ndarray
    liver: np.ndarray
    positions_mm: np.ndarray
    thickness_mm: float
    pixel_mm: tuple[float, float]
    around: Surroundings

    @property
    def is_flat(self) -> bool:
        """Whether all slices have the same position."""
        return bool((self.positions_mm == self.positions_mm[0]).all())

    def paint(self, lesion: Lesion) -> tuple[Box, np.ndarray] | None:
        """Paint a lesion.

        The scan's noise, the difference to a Gaussian filter of 4 mm, is kept. From lesions smoother than their
        surroundings, a network would learn that smooth regions are lesions.

        Args:
            lesion: the lesion, with its centre in mm, as `positions_mm` along slices, and from the first row and
                column.

        Returns:
            The box of the lesion and its share of each voxel there, 0 to 1; None if it is outside the scan.
        """
        box = self._box(lesion.centre, lesion.reach)
        if box is None:
            return None
        axes, thin, position_of = self._axes(box)
        share, hu = lesion.evaluate(*axes, min(self.pixel_mm))
        weighted = _mean_over_thickness(share * hu, thin)
        share = _mean_over_thickness(share, thin)
        hu = weighted / np.maximum(share, np.float32(1e-3))
        share, hu = share[position_of] * self._liver_share(box), hu[position_of]
        region = self.hu[box]
        region += share * (hu + self._noise(box) - region)
        return box, share

    def paint_distractor(self, distractor: Distractor) -> tuple[Box, np.ndarray] | None:
        """Make the scan brighter or darker at a distractor; same returns as `paint`."""
        box = self._box(distractor.centre, distractor.reach)
        if box is None:
            return None
        axes, thin, position_of = self._axes(box)
        offsets = (np.float32(axis - centre) for axis, centre in zip(axes, distractor.centre, strict=True))
        share = _mean_over_thickness(distractor.share(*offsets, min(self.pixel_mm)), thin)[position_of]
        share = share * self._liver_share(box)
        self.hu[box] += np.float32(distractor.change_hu) * share
        return box, share

    def _axes(self, box: Box) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], int, np.ndarray]:
        """Return the axes in mm of thin slices whose means are the slices of a box.

        Returns:
            Positions of the thin slices, rows and columns; the number of thin slices per slice; and for each slice of
            the box the number of its position. Slices with equal positions share their thin slices.
        """
        thin = max(1, min(4, math.ceil(self.thickness_mm / _THIN_MM)))
        offsets = (np.arange(thin) - (thin - 1) / 2) * (self.thickness_mm / thin)
        positions, position_of = np.unique(self.positions_mm[box[0]], return_inverse=True)
        y, x = (np.arange(side.start, side.stop) * pixel for side, pixel in zip(box[1:], self.pixel_mm, strict=True))
        return ((positions[:, None] + offsets).ravel(), y, x), thin, position_of

    def _box(self, centre: tuple[float, float, float], reach: float) -> Box | None:
        near = np.flatnonzero(np.abs(self.positions_mm - centre[0]) <= reach + self.thickness_mm / 2)
        if not len(near):
            return None
        plane = []
        for position, pixel, length in zip(centre[1:], self.pixel_mm, self.hu.shape[1:], strict=True):
            start = max(0, math.floor((position - reach) / pixel))
            stop = min(length, math.ceil((position + reach) / pixel) + 1)
            if stop <= start:
                return None
            plane.append(slice(start, stop))
        return slice(int(near[0]), int(near[-1]) + 1), plane[0], plane[1]

    def _liver_share(self, box: Box) -> np.ndarray:
        """Return the share of liver in each voxel of a box, with an edge as blurred as the scan's."""
        return np.stack([ndimage.uniform_filter(plane.astype(np.float32), 3) for plane in self.liver[box]])

    def _noise(self, box: Box) -> np.ndarray:
        """Return the noise in a box, HU."""
        sigma = [max(1.0, _NOISE_SCALE_MM / 2 / pixel) for pixel in self.pixel_mm]
        margins = [math.ceil(2 * width) for width in sigma]
        rows, columns = (
            slice(max(0, side.start - margin), min(length, side.stop + margin))
            for side, margin, length in zip(box[1:], margins, self.hu.shape[1:], strict=True)
        )
        padded = self.hu[box[0], rows, columns]
        smooth = np.stack([ndimage.gaussian_filter(plane, sigma, truncate=2.0) for plane in padded])
        inner = (
            slice(None),
            slice(box[1].start - rows.start, box[1].stop - rows.start),
            slice(box[2].start - columns.start, box[2].stop - columns.start),
        )
        limit = np.float32(_MAX_NOISE * max(self.around.noise_hu, 1.0))
        return np.clip(padded[inner] - smooth[inner], -limit, limit)


def _mean_over_thickness(values: np.ndarray, thin: int) -> np.ndarray:
    """Return the mean over the thin slices of each slice."""
    return values.reshape(-1, thin, *values.shape[1:]).mean(axis=1)
