"""Shapes of synthetic lesions, compared with real lesions."""

from __future__ import annotations

import numpy as np
import pytest

from liverseg.synthesis import draw_shape


@pytest.fixture(scope="module")
def measured() -> dict[str, np.ndarray]:
    """Return elongation, compactness and size of 150 shapes on voxels of 1.2 × .8 × .8 mm."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(150):
        diameter = float(np.clip(10.5 * np.exp(0.7 * rng.standard_normal()), 8, 40))
        shape = draw_shape(rng, diameter)
        z, y = np.arange(-shape.reach, shape.reach, 1.2), np.arange(-shape.reach, shape.reach, 0.8)
        inside = shape.distance(shape.round_frame(z, y, y)) < 0
        found = np.argwhere(inside)
        box = (found.max(axis=0) - found.min(axis=0) + 1) * (1.2, 0.8, 0.8)
        volume = len(found) * 1.2 * 0.8 * 0.8
        reached = bool(inside[[0, -1]].any() or inside[:, [0, -1]].any() or inside[:, :, [0, -1]].any())
        rows.append((box.max() / box.min(), volume / box.prod(), np.cbrt(6 * volume / np.pi) / diameter, reached))
    return dict(zip(("elongation", "compactness", "size", "reached"), np.array(rows).T, strict=True))


def test_elongation_is_that_of_real_lesions(measured: dict[str, np.ndarray]) -> None:
    low, median, high = np.percentile(measured["elongation"], [25, 50, 75])
    assert low == pytest.approx(1.22, abs=0.12)
    assert median == pytest.approx(1.39, abs=0.12)
    assert high == pytest.approx(1.82, abs=0.25)


def test_compactness_is_that_of_real_lesions(measured: dict[str, np.ndarray]) -> None:
    low, median, high = np.percentile(measured["compactness"], [25, 50, 75])
    assert low == pytest.approx(0.30, abs=0.06)
    assert median == pytest.approx(0.38, abs=0.05)
    assert high == pytest.approx(0.45, abs=0.05)


def test_the_volume_is_that_of_the_ball(measured: dict[str, np.ndarray]) -> None:
    assert np.median(measured["size"]) == pytest.approx(1, abs=0.05)
    assert 0.75 < measured["size"].min() < measured["size"].max() < 1.25


def test_shapes_stay_within_their_reach(measured: dict[str, np.ndarray]) -> None:
    assert measured["reached"].mean() < 0.02
