"""The scanner: noise spectrum, slice correlation, partial volume, rounding."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from liverseg.phantom.acquisition import Scanner, blur_in_plane, scan_noise, to_int16
from liverseg.phantom.fields import Field, Lattice, Region, ellipsoid
from liverseg.phantom.rendering import render
from liverseg.phantom.scene import Layer, Scene

SCANNER = Scanner(
    field_of_view=96.0,
    matrix=128,
    centre=(0.0, 0.0),
    first=-10.0,
    slices=16,
    thickness=2.0,
    point_spread=1.0,
    noise=12.0,
    kernel=0.7,
    correlation=0.4,
)


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return scan_noise(np.random.default_rng(0), SCANNER)


def test_noise_has_the_stated_strength(noise: np.ndarray) -> None:
    assert noise[:, 32:96, 32:96].std() == pytest.approx(12.5, rel=0.06)
    assert abs(noise.mean()) < 1.0


def test_a_point_is_as_wide_at_half_height_as_stated() -> None:
    hu = np.zeros((1, 128, 128))
    hu[0, 64, 64] = 1000.0
    for width in (2.0, 3.0):
        blurred = blur_in_plane(hu, replace(SCANNER, point_spread=width))[0]
        assert blurred.sum() == pytest.approx(1000.0, rel=0.01)
        for line in (blurred[64], blurred[:, 64]):
            half = np.flatnonzero(line >= line.max() / 2)
            left, right = half[0], half[-1]  # position between pixels where the profile crosses half of its height
            outside = (line[left] - line.max() / 2) / (line[left] - line[left - 1])
            assert (right - left + 2 * outside) * SCANNER.pixel == pytest.approx(width, rel=0.05)


def test_noise_power_peaks_at_middle_frequencies(noise: np.ndarray) -> None:
    power = (np.abs(np.fft.fft2(noise)) ** 2).mean(axis=0)
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(128, 0.75), np.fft.fftfreq(128, 0.75)))
    edges = np.linspace(0, 0.66, 12)
    radial = np.array([power[(f >= a) & (f < b)].mean() for a, b in itertools.pairwise(edges)])
    peak = int(np.argmax(radial))
    assert 1 <= peak <= 6
    assert radial[0] < 0.6 * radial[peak]  # white noise would be flat
    assert radial[-1] < 0.1 * radial[peak]


def test_neighbouring_slices_share_noise_and_distant_ones_do_not(noise: np.ndarray) -> None:
    def correlation(gap: int) -> float:
        return float(np.corrcoef(noise[:-gap].ravel(), noise[gap:].ravel())[0, 1])

    assert correlation(1) == pytest.approx(0.4 / (1 + 0.4**2), abs=0.03)
    assert abs(correlation(3)) < 0.03


def ball(scanner: Scanner, radius: float) -> np.ndarray:
    """Render a ball of 100 HU at the origin in a background of 0 HU."""
    lattice = Lattice((-40.0, -40.0, -40.0), 2.0, (41, 41, 41))
    region = Region(lattice)
    shape = region.field(ellipsoid(region, (0, 0, 0), (radius, radius, radius)))
    flat = Field(np.zeros(lattice.shape, dtype=np.float32), (0, 0, 0), lattice)
    background = np.zeros((scanner.matrix, scanner.matrix), dtype=np.float32)
    return render(Scene(liver=[Layer("liver", shape, 100.0)]), [], flat, background, scanner).hu


def test_thick_slices_average_over_their_thickness() -> None:
    thin = ball(replace(SCANNER, thickness=1.0, first=-14.5, slices=30), 12.5)
    thick = ball(replace(SCANNER, thickness=5.0, first=-12.5, slices=6), 12.5)
    averaged = thin.reshape(6, 5, 128, 128).mean(axis=1)
    assert np.abs(thick - averaged).max() < 12
    assert np.abs(thick - averaged).mean() < 0.2
    # the ball ends in the middle of the outermost slices, which extend from 10 to 15 mm
    assert 35 < thick[0].max() < 65
    assert 35 < thick[5].max() < 65
    assert thick[2].max() > 99


def test_total_signal_is_the_volume() -> None:
    scanner = replace(SCANNER, thickness=1.0, first=-19.5, slices=40)
    measured = ball(scanner, 12.0).sum() / 100 * scanner.pixel**2
    assert measured == pytest.approx(4 / 3 * np.pi * 12.0**3, rel=0.08)


def test_edges_are_a_pixel_wide_and_the_point_spread_softens_them() -> None:
    row = ball(replace(SCANNER, first=0.0, slices=1), 15.0)[0, 64]
    between = np.count_nonzero((row > 5) & (row < 95))
    assert 2 <= between <= 8
    step = np.zeros((1, 64, 64), dtype=np.float32)
    step[..., 32:] = 100
    soft = blur_in_plane(step, SCANNER)
    assert 0 < soft[0, 10, 31] < 50 < soft[0, 10, 32] < 100


def test_rounding_stays_in_the_scanner_range() -> None:
    stored = to_int16(np.array([-5000.0, -0.6, 0.4, 9000.0]))
    assert stored.dtype == np.int16
    assert stored.tolist() == [-1024, -1, 0, 3071]


def test_affine_runs_to_left_back_and_head() -> None:
    affine = SCANNER.affine
    assert np.diag(affine)[:3].tolist() == [-0.75, -0.75, 2.0]
    assert affine[:3, 3].tolist() == [-SCANNER.x[0], -SCANNER.y[0], -10.0]
