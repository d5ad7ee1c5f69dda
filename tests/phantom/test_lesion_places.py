"""Number and positions of lesions in phantoms."""

from __future__ import annotations

import numpy as np
import pytest

from liverseg.phantom.fields import Field, Lattice, Region, ellipsoid
from liverseg.phantom.lesions import draw_diameters, place_lesions
from liverseg.synthesis import Surroundings

AROUND = Surroundings(110.0, 165.0)
REGION = Region(Lattice((-80.0, -80.0, -80.0), 4.0, (41, 41, 41)))
NOTHING = REGION.field(np.full(REGION.shape, 1000.0))


@pytest.fixture(scope="module")
def liver() -> Field:
    return REGION.field(ellipsoid(REGION, (0, 0, 0), (70, 60, 65)))


def test_no_lesion_is_in_the_gallbladder(liver: Field) -> None:
    gallbladder = REGION.field(ellipsoid(REGION, (0, -30, 0), (25, 25, 25)))
    rng = np.random.default_rng(0)
    for _ in range(40):
        for lesion in place_lesions(rng, ["cyst"], [12.0], liver, gallbladder, AROUND):
            assert np.linalg.norm(np.subtract(lesion.centre, (0, -30, 0))) > 25


def test_lesions_are_separate_and_in_the_liver(liver: Field) -> None:
    rng = np.random.default_rng(0)
    lesions = place_lesions(rng, ["metastasis"] * 6, [20.0] * 6, liver, NOTHING, AROUND)
    assert len(lesions) >= 4
    for number, lesion in enumerate(lesions):
        z, y, x = (np.array([c]) for c in lesion.centre)
        assert liver.at(z, y, x)[0] < 0
        for other in lesions[:number]:
            apart = np.linalg.norm(np.subtract(lesion.centre, other.centre))
            assert apart > lesion.shape.radius + other.shape.radius


def test_annotated_patients_have_a_lesion_that_can_be_seen_and_others_may_have_none() -> None:
    rng = np.random.default_rng(0)
    annotated = [draw_diameters(rng, 5.0, True) for _ in range(300)]
    assert min(map(len, annotated)) == 1
    assert all(diameters[0] >= 11 and min(diameters) >= 5 for diameters in annotated)
    free = sum(not draw_diameters(rng, 5.0, False) for _ in range(1000))
    assert 70 <= free <= 130  # one in ten
