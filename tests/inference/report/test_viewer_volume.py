"""The part of a CT in a page: cropped, windowed and reduced, with correct positions."""

import base64
import gzip
import math

import nibabel as nib
import numpy as np
import pytest

from liverseg.inference.output.report.viewer_volume import (
    MARGIN_MM,
    MOST_VOXELS,
    WINDOW_HU,
    ViewerVolume,
    ct_nifti,
    labels_nifti,
    viewer_volume,
)

ORDERS = [((0, 1, 2), ()), ((2, 0, 1), (0,)), ((1, 2, 0), (0, 2)), ((2, 1, 0), (0, 1, 2))]
HALF_A_LEVEL = (WINDOW_HU[1] - WINDOW_HU[0]) / 255 / 2


def decoded(packed):
    image = nib.Nifti1Image.from_bytes(gzip.decompress(packed))
    return np.asarray(image.dataobj), image.affine, image


def at_same_places(array, affine, volume):
    """Return the index in `volume` of every voxel of an image; check that it is an integer."""
    places = np.argwhere(np.ones(array.shape, bool))
    own = nib.affines.apply_affine(np.linalg.inv(volume.affine) @ affine, places)
    np.testing.assert_allclose(own, own.round(), atol=1e-3)
    return tuple(own.round().astype(int).T)


@pytest.mark.parametrize(("order", "flips"), ORDERS)
def test_every_voxel_is_where_it_was(make_case, order, flips):
    case = make_case(order=order, flips=flips)
    shown = viewer_volume(case.volume, case.lesions)
    hu, affine, image = decoded(ct_nifti(shown))
    assert nib.aff2axcodes(affine) == ("R", "A", "S")
    assert image.header.get_data_dtype() == np.uint8
    assert shown.factors == (1, 1, 1)
    source = case.volume.array[at_same_places(hu, affine, case.volume)]
    assert abs(hu.ravel() - np.clip(source, *WINDOW_HU)).max() <= HALF_A_LEVEL + 1e-3

    labels, label_affine, _ = decoded(labels_nifti(shown))
    np.testing.assert_array_equal(label_affine, affine)
    own = case.volume.from_axial(case.lesions.labels)
    np.testing.assert_array_equal(labels.ravel(), own[at_same_places(labels, affine, case.volume)])
    assert np.count_nonzero(labels) == np.count_nonzero(own)


def test_the_margin_is_kept_as_far_as_the_volume_goes(make_case):
    case = make_case(shape=(90, 40, 24))
    shown = viewer_volume(case.volume, case.lesions)
    found = np.argwhere(case.lesions.labels)
    sides = zip(found.min(axis=0), found.max(axis=0), case.lesions.labels.shape, case.volume.axial_spacing, strict=True)
    expected = []
    for first, last, size, length in sides:
        margin = math.ceil(MARGIN_MM / length)
        expected.append(min(size, last + margin + 1) - max(0, first - margin))
    assert shown.levels.shape == tuple(expected)
    assert shown.levels.size < case.volume.array.size


def test_without_a_liver_all_of_the_volume_is_shown(make_case):
    case = make_case(liver=False, lesions=False)
    assert viewer_volume(case.volume, case.lesions).levels.shape == case.volume.axial.shape


@pytest.mark.parametrize("most_voxels", [20_000, 3_000, 400, 1])
@pytest.mark.parametrize(("order", "flips"), ORDERS[:2])
def test_a_smaller_volume_has_its_blocks_means_at_their_middles(make_case, order, flips, most_voxels):
    case = make_case(order=order, flips=flips)
    # if HU are linear in position, a block's mean is the value at its centre
    slope, offset = np.array([0.9, -0.6, 0.5]), 300.0
    places = np.moveaxis(np.indices(case.volume.array.shape), 0, -1)
    ramp = nib.affines.apply_affine(case.volume.affine, places) @ slope + offset
    case.volume.array[...] = 0
    volume = type(case.volume)(ramp, case.volume.affine, case.volume.header, case.volume.path)
    shown = viewer_volume(volume, case.lesions, most_voxels)
    assert shown.levels.size <= most_voxels
    assert max(shown.factors) > 1
    hu, affine, _ = decoded(ct_nifti(shown))
    expected = nib.affines.apply_affine(affine, np.moveaxis(np.indices(hu.shape), 0, -1)) @ slope + offset
    inside = (expected > WINDOW_HU[0]) & (expected < WINDOW_HU[1])
    assert inside.any() or most_voxels == 1
    assert abs(hu - expected)[inside].max(initial=0) <= HALF_A_LEVEL + 0.01


def test_labels_of_a_smaller_volume_are_what_most_voxels_are_and_stay_in_place(make_case):
    case = make_case(shape=(96, 80, 16), affine=np.diag([0.8, 0.8, 3.0, 1.0]))
    shown = viewer_volume(case.volume, case.lesions, most_voxels=20_000)
    assert shown.factors == (1, 2, 2)
    for label in (1, 2, 4):
        full = nib.affines.apply_affine(case.volume.axial_affine, np.argwhere(case.lesions.labels == label))
        small = nib.affines.apply_affine(shown.affine, np.argwhere(shown.labels == label))
        np.testing.assert_allclose(small.mean(axis=0), full.mean(axis=0), atol=1.0)


def test_slices_finer_than_the_plane_are_joined_first(make_case):
    case = make_case(affine=np.diag([1.5, 1.5, 0.6, 1.0]), liver=False, lesions=False)
    size = case.volume.array.size
    assert viewer_volume(case.volume, case.lesions, size - 1).factors == (2, 1, 1)
    assert viewer_volume(case.volume, case.lesions, size // 3).factors == (3, 1, 1)
    assert viewer_volume(case.volume, case.lesions, size // 4).factors == (3, 2, 2)


@pytest.mark.parametrize("shape", [(1, 1, 40), (30, 1, 1), (1, 30, 2)])
def test_thin_volumes_keep_a_voxel(make_case, shape):
    case = make_case(shape=shape, liver=False, lesions=False)
    assert viewer_volume(case.volume, case.lesions, most_voxels=1).levels.size == 1


def test_as_many_voxels_as_are_kept_leave_a_page_below_12_mb():
    # soft tissue with the noise of thin slices compresses worse than any real box around a liver
    rng = np.random.default_rng(2)
    levels = np.clip(rng.normal(150, 15 / (400 / 255), (20, 100, 100)), 0, 255).astype(np.uint8)
    shown = ViewerVolume(levels, np.zeros_like(levels), np.eye(4), (1, 1, 1), True)
    of_ct = len(base64.b64encode(ct_nifti(shown))) / levels.size * MOST_VOXELS
    assert of_ct + 1.3e6 + 0.9e6 < 12e6  # library and key images
