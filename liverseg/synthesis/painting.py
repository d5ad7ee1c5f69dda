"""Lesions and distractors painted into a scan: its own noise stays, and nothing leaves the liver."""

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

_GRAIN_MM: Final = 4.0
"""What varies over less than about this distance is taken for the scan's noise and stays."""
_MOST_NOISE: Final = 3.0
"""Standard deviations of noise that are kept: vessels under a lesion are not noise."""
_THIN_MM: Final = 1.5
_LEAST_VESSEL_CONTRAST_HU: Final = 40.0
_MOST_VESSEL_CONTRAST_HU: Final = 100.0
_VESSEL_QUANTILE: Final = 0.99
_LEAST_PIXELS: Final = 200


def measure_surroundings(hu: np.ndarray, liver: np.ndarray) -> Surroundings | None:
    """Attenuation of a scan's parenchyma and of its vessels, and its noise; None if there is too little liver for it.

    The parenchyma is the most frequent value of the slightly smoothed liver, which outlines that include tumours do not
    move; vessels are its brightest 1 %, at least 40 HU and at most 100 HU above the parenchyma: a slice may show none.

    Args:
        hu: (slice, row, column).
        liver: boolean, same shape.
    """
    smooth, inner = np.empty(hu.shape, np.float32), np.empty(hu.shape, bool)
    for number in range(len(hu)):
        smooth[number] = ndimage.uniform_filter(hu[number].astype(np.float32), 3)
        inner[number] = ndimage.binary_erosion(liver[number], iterations=2)
    if np.count_nonzero(inner) < _LEAST_PIXELS:
        return None
    values = smooth[inner]
    low, high = np.percentile(values, [5, 95])
    counts, edges = np.histogram(values, bins=max(int(high - low), 4), range=(low, high + 1))
    wide = max(len(counts) // 6, 3)
    most = int(np.argmax(ndimage.uniform_filter1d(counts.astype(float), wide, mode="constant")))
    parenchyma = float(edges[most] + edges[most + 1]) / 2
    residual = hu[inner] - values
    # nine pixels were averaged, this one among them: a share of 1/9 of its variance is missing from the difference
    noise = 1.4826 * float(np.median(np.abs(residual - np.median(residual)))) * math.sqrt(9 / 8)
    rise = float(np.quantile(values, _VESSEL_QUANTILE)) - parenchyma
    vessel = parenchyma + float(np.clip(rise, _LEAST_VESSEL_CONTRAST_HU, _MOST_VESSEL_CONTRAST_HU))
    return Surroundings(parenchyma, vessel, noise, rise)


@dataclass
class Scan:
    """Slices that are painted on.

    Attributes:
        hu: float32 (slice, row, column), changed in place.
        liver: boolean, same shape, lesions included: paint stays inside it.
        positions_mm: of the slices along their axis; several may have the same one.
        thickness_mm: of a slice.
        pixel_mm: between rows and between columns.
        around: what the scan shows of its liver.
    """

    hu: np.ndarray
    liver: np.ndarray
    positions_mm: np.ndarray
    thickness_mm: float
    pixel_mm: tuple[float, float]
    around: Surroundings

    @property
    def is_flat(self) -> bool:
        """Whether all its slices are in one place."""
        return bool((self.positions_mm == self.positions_mm[0]).all())

    def paint(self, lesion: Lesion) -> tuple[Box, np.ndarray] | None:
        """Paint a lesion.

        The scan's own noise stays, as what a Gaussian of 4 mm takes away from it: a lesion that is smoother than its
        surroundings would teach that what is smooth is a lesion.

        Args:
            lesion: its centre in mm, as `positions_mm` along slices, and from the first row and column.

        Returns:
            The box it lies in and its share of each voxel there, 0 to 1; None where it does not meet the scan.
        """
        box = self._box(lesion.centre, lesion.reach)
        if box is None:
            return None
        axes, thin, same = self._axes(box)
        share, hu = lesion.evaluate(*axes, min(self.pixel_mm))
        filled = _over_thickness(share * hu, thin)
        share = _over_thickness(share, thin)
        hu = filled / np.maximum(share, np.float32(1e-3))
        share, hu = share[same] * self._inside(box), hu[same]
        here = self.hu[box]
        here += share * (hu + self._noise(box) - here)
        return box, share

    def paint_distractor(self, distractor: Distractor) -> tuple[Box, np.ndarray] | None:
        """Paint a distractor: the scan goes on under it, brighter or darker; returns what `paint` does."""
        box = self._box(distractor.centre, distractor.reach)
        if box is None:
            return None
        axes, thin, same = self._axes(box)
        offsets = (np.float32(axis - place) for axis, place in zip(axes, distractor.centre, strict=True))
        share = _over_thickness(distractor.share(*offsets, min(self.pixel_mm)), thin)[same] * self._inside(box)
        self.hu[box] += np.float32(distractor.change_hu) * share
        return box, share

    def _axes(self, box: Box) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], int, np.ndarray]:
        """Axes in mm of the thin slices that make up the slices of a box, how many make up one, and which are whose.

        Slices in the same place show the same and have their thin slices once.
        """
        thin = max(1, min(4, math.ceil(self.thickness_mm / _THIN_MM)))
        offsets = (np.arange(thin) - (thin - 1) / 2) * (self.thickness_mm / thin)
        places, same = np.unique(self.positions_mm[box[0]], return_inverse=True)
        y, x = (np.arange(side.start, side.stop) * pixel for side, pixel in zip(box[1:], self.pixel_mm, strict=True))
        return ((places[:, None] + offsets).ravel(), y, x), thin, same

    def _box(self, centre: tuple[float, float, float], reach: float) -> Box | None:
        near = np.flatnonzero(np.abs(self.positions_mm - centre[0]) <= reach + self.thickness_mm / 2)
        if not len(near):
            return None
        plane = []
        for place, pixel, length in zip(centre[1:], self.pixel_mm, self.hu.shape[1:], strict=True):
            start = max(0, math.floor((place - reach) / pixel))
            stop = min(length, math.ceil((place + reach) / pixel) + 1)
            if stop <= start:
                return None
            plane.append(slice(start, stop))
        return slice(int(near[0]), int(near[-1]) + 1), plane[0], plane[1]

    def _inside(self, box: Box) -> np.ndarray:
        """Share of liver in each voxel of a box, its edge as wide as the scan's."""
        return np.stack([ndimage.uniform_filter(part.astype(np.float32), 3) for part in self.liver[box]])

    def _noise(self, box: Box) -> np.ndarray:
        """The noise of a box, HU."""
        sigma = [max(1.0, _GRAIN_MM / 2 / pixel) for pixel in self.pixel_mm]
        margin = [math.ceil(2 * width) for width in sigma]
        rows, columns = (
            slice(max(0, side.start - more), min(length, side.stop + more))
            for side, more, length in zip(box[1:], margin, self.hu.shape[1:], strict=True)
        )
        wide = self.hu[box[0], rows, columns]
        smooth = np.stack([ndimage.gaussian_filter(part, sigma, truncate=2.0) for part in wide])
        cut = (
            slice(None),
            slice(box[1].start - rows.start, box[1].stop - rows.start),
            slice(box[2].start - columns.start, box[2].stop - columns.start),
        )
        most = np.float32(_MOST_NOISE * max(self.around.noise_hu, 1.0))
        return np.clip(wide[cut] - smooth[cut], -most, most)


def _over_thickness(values: np.ndarray, thin: int) -> np.ndarray:
    """Mean over the thin slices of each slice."""
    return values.reshape(-1, thin, *values.shape[1:]).mean(axis=1)
