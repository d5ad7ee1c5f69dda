"""Which files are cases."""

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


@pytest.mark.parametrize(
    ("names", "given", "message"),
    [
        ([], "", "no .nii.gz or .nii file in this folder"),
        (["x.txt"], "", "no .nii.gz or .nii file in this folder"),
        ([], "none", "none: no such folder or file"),
        (["x.txt"], "x.txt", "x.txt: not a NIfTI file name"),
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
