"""One patient: anatomy, HU, labels, lesion table."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from liverseg.labels import LESION, LESION_TYPES
from liverseg.phantom.patient import Coverage, Phantom, make_phantom

HU_RANGES = {
    "subcutaneous_fat": (-125, -85),
    "muscle": (40, 75),
    "liver": (50, 130),
    "spleen": (95, 140),
    "kidney": (135, 205),
    "stomach_content": (-5, 45),
    "gallbladder": (-5, 30),
    "lung": (-930, -700),
    "heart": (85, 130),
    "aorta": (115, 195),
    "cava": (105, 190),
    "marrow": (70, 300),
    "psoas": (40, 75),
}


def core(phantom: Phantom, organ: str) -> np.ndarray:
    """Return HU well inside an organ, without partial volume of neighbours."""
    where = phantom.organs == phantom.organ_names.index(organ)
    for iterations in (2, 1):
        inner = ndimage.binary_erosion(where, iterations=iterations)
        if inner.sum() >= 30:
            return phantom.image[inner]
    return phantom.image[where]


@pytest.mark.parametrize("organ", HU_RANGES)
def test_organ_has_its_hu(phantom: Phantom, organ: str) -> None:
    low, high = HU_RANGES[organ]
    assert low <= np.median(core(phantom, organ)) <= high


def test_organs_are_at_their_anatomical_positions(phantom: Phantom) -> None:
    def centre(organ: str) -> np.ndarray:
        index = np.argwhere(phantom.organs == phantom.organ_names.index(organ)).mean(axis=0)
        return nib.affines.apply_affine(phantom.affine, index)  # RAS+

    spine = centre("disc")
    assert centre("liver")[0] > spine[0] + 20  # the liver is on the right, the spleen on the left
    assert centre("spleen")[0] < spine[0] - 40
    assert centre("liver")[1] > spine[1]  # the spine is behind
    assert centre("lung")[2] > centre("kidney")[2]  # feet to head
    assert centre("aorta")[0] < centre("cava")[0]


def test_gallbladder_touches_the_liver(phantom: Phantom) -> None:
    wall = phantom.organs == phantom.organ_names.index("gallbladder_wall")
    assert (ndimage.binary_dilation(wall, iterations=2) & (phantom.label == 1)).any()


def test_outside_is_air_and_edges_show_no_body(phantom: Phantom) -> None:
    assert np.median(phantom.image[:4, :4]) == pytest.approx(-1000, abs=30)


def test_liver_is_one_smooth_piece_of_human_size(phantom: Phantom) -> None:
    labels, count = ndimage.label(phantom.label > 0)
    sizes = np.bincount(labels.ravel())[1:]
    assert sizes.max() / sizes.sum() > 0.97, f"{count} pieces"
    assert 800 < phantom.facts["liver_ml"] < 2600


def test_lesions_are_inside_the_liver(phantom: Phantom) -> None:
    for row in phantom.lesions:
        value = LESION + LESION_TYPES.index(row.lesion_type)
        index = nib.affines.apply_affine(np.linalg.inv(phantom.affine), (row.x, row.y, row.z))
        assert phantom.label[tuple(np.rint(index).astype(int))] == value
    lesion = phantom.label >= LESION
    shell = ndimage.binary_dilation(lesion) & ~lesion
    assert (phantom.label[shell] == 1).mean() > 0.5


def test_lesion_table_agrees_with_the_label_map(phantom: Phantom) -> None:
    voxel_ml = abs(np.linalg.det(phantom.affine[:3, :3])) / 1000
    assert 1 <= len(phantom.lesions) <= 40
    for kind in LESION_TYPES:
        rows = [row for row in phantom.lesions if row.lesion_type == kind]
        where = phantom.label == LESION + LESION_TYPES.index(kind)
        assert sum(row.volume_ml for row in rows) == pytest.approx(where.sum() * voxel_ml, rel=1e-3)
        if rows:
            mean = sum(row.mean_hu * row.volume_ml for row in rows) / sum(row.volume_ml for row in rows)
            assert mean == pytest.approx(phantom.image[where].mean(), abs=0.1)
    for row in phantom.lesions:
        assert row.contrast_to_noise == pytest.approx(abs(row.mean_hu - row.liver_hu) / row.noise_hu, abs=0.01)
        assert sum(row.slices.values()) * voxel_ml == pytest.approx(row.volume_ml, rel=1e-3)


@pytest.mark.integration
def test_seed_decides_the_patient() -> None:
    def make(seed: int) -> Phantom:
        return make_phantom(np.random.SeedSequence(seed), matrix=64, coverage=Coverage.LIVER, main_type="cyst")

    first, again, other = make(1), make(1), make(2)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.label, again.label)
    assert first.image.shape != other.image.shape or not np.array_equal(first.image, other.image)


@pytest.mark.integration
def test_liver_coverage_contains_the_complete_liver_with_a_margin() -> None:
    seed = np.random.SeedSequence(5)
    phantom = make_phantom(seed, matrix=64, coverage=Coverage.LIVER, main_type="hemangioma")
    slices = np.flatnonzero((phantom.label > 0).any(axis=(0, 1)))
    below, above = slices[0], phantom.label.shape[2] - 1 - slices[-1]
    thickness = phantom.affine[2, 2]
    assert 4 <= below * thickness <= 28
    assert 4 <= above * thickness <= 28
