"""Distances to the liver's surface, compared with distances of all pairs of voxels."""

import numpy as np
import pytest

from liverseg.inference.measurements import LiverSurface, boundary_voxels

STEPS = np.array([[0.3, 0.0, 2.5], [0.0, 0.8, 0.1], [0.7, 0.05, 0.0]])
INSIDE = np.zeros((3, 2), bool)


def liver():
    mask = np.zeros((9, 14, 16), bool)
    mask[1:8, 2:12, 2:14] = True
    return mask


def by_hand(mask, voxels, steps):
    padded = np.pad(mask, 1)
    near = np.zeros_like(mask)
    for axis in range(3):
        for shift in (-1, 1):
            near |= ~np.roll(padded, shift, axis)[1:-1, 1:-1, 1:-1]
    outer = np.argwhere(near & mask) @ steps
    return np.linalg.norm((voxels @ steps)[:, None] - outer[None], axis=2).min()


@pytest.mark.parametrize("steps", [np.diag([2.5, 0.8, 0.7]), STEPS])
def test_the_least_distance_in_mm(steps):
    surface = LiverSurface(liver(), steps, INSIDE)
    deep = np.array([[4, 6, 7], [4, 7, 7]])
    assert surface.distance_mm(deep) == pytest.approx(by_hand(liver(), deep, steps))
    assert surface.distance_mm(deep) > 0
    assert surface.distance_mm(np.array([[4, 6, 7], [4, 2, 7]])) == 0


@pytest.mark.parametrize("steps", [np.diag([2.5, 0.8, 0.7]), STEPS])
def test_the_surface_nearest_to_a_lesion_is_not_that_nearest_to_its_middle(steps):
    surface, random = LiverSurface(liver(), steps, INSIDE), np.random.default_rng(1)
    for _ in range(50):  # scattered voxels, few of them deep in the liver
        voxels = random.integers([2, 3, 3], [7, 11, 13], (random.integers(1, 5), 3))
        assert surface.distance_mm(voxels) == pytest.approx(by_hand(liver(), voxels, steps))


def test_a_surface_voxel_is_at_the_surface_whatever_rounding_does():
    random = np.random.default_rng(0)
    steps = np.linalg.qr(random.normal(size=(3, 3)))[0] * [[2.5], [0.7], [0.7]]
    surface = LiverSurface(liver(), steps, INSIDE)
    assert [surface.distance_mm(np.array([voxel])) for voxel in ([1, 2, 2], [4, 2, 7], [7, 11, 13], [3, 5, 13])] == [
        0
    ] * 4


def test_a_hole_within_is_no_surface_and_a_notch_is():
    steps = np.diag([2.0, 1.0, 1.0])
    deep = np.array([[4, 7, 8]])
    free = LiverSurface(liver(), steps, INSIDE).distance_mm(deep)
    hollow = liver()
    hollow[4, 7, 9] = False
    assert LiverSurface(hollow, steps, INSIDE).distance_mm(deep) == free
    hollow[4, 7, 9:] = False
    assert LiverSurface(hollow, steps, INSIDE).distance_mm(deep) == 0


def test_a_vessel_that_ends_with_the_scan_is_no_surface():
    mask = np.ones((6, 11, 12), bool)
    mask[:, 5, 6] = False
    cut = np.ones((3, 2), bool)
    cut[1, 0] = False
    surface = LiverSurface(mask, np.eye(3), cut)
    assert surface.distance_mm(np.array([[3, 5, 5]])) == 5


def test_a_liver_in_a_complete_scan_has_its_surface():
    deep = np.array([[4, 6, 7], [4, 7, 7]])
    surface = LiverSurface(liver(), STEPS, np.ones((3, 2), bool))
    assert surface.distance_mm(deep) == pytest.approx(by_hand(liver(), deep, STEPS))
    assert surface.distance_mm(np.array([[1, 6, 7]])) == 0


def test_where_the_scan_ends_the_liver_does_not():
    mask = np.ones((3, 5, 6), bool)
    at_edge = np.array([[0, 0, 0]])
    assert LiverSurface(mask, np.eye(3), np.ones((3, 2), bool)).distance_mm(at_edge) == np.inf
    one_side = np.ones((3, 2), bool)
    one_side[2, 1] = False
    assert LiverSurface(mask, np.eye(3), one_side).distance_mm(at_edge) == 5


@pytest.mark.parametrize("steps", [np.diag([2.5, 0.8, 0.7]), STEPS])
def test_the_shell_of_a_lesion_is_as_near_as_all_of_it(steps):
    surface = LiverSurface(liver(), steps, INSIDE)
    random = np.random.default_rng(0)
    for _ in range(20):
        lesion = np.zeros((9, 14, 16), bool)
        corner, extent = random.integers(2, 6, 3), random.integers(2, 7, 3)
        lesion[tuple(slice(at, at + length) for at, length in zip(corner, extent, strict=True))] = True
        lesion &= liver() & (random.random(lesion.shape) < 0.97)
        assert len(boundary_voxels(lesion)) <= lesion.sum()
        assert surface.distance_mm(boundary_voxels(lesion)) == surface.distance_mm(np.argwhere(lesion))
    solid = np.ones((5, 6, 7), bool)
    assert len(boundary_voxels(solid)) == 5 * 6 * 7 - 3 * 4 * 5
