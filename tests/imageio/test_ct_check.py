"""Arrays that pass as CT, cause a warning, or are refused."""

import nibabel as nib
import numpy as np
import pytest

from liverseg.errors import LiversegError
from liverseg.imageio.ct_check import check_ct
from liverseg.imageio.volume import read_volume


def checked(tmp_path, array, scaling=None):
    image = nib.Nifti1Image(array, np.eye(4))
    if scaling:
        image.header.set_slope_inter(*scaling)
    image.to_filename(tmp_path / "scan.nii")
    return check_ct(read_volume(tmp_path / "scan.nii"))


def between(low, high, dtype, shape=(4, 4, 4)):
    return np.linspace(low, high, int(np.prod(shape))).reshape(shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32])
def test_a_ct_passes(dtype, tmp_path):
    assert checked(tmp_path, between(-1024, 1500, dtype)) == []


def test_a_scaled_ct_passes(tmp_path):
    assert checked(tmp_path, between(0, 2500, np.uint16), (1, -1024)) == []
    assert checked(tmp_path, between(0, 5000, np.uint16), (0.5, -1024)) == []


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (0, 1500), (-1000, 40), (-51, 48.5), (0, 255)])
def test_fractional_images_that_are_no_ct_are_refused(low, high, tmp_path):
    with pytest.raises(LiversegError, match=rf"scan\.nii: values from {low:g} to {high:g} in fractions do not look"):
        checked(tmp_path, between(low, high, np.float32))


def test_scaling_that_makes_fractions_of_integers_does_not_hide_them(tmp_path):
    with pytest.raises(LiversegError, match="do not look like a CT"):
        checked(tmp_path, between(0, 1000, np.int16), (0.001, 0))


@pytest.mark.parametrize(("low", "high"), [(0, 1500), (0, 4), (-1000, 20)])
def test_integers_that_are_no_ct_cause_a_warning(low, high, tmp_path):
    assert checked(tmp_path, between(low, high, np.int16)) == [
        f"does not look like a CT in HU: values from {low} to {high}"
    ]


def test_a_scan_without_air_is_warned_of(tmp_path):
    (warning,) = checked(tmp_path, between(-150, 900, np.int16))
    assert "no voxel below -200 HU" in warning


@pytest.mark.parametrize(("low", "high"), [(-32768, 2000), (-1024, 31000), (-1024, 4e8)])
def test_huge_values_are_refused(low, high, tmp_path):
    with pytest.raises(LiversegError, match="HU are between"):
        checked(tmp_path, between(low, high, np.float32))


def test_a_header_without_orientation_is_warned_of(tmp_path):
    image = nib.Nifti1Image(between(-1024, 1500, np.int16), np.eye(4))
    image.set_sform(None, 0)
    image.to_filename(tmp_path / "scan.nii")
    assert check_ct(read_volume(tmp_path / "scan.nii")) == [
        "qform and sform code are 0: left, right, front, back, head and feet are a guess, that of nibabel; ITK and 3D "
        "Slicer exchange front and back, so positions in mm are not theirs"
    ]


@pytest.mark.parametrize(("slices", "words"), [(1, "1 slice: edge"), (2, "2 slices: edge")])
def test_few_slices_are_warned_of(slices, words, tmp_path):
    (warning,) = checked(tmp_path, between(-1000, 1000, np.int16, (8, 8, slices)))
    assert warning.startswith(words)
