"""Longest axial diameter and perpendicular, compared with shapes measured by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import ConvexHull

from liverseg.inference.diameters import axial_diameters

ROW, COLUMN = np.array([0.0, 0.8, 0.0]), np.array([0.5, 0.0, 0.0])


def drawn(inside, row, column, half=70):
    """Return a one-slice mask of the points (x, y, z mm) of a plane for which `inside` is true."""
    i, j = np.meshgrid(np.arange(-half, half + 1), np.arange(-half, half + 1), indexing="ij")
    return inside(i[..., None] * row + j[..., None] * column)[None]


def test_one_voxel_and_one_row():
    diameters = axial_diameters(np.ones((1, 1, 1), bool), ROW, COLUMN)
    assert (diameters.longest_mm, diameters.perpendicular_mm) == pytest.approx((0.8, 0.5))
    row = axial_diameters(np.ones((1, 1, 9), bool), ROW, COLUMN)
    assert (row.longest_mm, row.perpendicular_mm) == pytest.approx((4.5, 0.8))


def test_box():
    # through the middles of the corner voxels' edges: (40 · 0.8, 29 · 0.5) mm
    found = axial_diameters(np.ones((1, 40, 30), bool), ROW, COLUMN)
    assert found.longest_mm == pytest.approx(np.hypot(40 * 0.8, 29 * 0.5), abs=1e-6)
    # across the rectangle at a right angle to its diagonal: width / cos(angle of the diagonal to the long side)
    assert found.perpendicular_mm == pytest.approx(15 / np.cos(np.arctan2(29 * 0.5, 32)), rel=0.03)


def test_sphere_is_measured_at_its_equator():
    z, y, x = np.meshgrid(np.arange(-12, 13) * 2.0, np.arange(-30, 31) * 0.8, np.arange(-45, 46) * 0.5, indexing="ij")
    found = axial_diameters(z**2 + (y - 0.3) ** 2 + (x + 0.1) ** 2 < 20**2, ROW, COLUMN)
    assert found.slice == 12
    assert found.longest_mm == pytest.approx(40, abs=0.8)
    assert found.perpendicular_mm == pytest.approx(40, abs=0.8)


@settings(max_examples=40, deadline=None)
@given(
    angle=st.floats(0, np.pi),
    tilt=st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)),
    spacing=st.tuples(st.floats(0.4, 1.2), st.floats(0.4, 1.2)),
    shear=st.floats(-0.3, 0.3),
)
def test_ellipse_under_anisotropic_oblique_and_sheared_grids(angle, tilt, spacing, shear):
    a, b = tilt
    turn = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    turn = turn @ np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    row, column = turn @ [shear, 1, 0] * spacing[0], turn @ [1, 0, 0] * spacing[1]
    long, short = turn @ [np.cos(angle), np.sin(angle), 0], turn @ [-np.sin(angle), np.cos(angle), 0]
    mask = drawn(lambda point: ((point @ long) / 15) ** 2 + ((point @ short) / 6) ** 2 < 1, row, column, half=55)
    found = axial_diameters(mask, row, column)
    voxel = max(spacing) * 1.3
    assert found.longest_mm == pytest.approx(30, abs=voxel)
    assert found.perpendicular_mm == pytest.approx(12, abs=voxel)


def test_perpendicular_is_a_chord_not_the_extent():
    # a parallelogram with corners (±5, ±1) and (∓1, ±1): across its long diagonal it extends over 2.35 mm, but the two
    # corners are at different positions along it, and the longest chord, from a corner to the opposite side, is 2.04 mm
    step = np.array([0.0, 0.1, 0.0]), np.array([0.1, 0.0, 0.0])
    mask = drawn(lambda p: (abs(p[..., 1]) <= 1) & (abs(p[..., 0] - 2 * p[..., 1]) <= 3), *step)
    found = axial_diameters(mask, *step)
    assert found.longest_mm == pytest.approx(np.hypot(10, 2), abs=0.15)
    assert found.perpendicular_mm == pytest.approx(2.04, abs=0.15)


@pytest.mark.parametrize("edge", [0.5, 0.7, 0.75, 0.8, 0.85, 0.9, 1.1])
def test_three_voxels_around_a_corner(edge):
    mask = np.array([[[True, True], [True, False]]])
    found = axial_diameters(mask, edge * ROW / 0.8, edge * COLUMN / 0.5)
    assert found.perpendicular_mm == pytest.approx(10 / np.sqrt(45) * edge)


def chords(points):
    """Return, for each longest diameter of some points, the longest perpendicular chord of their hull."""
    hull = points[ConvexHull(points).vertices]
    apart = np.linalg.norm(hull[:, None] - hull[None], axis=2)
    for start, end in np.argwhere(apart > apart.max() - 1e-9):
        along = (hull[start] - hull[end]) / apart[start, end]
        turned = np.stack([hull @ along, hull @ [-along[1], along[0]]], axis=1)
        widest = 0.0
        for place in turned[:, 0]:
            cut = [corner[1] for corner in turned if abs(corner[0] - place) < 1e-9]
            for start, stop in zip(turned, np.roll(turned, -1, axis=0), strict=True):
                if min(start[0], stop[0]) < place < max(start[0], stop[0]):
                    cut.append(start[1] + (stop[1] - start[1]) * (place - start[0]) / (stop[0] - start[0]))
            widest = max(widest, max(cut) - min(cut))
        yield widest


@pytest.mark.parametrize("seed", range(60))
def test_perpendiculars_of_irregular_lesions(seed):
    random = np.random.default_rng(seed)
    mask = random.random((1, *random.integers(2, 7, 2))) < 0.6
    mask[0, 0, 0] = True
    edges = random.uniform(0.5, 1.0, 2) if seed % 2 else np.full(2, random.uniform(0.5, 1.0))
    found = axial_diameters(mask, np.array([0, edges[0], 0]), np.array([edges[1], 0, 0]))
    half = np.array([[0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5]])
    points = ((np.argwhere(mask[0])[:, None] + half) * edges).reshape(-1, 2)
    assert min(abs(chord - found.perpendicular_mm) for chord in chords(points)) < 1e-6


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    spacing=st.tuples(st.floats(0.4, 1.2), st.floats(0.4, 1.2)),
    shear=st.floats(-0.3, 0.3),
)
def test_the_ends_are_where_the_diameters_are(seed, spacing, shear):
    random = np.random.default_rng(seed)
    mask = random.random((2, *random.integers(2, 9, 2))) < 0.5
    mask[0, 0, 0] = True
    row, column = np.array([shear, 1.0, 0.2]) * spacing[0], np.array([1.0, 0.0, 0.1]) * spacing[1]
    found = axial_diameters(mask, row, column)
    long, short = (ends @ np.stack([row, column]) for ends in (found.longest_ends, found.perpendicular_ends))
    assert np.linalg.norm(long[1] - long[0]) == pytest.approx(found.longest_mm)
    assert np.linalg.norm(short[1] - short[0]) == pytest.approx(found.perpendicular_mm)
    assert (long[1] - long[0]) @ (short[1] - short[0]) == pytest.approx(0, abs=1e-6)
    # both ends of the longest are half a voxel from a voxel's centre, along a row or a column
    centres = np.argwhere(mask[found.slice])
    for end in found.longest_ends:
        assert np.abs(centres - end).sum(axis=1).min() == pytest.approx(0.5)
    # both ends of the perpendicular are on the hull, so within half a voxel of its extent
    assert (found.perpendicular_ends >= centres.min(axis=0) - 0.5 - 1e-9).all()
    assert (found.perpendicular_ends <= centres.max(axis=0) + 0.5 + 1e-9).all()


def test_a_mask_without_voxels_is_refused():
    with pytest.raises(ValueError, match="without voxels"):
        axial_diameters(np.zeros((1, 2, 2), bool), ROW, COLUMN)


def test_the_longest_of_many_slices_wins_and_the_first_of_equals():
    mask = np.zeros((5, 20, 20), bool)
    mask[1, 3:5, 3:5] = True
    mask[3, 2:12, 4] = True
    mask[4, 2:12, 9] = True
    assert axial_diameters(mask, ROW, COLUMN).slice == 3
