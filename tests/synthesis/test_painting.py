"""Painting of lesions and distractors: noise is kept, nothing outside the liver changes, repeated slices agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from liverseg.synthesis import Lesion, Surroundings, draw_appearance, draw_shape
from liverseg.synthesis.distractors import DISTRACTORS, draw_distractor
from liverseg.synthesis.painting import Scan, measure_surroundings
from liverseg.synthesis.placement import (
    PaintedObject,
    add_distractors,
    add_lesions,
    depth_mm,
    detectability,
    is_visible,
    reader_outline,
)

NOISE = 12.0


def make_scan(slices: int = 3, seed: int = 0, positions: tuple[float, ...] | None = None, mm: float = 1.2) -> Scan:
    """Return a liver of 110 HU with some vessels of 165 HU in fat of -100 HU, 110 × 90 pixels, with noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:110, :120]
    liver = ((y - 55) / 45) ** 2 + ((x - 60) / 52) ** 2 < 1
    plane = np.where(liver, 110.0, -100.0)
    for row, column in ((30, 40), (60, 80), (75, 50), (50, 60), (40, 85)):
        plane[(y - row) ** 2 + (x - column) ** 2 < 30] = 165
    hu = np.repeat(plane[None], slices, axis=0) + NOISE * rng.standard_normal((slices, 110, 120))
    places = np.arange(slices) * 2.5 if positions is None else np.array(positions)
    around = Surroundings(110.0, 165.0, NOISE)
    return Scan(hu.astype(np.float32), np.repeat(liver[None], slices, axis=0), places, 2.5, (mm, mm), around)


def make_lesion(kind: str, diameter: float, centre: tuple[float, float, float], seed: int = 0) -> Lesion:
    rng = np.random.default_rng(seed)
    shape = draw_shape(rng, diameter)
    return Lesion(kind, centre, shape, draw_appearance(rng, kind, shape, Surroundings(110.0, 165.0, NOISE)))


def test_surroundings_are_measured_in_the_scan() -> None:
    scan = make_scan()
    around = measure_surroundings(scan.hu, scan.liver)
    assert around is not None
    assert around.liver_hu == pytest.approx(110, abs=4)
    assert around.vessel_hu == pytest.approx(165, abs=12)
    assert around.noise_hu == pytest.approx(NOISE, rel=0.1)


def test_a_third_of_tumour_does_not_move_the_parenchyma() -> None:
    scan = make_scan()
    scan.hu[:, 60:90, 30:70] -= 60
    around = measure_surroundings(scan.hu, scan.liver)
    assert around is not None
    assert around.liver_hu == pytest.approx(110, abs=5)


def test_too_little_liver_cannot_be_measured() -> None:
    scan = make_scan()
    scan.liver[...] = False
    scan.liver[:, 50:58, 50:58] = True
    assert measure_surroundings(scan.hu, scan.liver) is None


@pytest.mark.parametrize("kind", ["cyst", "hemangioma", "metastasis"])
def test_the_noise_inside_a_lesion_is_that_around_it(kind: str) -> None:
    scan = make_scan(slices=1)
    before = scan.hu.copy()
    lesion = make_lesion(kind, 40.0, (0.0, 60.0, 72.0))
    painted = scan.paint(lesion)
    assert painted is not None
    box, share = painted
    inside = share > 0.95
    target = lesion.evaluate(*scan._axes(box)[0], 1.2)[1].reshape(-1, *inside.shape).mean(axis=0)[None]
    left = (scan.hu[box] - target.reshape(-1, *inside.shape[1:]).mean(axis=0))[inside]
    outside = before[box][0][(share < 0.01)[0] & scan.liver[box][0]]
    # a Gaussian filter removes the slowest part of the noise
    assert 0.75 * NOISE < left.std() < 1.15 * NOISE
    assert outside.std() > 0.8 * NOISE


def test_nothing_outside_the_liver_changes_but_its_edge() -> None:
    scan = make_scan()
    before = scan.hu.copy()
    scan.paint(make_lesion("cyst", 40.0, (2.5, 20.0, 72.0)))
    changed = np.abs(scan.hu - before) > 1e-3
    assert changed.any()
    rows, columns = np.nonzero(changed.any(axis=0))
    beyond = ~scan.liver[0][rows, columns]
    near = depth_mm(~scan.liver[0], (1.0, 1.0))[rows, columns][beyond]
    assert near.max(initial=0) < 2.3  # a pixel, diagonally too


def test_a_slice_that_is_repeated_shows_a_lesion_again() -> None:
    scan = make_scan(3, positions=(0.0, 0.0, 2.5))
    scan.hu[1] = scan.hu[0]
    scan.paint(make_lesion("metastasis", 12.0, (1.0, 60.0, 72.0)))
    np.testing.assert_array_equal(scan.hu[0], scan.hu[1])
    assert not np.array_equal(scan.hu[1], scan.hu[2])


def test_a_lesion_beyond_the_scan_is_not_painted() -> None:
    scan = make_scan()
    before = scan.hu.copy()
    assert scan.paint(make_lesion("cyst", 10.0, (80.0, 60.0, 72.0))) is None
    assert scan.paint(make_lesion("cyst", 10.0, (2.5, -90.0, 72.0))) is None
    np.testing.assert_array_equal(scan.hu, before)


@pytest.mark.parametrize("seed", range(4))
def test_lesions_cross_their_section_and_keep_apart(seed: int) -> None:
    scan = make_scan(seed=seed)
    depth = depth_mm(scan.liver[1], scan.pixel_mm)
    taken = np.zeros(scan.hu.shape, bool)
    rng = np.random.RandomState(seed)
    placed = add_lesions(rng, scan, ["cyst"] * 5, [18.0] * 5, depth, taken, section=1)
    assert len(placed) >= 3
    covered = np.zeros(scan.hu.shape)
    for lesion in placed:
        covered[lesion.box] += lesion.share >= 0.5
        slices = lesion.box[0]
        assert slices.start <= 1 < slices.stop
    assert covered.max() == 1
    assert (covered[~scan.liver] == 0).all()


@pytest.mark.parametrize("margin", [0.0, 2.0, 4.5])
def test_outlines_run_at_their_margin_outside_the_lesion(margin: float) -> None:
    shape, pixel_mm, centre = (3, 40, 30), (1.5, 1.0), (20, 25)  # near the last column, which cuts the outline off
    y, x = np.ogrid[:40, :30]
    distance = np.hypot((y - centre[0]) * pixel_mm[0], (x - centre[1]) * pixel_mm[1])
    box = (slice(1, 2), slice(15, 26), slice(18, 30))
    share = np.clip(0.5 - (distance - 5.0) / 3.0, 0, 1)[None, box[1], box[2]]
    where, inside = reader_outline(PaintedObject("cyst", box, share), shape, pixel_mm, margin)
    found = np.zeros(shape, bool)
    found[where] = inside
    assert not found[[0, 2]].any()
    assert found[1][distance < 5 + margin - 1.5].all()
    assert not found[1][distance > 5 + margin + 0.01].any()


def test_what_nobody_would_see_is_drawn_again_or_left_out() -> None:
    around = Surroundings(110.0, 165.0, NOISE)
    lesion = make_lesion("metastasis", 8.0, (2.5, 60.0, 72.0))
    look = lesion.appearance
    contrast = max(110 - look.centre_hu, abs(110 - look.outer_hu))
    seen = contrast * np.sqrt(np.pi * (lesion.shape.radius**2 - 2.0**2)) / (2 * NOISE)
    assert detectability(lesion, around, offset_mm=2.0) == pytest.approx(seen)
    assert detectability(lesion, around, offset_mm=9.0) == 0
    large = make_lesion("cyst", 60.0, (2.5, 60.0, 72.0))
    seen = (110 - large.appearance.centre_hu) * np.sqrt(np.pi) * 5 / (2 * NOISE)
    assert detectability(large, around) == pytest.approx(seen)

    for least in (0.0, 12.0, 1000.0):
        scan = make_scan()
        depth, taken = depth_mm(scan.liver[1], scan.pixel_mm), np.zeros(scan.hu.shape, bool)
        before, rng = scan.hu.copy(), np.random.RandomState(3)
        placed = add_lesions(rng, scan, ["metastasis"] * 6, [9.0] * 6, depth, taken, 1, least)
        changes = [np.abs(scan.hu - before)[lesion.box][lesion.share > 0.9] for lesion in placed]
        assert (len(placed) > 2) == (least < 1000)
        if least == 12:  # at 9 mm: 36 HU against a noise of 12
            assert min(np.median(change) for change in changes if len(change)) > 15


def test_lesions_find_no_room_where_all_is_taken() -> None:
    scan = make_scan()
    depth = depth_mm(scan.liver[1], scan.pixel_mm)
    taken = np.ones(scan.hu.shape, bool)
    assert add_lesions(np.random.RandomState(0), scan, ["cyst"], [18.0], depth, taken, section=1) == []


@pytest.mark.parametrize("kind", DISTRACTORS)
def test_distractors_change_the_liver_by_what_they_say(kind: str) -> None:
    scan = make_scan()
    before = scan.hu.copy()
    rng = np.random.RandomState(5)
    distractor = draw_distractor(rng, kind, (2.5, 40.0, 60.0), np.array([1.0, 0.0]))
    painted = scan.paint_distractor(distractor)
    assert painted is not None
    box, share = painted
    np.testing.assert_allclose(scan.hu[box] - before[box], share * distractor.change_hu, atol=0.01)
    assert share.max() > 0.5


def test_vessels_stay_in_the_slice_where_its_neighbours_repeat_it() -> None:
    rng = np.random.RandomState(0)
    y = x = np.arange(-40.0, 40.0, 2.0)
    for _ in range(20):
        vein = draw_distractor(rng, "vein", (0.0, 0.0, 0.0), np.array([1.0, 0.0]), in_plane=True)
        share = vein.share(np.array([0.0]), y, x, 1.0)[0] > 0.5
        rows, columns = np.nonzero(share)
        # long, not a disc
        assert max(np.ptp(rows, axis=0), np.ptp(columns)) * 2 > 10


def test_distractors_are_in_the_section() -> None:
    scan = make_scan()
    depth = depth_mm(scan.liver[1], scan.pixel_mm)
    placed = add_distractors(np.random.RandomState(1), scan, 6, depth, 1, in_plane=False)
    assert len(placed) == 6
    assert {distractor.kind for distractor in placed} <= set(DISTRACTORS)
    with pytest.raises(ValueError, match="distractor 'bone'; allowed: vein, vessel, wedge"):
        draw_distractor(np.random.RandomState(1), "bone", (0, 0, 0), np.array([1.0, 0.0]))


def test_depth_is_the_distance_to_the_surface() -> None:
    liver = np.zeros((20, 30), bool)
    liver[5:16, 4:25] = True
    depth = depth_mm(liver, (2.0, 1.0))
    assert depth[10, 14] == 11  # ten columns to the side, where a row is 2 mm
    assert depth[5, 14] == 2
    assert (depth[~liver] == 0).all()
    assert (depth_mm(np.zeros((4, 4), bool), (1.0, 1.0)) == 0).all()


@pytest.mark.parametrize(("contrast", "seen"), [(-60.0, True), (-4.0, False)])
def test_a_lesion_is_visible_if_its_change_exceeds_the_noise_of_its_mean(contrast: float, seen: bool) -> None:
    scan = make_scan()
    before = scan.hu.copy()
    lesion = make_lesion("cyst", 20.0, (2.5, 96.0, 90.0))  # away from vessels, which a lesion hides
    flat = replace(lesion.appearance, centre_hu=110 + contrast, outer_hu=110 + contrast, texture_hu=0.0)
    painted = scan.paint(replace(lesion, appearance=flat))
    assert painted is not None
    # the noise is kept, so that the change is that of the lesion alone
    assert is_visible(PaintedObject("cyst", *painted), scan.hu - before, scan) == seen
