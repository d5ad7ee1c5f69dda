"""Lesions: each type's appearance before noise, their number, and their place."""

from __future__ import annotations

import numpy as np
import pytest

from liverseg.labels import LESION_TYPES
from liverseg.phantom import difficulty
from liverseg.phantom.fields import Field, Lattice, Region, ellipsoid
from liverseg.phantom.lesions import Lesion, draw_lesions, lesion_types_of_patient

LIVER_HU, VESSEL_HU = 110.0, 165.0
REGION = Region(Lattice((-80.0, -80.0, -80.0), 4.0, (41, 41, 41)))
NOTHING = REGION.field(np.full(REGION.shape, 1000.0))


@pytest.fixture(scope="module")
def liver() -> Field:
    return REGION.field(ellipsoid(REGION, (0, 0, 0), (70, 60, 65)))


def draw(liver: Field, kind: str, count: int = 24) -> list[Lesion]:
    rng = np.random.default_rng(3)
    return [draw_lesions(rng, [kind], liver, NOTHING, LIVER_HU, VESSEL_HU, 6.0)[0] for _ in range(count)]


def seen(lesion: Lesion) -> tuple[np.ndarray, np.ndarray]:
    axes = [np.arange(c - lesion.reach, c + lesion.reach, 0.8) for c in reversed(lesion.centre)]
    return lesion.evaluate(*axes, 0.8)


def test_cysts_are_homogeneous_and_near_water(liver: Field) -> None:
    for lesion in draw(liver, "cyst"):
        share, hu = seen(lesion)
        inside = hu[share > 0.9]
        assert -2 <= inside.mean() <= difficulty.CYST_THICK_HU[1]
        assert inside.std() < 1
        assert lesion.margin == 0


@pytest.mark.integration
def test_hemangiomas_are_wholly_bright_or_have_bright_nodules_at_the_edge(liver: Field) -> None:
    nodular = 0
    for lesion in draw(liver, "hemangioma"):
        share, hu = seen(lesion)
        bright = (share > 0.9) & (hu > LIVER_HU + 20)
        assert bright.any()
        if len(lesion.nodules):
            nodular += 1
            assert 0.03 < bright.sum() / (share > 0.9).sum() < 0.75
            edge, middle = (share > 0.9), _core(lesion, share)
            assert hu[edge & ~middle].mean() > hu[middle].mean()
    assert 8 <= nodular <= 24


def _core(lesion: Lesion, share: np.ndarray) -> np.ndarray:
    grid = np.indices(share.shape) * 0.8 - lesion.reach
    return np.sqrt((grid**2).sum(axis=0)) < 0.4 * lesion.radius


@pytest.mark.integration
def test_metastases_fade_into_the_liver_and_many_have_a_rim(liver: Field) -> None:
    rims = 0
    for lesion in draw(liver, "metastasis"):
        assert lesion.margin > 1.0
        share, hu = seen(lesion)
        if lesion.rim:
            rims += 1
            middle = _core(lesion, share)
            assert hu[(share > 0.5) & ~middle].mean() > hu[middle].mean()
    assert rims >= 12


def test_no_lesion_lies_in_the_gallbladder(liver: Field) -> None:
    gallbladder = REGION.field(ellipsoid(REGION, (0, -30, 0), (25, 25, 25)))
    rng = np.random.default_rng(0)
    for _ in range(40):
        for lesion in draw_lesions(rng, ["cyst"], liver, gallbladder, LIVER_HU, VESSEL_HU, 6.0):
            assert np.linalg.norm(np.subtract(lesion.centre, (0, -30, 0))) > 25


def test_lesions_keep_apart_and_lie_in_the_liver(liver: Field) -> None:
    lesions = draw_lesions(np.random.default_rng(0), ["metastasis"] * 6, liver, NOTHING, LIVER_HU, VESSEL_HU, 6.0)
    assert len(lesions) >= 4
    for number, lesion in enumerate(lesions):
        x, y, z = (np.array([c]) for c in lesion.centre)
        assert liver.at(z, y, x)[0] < 0
        for other in lesions[:number]:
            assert np.linalg.norm(np.subtract(lesion.centre, other.centre)) > lesion.radius + other.radius


def test_one_to_six_lesions_with_the_main_type_first() -> None:
    rng = np.random.default_rng(0)
    for main in LESION_TYPES:
        drawn = [lesion_types_of_patient(rng, main) for _ in range(200)]
        assert {kinds[0] for kinds in drawn} == {main}
        assert all(1 <= len(kinds) <= 6 for kinds in drawn)
        assert any(len(set(kinds)) > 1 for kinds in drawn)
