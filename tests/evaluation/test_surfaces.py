"""Surface distances of shapes with known distances."""

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, gaussian_filter
from scipy.spatial.distance import cdist

from liverseg.evaluation.lesions import surface_distances


def cube(first, last, size=12):
    mask = np.zeros((size,) * 3, bool)
    mask[first:last, first:last, first:last] = True
    return mask


def test_the_same_mask_is_at_no_distance():
    assert surface_distances(cube(2, 6), cube(2, 6), (1, 1, 1)) == (0, 0)


def test_one_voxel_against_another():
    first, second = np.zeros((5, 9), bool), np.zeros((5, 9), bool)
    first[2, 1] = second[2, 7] = True
    assert surface_distances(first, second, (1.0, 0.5)) == (3.0, 3.0)


def test_a_shift_along_the_slices():
    first, second = cube(2, 5), np.roll(cube(2, 5), 1, axis=0)
    average, largest = surface_distances(first, second, (4.0, 1.0, 1.0))
    assert largest == 4.0
    assert 0 < average < 4.0


def test_one_mask_inside_another_by_two_voxels():
    average, largest = surface_distances(cube(2, 10), cube(4, 8), (1, 1, 1))
    assert largest == pytest.approx(np.sqrt(12))  # from corner to corner
    assert 2 <= average < largest


def test_a_mask_that_fills_its_image_has_a_surface():
    assert surface_distances(np.ones((3, 3), bool), np.ones((3, 3), bool), (1, 1)) == (0, 0)


@pytest.mark.parametrize(("shape", "spacing"), [((20, 24), (0.7, 1.3)), ((9, 14, 12), (4.0, 0.8, 0.6))])
@pytest.mark.parametrize("seed", range(4))
def test_every_surface_voxel_against_every_other(shape, spacing, seed):
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(size=shape), 2)
    first = smooth > np.quantile(smooth, 0.8)
    second = (smooth + 0.5 * gaussian_filter(rng.normal(size=shape), 2)) > np.quantile(smooth, 0.75)
    first[0, 0] = second[-1, -1] = True  # both reach the border
    surfaces = [np.argwhere(mask & ~binary_erosion(mask)) * np.array(spacing) for mask in (first, second)]
    apart = cdist(*surfaces)
    nearest = np.concatenate([apart.min(axis=1), apart.min(axis=0)])
    assert surface_distances(first, second, spacing) == pytest.approx((nearest.mean(), nearest.max()), rel=1e-5)
    assert nearest.max() > min(spacing)


def test_an_empty_mask_has_none():
    with pytest.raises(ValueError, match="empty mask"):
        surface_distances(np.zeros((3, 3), bool), np.ones((3, 3), bool), (1, 1))
