"""Cohorts of real series from the folder LIVERSEG_REAL_DATA."""

import os
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from cohort_tree import label, mask, nifti, png, table

from liverseg.cli.main import main
from liverseg.datalists import cohort_items, read_datalist
from liverseg.errors import LiversegError
from liverseg.imageio.dicom_series import read_series

REAL = Path(os.environ.get("LIVERSEG_REAL_DATA") or Path(__file__).parents[3] / "shared" / "realdata")
HEADER = "patient,image,mask,slice,lesion_type"


def real(*names):
    for name in names:
        if not (REAL / name).exists():
            pytest.skip(f"{REAL / name} is not here; set LIVERSEG_REAL_DATA to the folder of real CT")
    return [REAL / name for name in names]


@pytest.mark.integration
def test_a_real_seg_is_on_the_grid_of_its_series(tmp_path):
    folder, seg, drawn = real("dcmqi_3slice/ct-3slice", "dcmqi_3slice/liver.dcm", "dcmqi_3slice/liver_seg.nrrd")
    (tmp_path / "ct").symlink_to(folder)
    (tmp_path / "liver.dcm").symlink_to(seg)
    (item,) = cohort_items(table(tmp_path, "p,ct,liver.dcm,,"))
    array, _ = label(tmp_path, item)
    assert array.shape == (512, 512, 3)
    assert {*np.unique(array)} == {0, 1}
    assert np.array_equal(array.T, sitk.GetArrayFromImage(sitk.ReadImage(str(drawn))))


@pytest.mark.integration
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


def slice_lesion(liver, number):
    """Return a mask of a block inside a boolean liver, (column, row, slice), in one slice."""
    columns, rows = np.nonzero(liver[:, :, number])
    column, row = columns[len(columns) // 2], int(np.median(rows[columns == columns[len(columns) // 2]]))
    block = np.zeros(liver.shape, bool)
    block[column - 6 : column + 6, row - 5 : row + 5, number] = True
    return block & liver


def test_a_real_seg_is_the_liver_around_typed_lesions(tmp_path):
    folder, seg = real("dcmqi_3slice/ct-3slice", "dcmqi_3slice/liver.dcm")
    (tmp_path / "ct").symlink_to(folder)
    (tmp_path / "liver.dcm").symlink_to(seg)
    image, affine = read_series(folder)
    liver = label(tmp_path, cohort_items(table(tmp_path, "p,ct,liver.dcm,,"))[0])[0] == 1
    lesions = slice_lesion(liver, 0), slice_lesion(liver, 2)
    assert all(60 < lesion.sum() <= 120 for lesion in lesions)
    png(tmp_path / "low.png", lesions[0][:, :, 0].T * np.uint8(255))
    nifti(tmp_path / "high.nii.gz", lesions[1].astype(np.uint8), affine)
    rows = ["p,ct,low.png,0,cyst,liver.dcm", "p,ct,high.nii.gz,2,metastasis,liver.dcm"]
    items = cohort_items(table(tmp_path, *rows, header=f"{HEADER},liver_mask"))
    assert [(item.slice, item.lesion_type) for item in items] == [(0, "cyst"), (2, "metastasis")]
    array, label_affine = label(tmp_path, items[0])
    assert items[0].label == items[1].label and np.allclose(label_affine, affine)
    assert np.array_equal(array, np.select([lesions[0], lesions[1], liver], [2, 4, 1]))
    converted = nib.load(tmp_path / items[0].image)
    assert np.array_equal(np.asarray(converted.dataobj), image) and np.allclose(converted.affine, affine)


def test_a_real_seg_gives_lesions_where_its_segment_is_one(tmp_path):
    folder, seg, drawn = real("dcmqi_3slice/ct-3slice", "dcmqi_3slice/liver.dcm", "dcmqi_3slice/liver_seg.nrrd")
    (tmp_path / "ct").symlink_to(folder)
    (tmp_path / "liver.dcm").symlink_to(seg)
    with pytest.raises(LiversegError, match=r"row 2: no metastasis in liver\.dcm; correct type, slice or mask"):
        cohort_items(table(tmp_path, "p,ct,liver.dcm,,metastasis"))
    lesion = pydicom.dcmread(seg)
    lesion.SegmentSequence[0].SegmentLabel = "Liver metastasis"
    lesion.save_as(tmp_path / "lesion.dcm")
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(drawn)))
    for row in ("p,ct,lesion.dcm,,metastasis,", "p,ct,lesion.dcm,1,metastasis,1"):
        (item,) = cohort_items(table(tmp_path, row, header=f"{HEADER},lesion"))
        array, _ = label(tmp_path, item)
        assert np.array_equal(array.T, expected * 4)


@pytest.mark.integration
def test_real_series_on_the_command_line(tmp_path, capsys):
    padded, seg, compressed, organs = real(
        "dcmqi_3slice/ct-3slice",
        "dcmqi_3slice/liver.dcm",
        "totalsegmentator_dicom/example_ct_dicom",
        "totalsegmentator_dicom/example_seg_dicom.nii.gz",
    )
    for name, source in (("ct-1", padded), ("liver.dcm", seg), ("ct-2", compressed)):
        (tmp_path / name).symlink_to(source)
    (item,) = cohort_items(table(tmp_path, "p,ct-1,liver.dcm,,"))
    first = label(tmp_path, item)[0] == 1
    nifti(tmp_path / "lesion-1.nii.gz", slice_lesion(first, 1).astype(np.uint8), read_series(padded)[1])
    loaded = nib.load(organs)
    second = np.asarray(loaded.dataobj) == 5
    nifti(tmp_path / "liver-2.nii.gz", second.astype(np.uint8), loaded.affine)
    nifti(tmp_path / "lesion-2.nii.gz", slice_lesion(second, 12).astype(np.uint8), loaded.affine)
    rows = ["1;ct-1;lesion-1.nii.gz;1;Zyste;liver.dcm", "2;ct-2;lesion-2.nii.gz;12;Metastase;liver-2.nii.gz"]
    table(tmp_path, *rows, header=f"{HEADER},liver_mask".replace(",", ";"))
    (tmp_path / "types.csv").write_text("word;type\nZyste;cyst\nMetastase;metastasis\n", encoding="utf-8")
    options = ["--folds", "2", "--types", str(tmp_path / "types.csv")]
    assert main(["datalist", "cohort", str(tmp_path), *options]) == 0
    listed = read_datalist(tmp_path / "datalist.json")
    assert [(item.patient, item.slice, item.lesion_type) for item in listed.training] == [
        ("1", 1, "cyst"),
        ("2", 12, "metastasis"),
    ]
    array, _ = label(tmp_path, listed.training[1])
    assert np.array_equal(array, np.select([slice_lesion(second, 12), second], [4, 1])[:, ::-1])
    capsys.readouterr()
    assert main(["datalist", "check", str(tmp_path / "datalist.json")]) == 0
    assert capsys.readouterr().out == "0 errors and 0 warnings in 4 files checked\n"


def test_a_real_gantry_tilt_is_refused_with_its_degrees(tmp_path, capsys):
    (folder,) = real("gantry_tilt_head")
    (tmp_path / "ct").symlink_to(folder)
    nifti(tmp_path / "m.nii", mask())
    table(tmp_path, "p,ct,m.nii,,cyst", "p,ct,m.nii,2,cyst")
    before = sorted(tmp_path.rglob("*"))
    assert main(["datalist", "cohort", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(r"slices\.csv, row 2: .*ct: gantry tilt of 18\.5 degrees: .*straighten the series first$", line)
    assert sorted(tmp_path.rglob("*")) == before
