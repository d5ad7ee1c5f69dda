"""Surface distances of shapes whose distances are known."""

import numpy as np
import pytest

from liverseg.evaluation.surfaces import surface_distances


def cube(first, last, size=12):
    mask = np.zeros((size,) * 3, bool)
    mask[first:last, first:last, first:last] = True
    return mask


def test_the_same_mask_is_at_no_distance():
    assert surface_distances(cube(2, 6), cube(2, 6), (1, 1, 1)) == (0, 0)


def test_one_voxel_against_another():
    one, two = np.zeros((5, 9), bool), np.zeros((5, 9), bool)
    one[2, 1] = two[2, 7] = True
    assert surface_distances(one, two, (1.0, 0.5)) == (3.0, 3.0)


def test_a_shift_along_the_slices():
    one, two = cube(2, 5), np.roll(cube(2, 5), 1, axis=0)
    average, largest = surface_distances(one, two, (4.0, 1.0, 1.0))
    assert largest == 4.0
    assert 0 < average < 4.0


def test_one_mask_inside_another_by_two_voxels():
    average, largest = surface_distances(cube(2, 10), cube(4, 8), (1, 1, 1))
    assert largest == pytest.approx(np.sqrt(12))  # from corner to corner
    assert 2 <= average < largest


def test_a_mask_that_fills_its_image_has_a_surface():
    assert surface_distances(np.ones((3, 3), bool), np.ones((3, 3), bool), (1, 1)) == (0, 0)


def test_an_empty_mask_has_none():
    with pytest.raises(ValueError, match="empty mask"):
        surface_distances(np.zeros((3, 3), bool), np.ones((3, 3), bool), (1, 1))
