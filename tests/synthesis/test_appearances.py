"""Appearance of each type; types differ only in their radiological appearance."""

from __future__ import annotations

import numpy as np
import pytest

from liverseg.labels import LESION_TYPES
from liverseg.synthesis import Appearance, Lesion, Surroundings, draw_appearance, draw_shape, match_contrast
from liverseg.synthesis.appearance import match_viable_tissue

AROUND = Surroundings(110.0, 165.0)


def draw(kind: str, count: int = 60, diameter: float = 24.0) -> list[Lesion]:
    rng = np.random.default_rng(3)
    lesions = []
    for _ in range(count):
        shape = draw_shape(rng, diameter)
        lesions.append(Lesion(kind, (5.0, 0.0, -3.0), shape, draw_appearance(rng, kind, shape, AROUND)))
    return lesions


def seen(lesion: Lesion) -> tuple[np.ndarray, np.ndarray]:
    axes = [np.arange(c - lesion.reach, c + lesion.reach, 1.5) for c in lesion.centre]
    return lesion.evaluate(*axes, 0.8)


def core(lesion: Lesion, share: np.ndarray) -> np.ndarray:
    grid = np.indices(share.shape) * 1.5 - lesion.reach
    return np.sqrt((grid**2).sum(axis=0)) < 0.4 * lesion.shape.radius


def test_cysts_are_even_and_near_water() -> None:
    thick = 0
    for lesion in draw("cyst"):
        share, hu = seen(lesion)
        inside = hu[share > 0.9]
        assert -2 <= inside.mean() <= 47
        assert inside.std() < 6
        thick += inside.mean() > 20
    assert 4 <= thick <= 22  # a fifth


def test_hemangiomas_have_nodules_as_bright_as_vessels() -> None:
    for lesion in draw("hemangioma"):
        share, hu = seen(lesion)
        bright = (share > 0.9) & (hu > 110 + 0.6 * 55)
        assert bright.any()
        middle = core(lesion, share) & (share > 0.9)
        assert hu[bright].mean() > hu[middle].mean()
        assert 20 <= lesion.appearance.centre_hu <= 90


def test_small_hemangiomas_are_mostly_bright_throughout() -> None:
    filled = [len(lesion.appearance.nodules) == 0 for lesion in draw("hemangioma", 200, 9.0)]
    assert np.mean(filled) == pytest.approx(0.75, abs=0.1)


def test_hemangiomas_on_one_slice_have_nodules_whatever_their_size() -> None:
    rng = np.random.default_rng(0)
    shape = draw_shape(rng, 9.0)
    assert all(len(draw_appearance(rng, "hemangioma", shape, AROUND, flat=True).nodules) for _ in range(50))


def test_metastases_are_darker_than_the_liver_and_most_have_a_rim() -> None:
    rims = 0
    for lesion in draw("metastasis"):
        look = lesion.appearance
        assert look.centre_hu <= 110 - 12
        share, hu = seen(lesion)
        if look.rim_mm:
            rims += 1
            middle = core(lesion, share)
            assert hu[(share > 0.5) & ~middle].mean() > hu[middle & (share > 0.5)].mean()
    assert 24 <= rims <= 48  # 60 %


def test_necrotic_metastases_have_a_rim_that_cysts_lack() -> None:
    looks = [lesion.appearance for lesion in draw("metastasis", 400)]
    necrotic = [look for look in looks if look.centre_hu <= 30]
    assert len(necrotic) / len(looks) == pytest.approx(0.35, abs=0.07)
    assert all(look.rim_mm > 0 and look.outer_hu >= look.centre_hu + 10 for look in necrotic)


def test_metastases_of_a_patient_resemble_each_other() -> None:
    rng = np.random.default_rng(0)
    first = draw("metastasis", 1)[0].appearance
    others = [match_contrast(rng, lesion.appearance, first, AROUND) for lesion in draw("metastasis")]
    assert max(abs(other.centre_hu - first.centre_hu) for other in others) <= 10
    for lesion, other in zip(draw("metastasis"), others, strict=True):
        appearance = lesion.appearance
        assert other.outer_hu - other.centre_hu == pytest.approx(appearance.outer_hu - appearance.centre_hu)


def test_matched_viable_tissue_leaves_necrosis_and_rims_plausible() -> None:
    rng = np.random.default_rng(0)
    looks = [lesion.appearance for lesion in draw("metastasis")]
    for first in looks[:20]:
        for drawn in looks:
            matched = match_viable_tissue(rng, drawn, first, AROUND)
            assert matched.centre_hu <= 98 and matched.outer_hu <= 98 + 30
            if matched.centre_hu < 35:  # a necrotic centre always has a rim of viable tissue
                assert drawn.centre_hu <= 30 and matched.rim_mm > 0 and matched.outer_hu >= matched.centre_hu + 10
            else:
                viable = first.outer_hu if first.centre_hu <= 30 else first.centre_hu
                assert abs(matched.centre_hu - viable) <= 10 or matched.centre_hu == 98


def test_edges_and_texture_do_not_depend_on_the_type() -> None:
    def drawn(kind: str) -> list[Appearance]:
        return [lesion.appearance for lesion in draw(kind, 400)]

    edges = {kind: [look.edge_mm for look in drawn(kind)] for kind in LESION_TYPES}
    textures = {kind: [look.texture_hu for look in drawn(kind)] for kind in LESION_TYPES}
    for values in (edges, textures):
        quartiles = [np.percentile(values[kind], [25, 50, 75]) for kind in LESION_TYPES]
        for other in quartiles[1:]:
            np.testing.assert_allclose(other, quartiles[0], rtol=0.25)


def test_lesions_are_relative_to_their_own_scan() -> None:
    rng = np.random.default_rng(0)
    fatty = Surroundings(60.0, 110.0)
    shape = draw_shape(rng, 24.0)
    bright = [draw_appearance(rng, "hemangioma", shape, fatty).outer_hu for _ in range(50)]
    assert 95 <= min(bright) <= max(bright) <= 115
    dark = [draw_appearance(rng, "metastasis", shape, fatty).centre_hu for _ in range(50)]
    assert max(dark) <= 48


def test_an_unknown_type_is_refused() -> None:
    shape = draw_shape(np.random.default_rng(0), 10.0)
    with pytest.raises(ValueError, match="lesion type 'abscess'; allowed: cyst, hemangioma, metastasis"):
        draw_appearance(np.random.default_rng(0), "abscess", shape, AROUND)


def test_evaluation_does_not_depend_on_the_grid() -> None:
    lesion = draw("metastasis", 1)[0]
    z = y = x = np.arange(-12.0, 12.0, 1.0)
    share, hu = lesion.evaluate(z, y, x, 0.8)
    again, same = lesion.evaluate(z[3:4], y[5:9], x[::2], 0.8)
    np.testing.assert_allclose(again, share[3:4, 5:9, ::2], atol=1e-5)
    np.testing.assert_allclose(same, hu[3:4, 5:9, ::2], atol=1e-3)
