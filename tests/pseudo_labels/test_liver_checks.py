"""Measures of outlined livers, and refused outlines."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from liverseg.errors import UsageError
from liverseg.imageio.volume import read_volume
from liverseg.pseudo_labels.checks import Measures, OutlineLimits, extract_liver, measure, outline_dice

SOUND = Measures(1500.0, 0.99, False, 60.0, 105.0, 0.95, 0.94)
ANY_NEIGHBOUR = np.ones((3, 3, 3), int)

masks = arrays(bool, st.tuples(*[st.integers(1, 6)] * 3))


@given(masks)
def test_the_largest_component_is_kept_and_its_holes_filled(found):
    outline = extract_liver(found)
    parts, count = ndimage.label(found, ANY_NEIGHBOUR)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    volume = np.zeros(found.shape, bool)
    volume[outline.box] = outline.inside
    if not count:
        assert outline.voxels == 0 and outline.largest_part == 0
        return
    assert outline.largest_part == pytest.approx(sizes.max() / found.sum())
    candidates = [ndimage.binary_fill_holes(parts == number + 1) for number in np.flatnonzero(sizes == sizes.max())]
    assert any(np.array_equal(volume, candidate) for candidate in candidates)
    assert all(np.array_equal(outline.on_slice(index), volume[index]) for index in range(len(volume)))


@given(st.data())
def test_agreement_is_dice_of_the_volumes(data):
    shape = data.draw(st.tuples(*[st.integers(1, 5)] * 3))
    first, second = (extract_liver(data.draw(arrays(bool, shape))) for _ in range(2))
    full = []
    for outline in (first, second):
        full.append(np.zeros(shape, bool))
        full[-1][outline.box] = outline.inside
    total = full[0].sum() + full[1].sum()
    expected = 2 * (full[0] & full[1]).sum() / total if total else 1
    assert outline_dice(first, second) == pytest.approx(expected) == outline_dice(second, first)


def test_a_hole_that_is_open_to_the_outside_stays():
    cup = np.zeros((7, 7, 7), bool)
    cup[1:6, 1:6, 1:6] = True
    cup[2:6, 3, 3] = False  # open at the top
    cup[3, 1:3, 4] = False
    closed = cup.copy()
    closed[5, 3, 3] = True
    assert extract_liver(cup).voxels == cup.sum()
    assert extract_liver(closed).voxels == closed.sum() + 3


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SAL"])
def test_measures_in_any_orientation_of_the_file(codes, tmp_path):
    """Volume, side and HU of a block agree with the file's affine."""
    hu = np.full((40, 30, 12), -1000, np.int16)  # RAS+
    hu[4:36, 3:27] = 30
    hu[20:30, 10:20, 2:8] = 100  # the block, on the right
    spacing = np.array([2.0, 3.0, 5.0])
    image = nib.Nifti1Image(hu, np.diag([*spacing, 1.0]))
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(tuple(codes))
    )
    nib.save(image.as_reoriented(turn), tmp_path / "ct.nii")
    volume = read_volume(tmp_path / "ct.nii")
    outline = extract_liver(volume.axial == 100)
    found = measure(outline, volume.axial, volume.axial_spacing, volume.voxel_ml)
    assert found.volume_ml == pytest.approx(10 * 10 * 6 * 30 / 1000)
    assert found.right_of_midline_mm == pytest.approx((24.5 - 19.5) * 2.0)
    assert found.median_hu == 100
    assert (found.largest_part, found.cut_off) == (1, False)
    assert (found.flip_agreement, found.network_agreement) == (None, None)


@pytest.mark.parametrize(("first", "stop", "cut_off"), [(0, 4, True), (2, 6, True), (1, 5, False)])
def test_a_liver_at_the_scans_end_is_cut_off(first, stop, cut_off):
    found = np.zeros((6, 4, 4), bool)
    found[first:stop, 1:3, 1:3] = True
    assert measure(extract_liver(found), np.zeros(found.shape, np.int16), (1, 1, 1), 0.001).cut_off is cut_off


def test_agreements_are_with_the_mirrored_and_the_second():
    masks = np.zeros((3, 4, 4, 8), bool)
    masks[0, 1:3, :, :4] = masks[1, 1:3, :, 1:5] = masks[2, 1:3, :, 2:6] = True
    outlines = [extract_liver(mask) for mask in masks]
    hu = np.zeros(masks.shape[1:], np.int16)
    found = measure(outlines[0], hu, (1, 1, 1), 1.0, *outlines[1:])
    assert (found.flip_agreement, found.network_agreement) == (pytest.approx(3 / 4), pytest.approx(2 / 4))
    assert measure(outlines[0], hu, (1, 1, 1), 1.0, None, outlines[2]).flip_agreement is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"volume_ml": 0.0}, "no liver found"),
        ({"largest_part": 0.979}, "97.9% of the voxels called liver form one component, 98.0% are needed"),
        ({"cut_off": True}, "the scan cuts the liver off"),
        ({"volume_ml": 599.0}, "volume 599 ml, 600 to 4000 are allowed"),
        ({"volume_ml": 4001.0}, "volume 4001 ml, 600 to 4000 are allowed"),
        ({"right_of_midline_mm": -1.0}, "its centroid is 1 mm to the left of the body's middle"),
        ({"median_hu": 39.0}, "median 39 HU, 40 to 160 are allowed"),
        ({"median_hu": 161.0}, "median 161 HU, 40 to 160 are allowed"),
        ({"flip_agreement": 0.899}, "Dice 0.899 with the outline on the mirrored CT, 0.9 is needed"),
        ({"network_agreement": 0.5}, "Dice 0.500 with the second network's, 0.9 is needed"),
    ],
)
def test_each_check_refuses_by_itself(change, message):
    limits = OutlineLimits()
    assert limits.failed_checks(SOUND) == []
    (reason,) = limits.failed_checks(replace(SOUND, **change))
    assert reason.startswith(message)


def test_every_failed_check_is_reported():
    reasons = OutlineLimits().failed_checks(replace(SOUND, largest_part=0.5, median_hu=10.0, flip_agreement=0.1))
    assert [reason.split()[0] for reason in reasons] == ["50.0%", "median", "Dice"]


@pytest.mark.parametrize(
    ("change", "limits"),
    [
        ({"largest_part": 0.98}, {}),
        ({"volume_ml": 600.0, "median_hu": 40.0, "flip_agreement": 0.9}, {}),
        ({"largest_part": 0.5}, {"min_largest_part": 0.5}),
        ({"volume_ml": 599.0}, {"volume_ml": (500.0, 600.0)}),
        ({"cut_off": True, "volume_ml": 100.0}, {"allow_cut_off": True}),
        ({"right_of_midline_mm": -30.0}, {"min_right_mm": -50.0}),
        ({"median_hu": 20.0}, {"median_hu": (0.0, 50.0)}),
        ({"flip_agreement": 0.5}, {"min_flip_agreement": 0.5}),
        ({"network_agreement": 0.5}, {"min_network_agreement": 0.5}),
        ({"flip_agreement": None, "network_agreement": None}, {}),
    ],
)
def test_limits_can_be_set_and_hold_at_their_value(change, limits):
    assert OutlineLimits(**limits).failed_checks(replace(SOUND, **change)) == []


def test_a_cut_off_liver_may_be_too_large_all_the_same():
    (reason,) = OutlineLimits(allow_cut_off=True).failed_checks(replace(SOUND, cut_off=True, volume_ml=5000.0))
    assert reason.startswith("volume 5000 ml")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"min_largest_part": 98.0}, "min_largest_part is 98.0; it must be a number, 0 to 1"),
        ({"min_flip_agreement": -0.1}, "min_flip_agreement is -0.1"),
        ({"min_network_agreement": float("nan")}, "min_network_agreement is nan"),
        ({"volume_ml": (4000.0, 600.0)}, "volume_ml is 4000 to 600; it must be two numbers, the lower first"),
        ({"median_hu": (0.0, float("nan"))}, "median_hu is 0 to nan"),
        ({"min_right_mm": float("inf")}, "min_right_mm is inf"),
    ],
)
def test_limits_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(UsageError, match=message):
        OutlineLimits(**wrong)
