import math

import numpy as np
import pytest

from liverseg.followup.growth import Size, Trend, diameter_uncertainty_mm, measure_change, volume_uncertainty_ml
from liverseg.inference.diameters import axial_diameters
from liverseg.inference.lesion_measurements import MeasuredLesion


def lesion(longest=12.0, short=9.0, volume=0.8):
    numbers = dict.fromkeys(
        ("centroid_x_mm", "centroid_y_mm", "centroid_z_mm", "mean_hu", "std_hu", "surface_distance_mm"), 0.0
    )
    return MeasuredLesion(
        id=1, type="metastasis", probabilities={}, volume_ml=volume, longest_diameter_mm=longest,
        perpendicular_diameter_mm=short, diameter_slice=3, first_slice=2, last_slice=4, slices=3, touches_surface=False,
        liver_contrast_hu=-40.0, lesion_score=1.0, **numbers,
    )  # fmt: skip


def test_uncertainty_of_a_diameter_by_hand():
    # p = 0.6: 0.06 + 2 * 0.25 + (0.149071 * 25 / 20)^2
    assert diameter_uncertainty_mm(20.0, 0.6, 5.0) == pytest.approx(math.sqrt(0.06 + 0.5 + 0.0347222), abs=1e-4)
    # above 1 mm the outline is uncertain by half a pixel
    assert diameter_uncertainty_mm(20.0, 2.0, 1e-3) == pytest.approx(math.sqrt(4 / 6 + 2.0), abs=1e-4)


def test_uncertainty_of_a_volume_by_hand():
    # a ball of 10 mm radius: 4188.79 mm3, 1256.64 mm2
    expected = math.sqrt((1256.64 * 0.5) ** 2 + 1256.64 * 1.0 / 12) / 1000
    assert volume_uncertainty_ml(4.18879, 1.0, 1.0) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("thickness", [2.0, 5.0])
def test_digitised_balls_vary_by_less_than_the_uncertainty(thickness):
    """Two scans of one ball at random places on the grid differ by less than the limit in 95 % of cases or more."""
    rng = np.random.default_rng(4)
    pixel, diameter = 0.8, 14.0
    index = np.stack(np.meshgrid(*map(np.arange, (12, 30, 30)), indexing="ij"), axis=-1)
    found = []
    for _ in range(120):
        middle = np.array([6, 15, 15]) + rng.uniform(-0.5, 0.5, 3)
        mask = (((index - middle) * (thickness, pixel, pixel)) ** 2).sum(axis=-1) <= (diameter / 2) ** 2
        found.append(axial_diameters(mask, np.array([0, pixel, 0.0]), np.array([pixel, 0, 0.0])).longest_mm)
    uncertainty = diameter_uncertainty_mm(diameter, pixel, thickness)
    limit = measure_change(1, 1, uncertainty, uncertainty).limit
    assert np.mean(np.abs(np.subtract(found[::2], found[1::2])) <= limit) >= 0.95


@pytest.mark.parametrize(
    ("after", "trend"), [(12.0, Trend.STABLE), (13.9, Trend.STABLE), (14.1, Trend.GROWN), (9.9, Trend.SHRUNK)]
)
def test_trends_begin_beyond_the_limit(after, trend):
    change = measure_change(12.0, after, 0.6, 0.8)
    assert change.limit == pytest.approx(1.96)
    assert change.trend is trend
    assert change.difference == pytest.approx(after - 12.0)
    assert change.percent == pytest.approx(100 * (after - 12) / 12)


def test_parts_of_a_split_lesion_are_added():
    size = Size.of([lesion(12, 9, 0.8), lesion(7, 6, 0.2)], (3.0, 0.7, 0.8))
    assert (size.longest_mm, size.short_mm, size.volume_ml) == (19, 15, 1.0)
    single = [diameter_uncertainty_mm(diameter, 0.8, 3.0) for diameter in (12, 7)]
    assert size.longest_uncertainty_mm == pytest.approx(math.hypot(*single))
