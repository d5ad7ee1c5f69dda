"""The scanner: grid, point spread, CT-like noise, rounding to int16 HU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft

__all__ = ["Scanner", "blur_in_plane", "noise_transfer", "scan_noise", "to_int16"]

_FWHM = 2.3548
"""Full width at half maximum of a Gaussian in standard deviations."""

_BLURRED_ROWS = 64
"""Rows blurred at a time, few enough for the processor's cache."""


@dataclass(frozen=True)
class Scanner:
    """Parameters of one acquisition.

    Attributes:
        field_of_view: edge of the square image, mm.
        matrix: pixels along that edge.
        centre: (x, y) of the image's centre, LPS+ mm.
        first: z of the lowest slice's centre, mm.
        slices: number of slices.
        thickness: slice thickness and spacing, mm.
        point_spread: in-plane full width at half maximum, mm.
        noise: standard deviation at the centre of the image, HU.
        kernel: cut-off of the reconstruction kernel, cycles per mm.
        correlation: weight of the noise of the slice below in each slice's noise.
    """

    field_of_view: float
    matrix: int
    centre: tuple[float, float]
    first: float
    slices: int
    thickness: float
    point_spread: float
    noise: float
    kernel: float
    correlation: float

    @property
    def pixel(self) -> float:
        """In-plane spacing, mm."""
        return self.field_of_view / self.matrix

    @property
    def x(self) -> np.ndarray:
        """Pixel centres along x, mm."""
        return self._pixels() + self.centre[0]

    @property
    def y(self) -> np.ndarray:
        """Pixel centres along y, mm."""
        return self._pixels() + self.centre[1]

    @property
    def z(self) -> np.ndarray:
        """Slice centres, mm."""
        return self.first + self.thickness * np.arange(self.slices)

    @property
    def affine(self) -> np.ndarray:
        """4×4, (x, y, z) index to RAS+ mm; the array axes run to left, back and head (LPS+), as in DICOM."""
        affine = np.diag([-self.pixel, -self.pixel, self.thickness, 1.0])
        affine[:3, 3] = (-self.x[0], -self.y[0], self.first)
        return affine

    def inner_slices(self, finest: float) -> int:
        """Return the number of thin slices of at most `finest` mm that are averaged to one slice."""
        return max(int(np.ceil(self.thickness / finest - 1e-6)), 1)

    def _pixels(self) -> np.ndarray:
        return self.pixel * (np.arange(self.matrix) - (self.matrix - 1) / 2)


def blur_in_plane(hu: np.ndarray, scanner: Scanner) -> np.ndarray:
    """Apply the scanner's in-plane point spread to (z, y, x) HU, slice by slice, and return float32.

    The voxels are those of `scipy.ndimage.gaussian_filter1d` along y, then along x, which takes three times as long.
    """
    weights = _gaussian(scanner.point_spread / _FWHM / scanner.pixel)
    reach = len(weights) - 1
    _, height, width = hu.shape
    blurred = np.empty(hu.shape, dtype=np.float32)
    plane = np.empty((height + 2 * reach, width))
    rows = np.empty((_BLURRED_ROWS, width + 2 * reach))
    for on_slice, result in zip(hu, blurred, strict=True):
        plane[:reach], plane[reach : reach + height], plane[reach + height :] = on_slice[0], on_slice, on_slice[-1]
        for start in range(0, height, _BLURRED_ROWS):
            stop = min(start + _BLURRED_ROWS, height)
            block = rows[: stop - start]
            # rounded to float32 between the axes
            block[:, reach : reach + width] = _blur(plane[start : stop + 2 * reach], weights).astype(np.float32)
            block[:, :reach] = block[:, reach : reach + 1]
            block[:, reach + width :] = block[:, reach + width - 1 : reach + width]
            result[start:stop] = _blur(block.T, weights).T
    return blurred


def _gaussian(sigma: float) -> np.ndarray:
    """Return the weights of a Gaussian's middle and of one side, up to three standard deviations."""
    reach = int(3.0 * sigma + 0.5)
    weights = np.exp(-0.5 / sigma**2 * np.arange(-reach, reach + 1) ** 2)
    return (weights / weights.sum())[reach:]


def _blur(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Convolve the first axis with symmetric weights; the result is shorter by their reach at both ends."""
    reach = len(weights) - 1
    count = len(values) - 2 * reach
    result = values[reach : reach + count] * weights[0]
    for offset in range(reach, 0, -1):
        pair = values[reach - offset : reach - offset + count] + values[reach + offset : reach + offset + count]
        pair *= weights[offset]
        result += pair
    return result


def noise_transfer(scanner: Scanner) -> np.ndarray:
    """Return the noise amplitude by in-plane frequency, (matrix, matrix // 2 + 1), for unit variance in the image.

    Filtered backprojection gives a noise power of ramp × apodisation squared (Riederer, Pelc and Chesler, Phys Med
    Biol 23 (1978) 446). It rises from near zero, peaks at middle frequencies and falls to the kernel's cut-off.
    """
    f = np.hypot(fft.fftfreq(scanner.matrix, scanner.pixel)[:, None], fft.rfftfreq(scanner.matrix, scanner.pixel)[None])
    cut = min(scanner.kernel, 0.5 / scanner.pixel)
    window = np.where(f < cut, np.cos(0.5 * np.pi * np.minimum(f / cut, 1)) ** 2, 0)
    # real noise does not vanish at zero frequency, because of beam hardening, scatter and electronics
    power = (f / cut + 0.04) * window**2
    weight = np.full(power.shape[1], 2.0)
    weight[0] = 1.0
    if scanner.matrix % 2 == 0:
        weight[-1] = 1.0
    mean = (power * weight).sum() / scanner.matrix**2
    return np.sqrt(power / mean).astype(np.float32)


def scan_noise(rng: np.random.Generator, scanner: Scanner) -> np.ndarray:
    """Draw the noise of a scan, (z, y, x) float32 HU.

    It has a CT-like in-plane spectrum, is correlated between neighbouring slices, and is a little stronger in the
    middle of the body than at its edge, as an effect of attenuation.
    """
    n, m = scanner.slices, scanner.matrix
    transfer = np.repeat(noise_transfer(scanner), 2, axis=1)  # for real and imaginary parts
    weight_below = np.float32(scanner.correlation)
    position = (np.arange(m) - (m - 1) / 2) * scanner.pixel
    strength = 1.05 - 0.25 * np.minimum((position[:, None] ** 2 + position[None] ** 2) / 170.0**2, 1)
    strength = (scanner.noise * strength / np.sqrt(1 + scanner.correlation**2)).astype(np.float32)
    noise = np.empty((n, m, m), dtype=np.float32)
    below = _slice_noise(rng, transfer, m)
    for k in range(n):
        current = _slice_noise(rng, transfer, m)
        below *= weight_below
        below += current
        np.multiply(below, strength, out=noise[k])
        below = current
    return noise


def _slice_noise(rng: np.random.Generator, transfer: np.ndarray, matrix: int) -> np.ndarray:
    white = rng.standard_normal((matrix, matrix), dtype=np.float32)
    spectrum = fft.rfft2(white, workers=1)
    parts = spectrum.view(np.float32)
    parts *= transfer
    return fft.irfft2(spectrum, s=(matrix, matrix), workers=1, overwrite_x=True)


def to_int16(hu: np.ndarray) -> np.ndarray:
    """Round to integer HU from -1024 to 3071, as scanners store them."""
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)
