"""Cohorts of real series; what the tests need is named by LIVERSEG_REAL_DATA."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from cohort_tree import label, mask, nifti, table

from liverseg.datalists import cohort_items
from liverseg.errors import LiversegError

REAL = Path(os.environ.get("LIVERSEG_REAL_DATA") or Path(__file__).parents[3] / "shared" / "realdata")
HEADER = "patient,image,mask,slice,lesion_type"


def real(*names):
    for name in names:
        if not (REAL / name).exists():
            pytest.skip(f"{REAL / name} is not here; set LIVERSEG_REAL_DATA to the folder of real CT")
    return [REAL / name for name in names]


def test_a_real_seg_lies_on_its_series(tmp_path):
    folder, seg, drawn = real("dcmqi_3slice/ct-3slice", "dcmqi_3slice/liver.dcm", "dcmqi_3slice/liver_seg.nrrd")
    (tmp_path / "ct").symlink_to(folder)
    (tmp_path / "liver.dcm").symlink_to(seg)
    (item,) = cohort_items(table(tmp_path, "p,ct,liver.dcm,,"))
    array, _ = label(tmp_path, item)
    assert array.shape == (512, 512, 3)
    assert {*np.unique(array)} == {0, 1}
    assert np.array_equal(array.T, sitk.GetArrayFromImage(sitk.ReadImage(str(drawn))))


def test_a_real_jpeg2000_series_with_a_label_of_other_axes(tmp_path):
    folder, seg = real("totalsegmentator_dicom/example_ct_dicom", "totalsegmentator_dicom/example_seg_dicom.nii.gz")
    (tmp_path / "ct").symlink_to(folder)
    organs = nib.load(seg)
    liver = np.asarray(organs.dataobj) == 5
    lesion = np.zeros(liver.shape, np.uint8)
    lesion[tuple(axis[:: len(axis) // 50] for axis in np.nonzero(liver))] = 1
    nifti(tmp_path / "liver.nii.gz", liver.astype(np.uint8), organs.affine)
    nifti(tmp_path / "lesion.nii.gz", lesion, organs.affine)
    rows = table(tmp_path, "p,ct,lesion.nii.gz,,hemangioma,liver.nii.gz", header=f"{HEADER},liver_mask")
    (item,) = cohort_items(rows)
    array, _ = label(tmp_path, item)
    assert np.array_equal(array, np.select([lesion == 1, liver], [3, 1])[:, ::-1])


def test_a_real_gantry_tilt_is_refused_with_its_degrees(tmp_path):
    (folder,) = real("gantry_tilt_head")
    (tmp_path / "ct").symlink_to(folder)
    nifti(tmp_path / "m.nii", mask())
    with pytest.raises(LiversegError, match=r"row 2: .*gantry tilt of 18\.5 degrees"):
        cohort_items(table(tmp_path, "p,ct,m.nii,,cyst"))
