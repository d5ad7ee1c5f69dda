"""Which files are cases."""

import os
from pathlib import Path

import pytest

from liverseg.errors import LiversegError
from liverseg.inference import find_cases


def test_a_folder_is_its_volumes_sorted_and_nothing_else(tmp_path):
    for name in ("b.nii", "a.nii.gz", "C.NII.GZ", "notes.txt", "._a.nii.gz", ".hidden.nii", "scan.mha"):
        (tmp_path / name).touch()
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "d.nii").touch()
    found = find_cases(tmp_path)
    assert [case["case"] for case in found] == ["C", "a", "b"]
    assert found[1]["image"] == str(tmp_path / "a.nii.gz")


def test_one_file_is_one_case(tmp_path, monkeypatch):
    (tmp_path / "a.b.nii.gz").touch()
    monkeypatch.chdir(tmp_path)
    assert find_cases("a.b.nii.gz") == [{"image": str(tmp_path / "a.b.nii.gz"), "case": "a.b"}]


def test_a_folder_of_dicom_files_is_one_case_and_zips_are_one_each(tmp_path):
    study = tmp_path / "study"
    (study / "series").mkdir(parents=True)
    (study / "notes.txt").touch()
    (study / "series" / "1").write_bytes(bytes(128) + b"DICM")
    assert find_cases(study) == [{"image": str(study), "case": "study"}]
    (study / "one.zip").touch()
    (study / "Two.ZIP").touch()
    assert [case["case"] for case in find_cases(study)] == ["Two", "one"]
    assert find_cases(study / "one.zip") == [{"image": str(study / "one.zip"), "case": "one"}]


@pytest.mark.parametrize(
    ("names", "given", "message"),
    [
        ([], "", r"no CT in this folder; \.nii and \.nii\.gz files, folders of DICOM files and \.zip files"),
        (["x.txt", ".hidden.dcm"], "", "no CT in this folder"),
        ([], "none", "none: no such folder or file"),
        (["x.txt"], "x.txt", "x.txt: not the name of a CT"),
        (["a.nii", "1.dcm"], "", r"1\.dcm is DICOM and a\.nii is not; put them into folders of their own"),
        (["a.nii", "a.zip"], "", r"a\.nii and a\.zip: both would be case a"),
        (["a.nii", "a.nii.gz"], "", r"a\.nii and a\.nii\.gz: both would be case a"),
        ([".nii"], ".nii", "its name leaves none for the case"),
        (["...nii"], "...nii", "its name leaves none for the case"),
    ],
)
def test_what_cannot_be_run_is_refused(names, given, message, tmp_path):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(LiversegError, match=message):
        find_cases(tmp_path / given)


def test_a_name_that_is_not_utf_8_is_refused(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/Pati\xebnt.nii")).touch()
    with pytest.raises(LiversegError, match=r"Pati\\udcebnt\.nii: a name that is not UTF-8; rename it"):
        find_cases(tmp_path)
    (tmp_path / "fine").mkdir()
    (tmp_path / "fine" / "Patiënt.nii").touch()
    assert find_cases(tmp_path / "fine")[0]["case"] == "Patiënt"
