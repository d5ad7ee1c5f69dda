"""Search for CTs by `predict` in a folder and by `batch` in a tree."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from ct_files import write_ct, write_study
from dicom_files import write_ct_slice

from liverseg.cases.case import BatchCase
from liverseg.cases.discover import check_series, find_batch, find_cases, shard_of
from liverseg.errors import LiversegError, UsageError
from liverseg.imageio.dicom_select import choose_series


def found(source, output):
    return {case.name: case for case in find_batch(source, output)}


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
        (["a.nii", "1.dcm"], "", r"1\.dcm is DICOM and a\.nii is not; put them into separate folders"),
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


def test_a_series_is_for_dicom():
    check_series(None, ["a.nii"])
    check_series("portal", ["a.nii", "study"])
    check_series("portal", ["a.zip", "b.nii.gz"])
    with pytest.raises(UsageError, match=r"^series is 'portal', but in/a\.nii is a NIfTI file; only DICOM has series"):
        check_series("portal", ["in/a.nii"])
    with pytest.raises(UsageError, match=r"^series is '', but all 2 CTs are NIfTI files; "):
        check_series("", ["a.nii", "b.nii.gz"])


def test_a_name_that_is_not_utf_8_is_refused(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/Pati\xebnt.nii")).touch()
    with pytest.raises(LiversegError, match=r"Pati\\udcebnt\.nii: a name that is not UTF-8; rename it"):
        find_cases(tmp_path)
    (tmp_path / "fine").mkdir()
    (tmp_path / "fine" / "Patiënt.nii").touch()
    assert find_cases(tmp_path / "fine")[0]["case"] == "Patiënt"


@pytest.mark.parametrize("kind", ["volumes", "study", "one file"])
def test_predict_and_batch_see_the_same_cases(kind, tmp_path):
    source = tmp_path / "in"
    if kind == "study":
        write_study(source / "arterial", uid="1.2.1")
        write_study(source / "portal", uid="1.2.2")
    else:
        for name in ("b.nii", "a.nii.gz", "C.zip", "._a.nii.gz", "notes.txt", "DICOMDIR"):
            (source / name).parent.mkdir(exist_ok=True)
            (source / name).touch()
    if kind == "one file":
        source = source / "a.nii.gz"
    batch = [{"image": str(case.image), "case": case.name} for case in find_batch(source, tmp_path / "out")]
    assert find_cases(source) == batch
    assert [case["case"] for case in batch] == {"volumes": ["C", "a", "b"], "study": ["in"], "one file": ["a"]}[kind]


def test_results_are_no_cases(tmp_path):
    write_ct(tmp_path / "labels.nii.gz")
    (tmp_path / "record.json").touch()
    with pytest.raises(LiversegError, match="no CT in this folder"):
        find_cases(tmp_path)
    write_ct(tmp_path / "ct.nii.gz")
    assert [case["case"] for case in find_cases(tmp_path)] == ["ct"]
    assert list(found(tmp_path, tmp_path / "out")) == ["ct"]


def test_a_tree_of_all_kinds(tmp_path):
    write_ct(tmp_path / "a.nii.gz")
    write_ct(tmp_path / "deep" / "er" / "b.nii")
    (tmp_path / "c.zip").touch()
    write_study(tmp_path / "p1" / "study" / "arterial", uid="1.2.1")
    write_study(tmp_path / "p1" / "study" / "portal", uid="1.2.2")
    write_study(tmp_path / "p2")  # the same study UID, as after anonymisation: without b.nii it would belong to p1
    for name in (".hidden.nii", "notes.txt", "DICOMDIR", ".git/d.nii"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    write_ct(tmp_path / "out" / "e" / "labels.nii.gz")
    write_ct(tmp_path / "older" / "e" / "labels.nii.gz")
    (tmp_path / "older" / "e" / "record.json").touch()
    cases = found(tmp_path, tmp_path / "out")
    assert sorted(cases) == ["a", "c", "deep__er__b", "p1__study", "p2"]
    assert cases["p1__study"].image == tmp_path / "p1" / "study"
    assert all(case.study is None for case in cases.values())


def test_studies_in_one_folder_are_a_case_each(tmp_path):
    import pydicom

    for number in (1, 2):
        for file in write_study(tmp_path / "made", number, uid=f"1.2.{number}").iterdir():
            header = pydicom.dcmread(file)
            header.StudyInstanceUID, header.PatientID = f"1.9.{number}", f"p{number}"
            (tmp_path / "dump").mkdir(exist_ok=True)
            header.save_as(tmp_path / "dump" / f"{number}-{file.name}")
            file.unlink()
    (tmp_path / "made").rmdir()
    cases = found(tmp_path, tmp_path / "out")
    assert [case.study for case in cases.values()] == ["1.9.1", "1.9.2"]
    assert {case.image for case in cases.values()} == {tmp_path / "dump"}
    assert len(cases) == 2


def test_a_study_above_the_folder_of_another_is_read_alone(tmp_path):
    plane = np.zeros((4, 5), np.int16)
    for number in range(3):
        for uid, folder in (("1.9.1", "patient"), ("1.9.2", "patient/later")):
            tags = {"StudyInstanceUID": uid, "SeriesInstanceUID": f"{uid}.1"}
            write_ct_slice(tmp_path / folder / f"{number}.dcm", plane, 2.5 * number, **tags)
    cases = found(tmp_path, tmp_path / "out")
    assert {name: case.study for name, case in cases.items()} == {"patient": "1.9.1", "patient__later": None}
    for uid, case in zip(("1.9.1.1", "1.9.2.1"), cases.values(), strict=True):
        assert choose_series(case.image, study=case.study).uid == uid


def test_a_folder_that_may_not_be_looked_into_is_a_case_that_fails(tmp_path, monkeypatch):
    write_ct(tmp_path / "a.nii")
    (tmp_path / "closed").mkdir()
    import os

    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("closed"):  # root can read every folder, so permissions would have no effect
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert sorted(found(tmp_path, tmp_path / "out")) == ["a", "closed"]


def test_one_file_is_a_batch_of_one(tmp_path):
    (case,) = find_batch(write_ct(tmp_path / "a.nii.gz"), tmp_path / "out")
    assert (case.name, case.image) == ("a", tmp_path / "a.nii.gz")


def test_what_is_no_source(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "none.csv").write_text("case,image\n", encoding="utf-8")
    for name, words in (
        ("empty", "no CT in it or below"),
        ("gone", "no such folder or file; give a folder, a manifest"),
        ("notes.txt", "neither a list of CTs nor a CT"),
        ("none.csv", "no case in it"),
    ):
        with pytest.raises(LiversegError, match=words):
            find_batch(tmp_path / name, tmp_path / "out")
    write_study(tmp_path / "study")
    with pytest.raises(LiversegError, match=r"is within .*study, which is a case"):
        find_batch(tmp_path / "study", tmp_path / "study" / "out")
    with pytest.raises(LiversegError, match="is the source itself"):
        find_batch(tmp_path, tmp_path)


def test_results_do_not_go_where_input_is(tmp_path):
    write_ct(tmp_path / "in" / "ct.nii.gz")
    write_ct(tmp_path / "ct" / "other.nii.gz")
    rows = [{"case": "ct", "image": "in/ct.nii.gz"}, {"case": "other", "image": "ct/other.nii.gz"}]
    (tmp_path / "m.json").write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(LiversegError, match=r"ct: holds input; choose another output folder"):
        find_batch(tmp_path / "m.json", tmp_path)


def test_shards_are_all_the_cases_once(tmp_path):
    cases = [BatchCase(f"{number}", tmp_path) for number in range(10)]
    parts = [shard_of(cases, part, 4) for part in (1, 2, 3, 4)]
    assert sorted(case.name for part in parts for case in part) == sorted(case.name for case in cases)
    assert [len(part) for part in parts] == [3, 3, 2, 2]


def write_part(folder, zs, uid="1.9.1", patient="p1", series=".1", seed=0):
    """Write slices of a study at heights; their SOPInstanceUIDs are those of the same heights elsewhere."""
    planes = np.random.default_rng(seed).integers(-900, 900, (len(zs), 4, 5)).astype(np.int16)
    tags = {"StudyInstanceUID": uid, "SeriesInstanceUID": uid + series, "PatientID": patient}
    for z, plane in zip(zs, planes, strict=True):
        write_ct_slice(folder / f"{z:04}.dcm", plane, z, SOPInstanceUID=f"{uid}{series}.{z}", **tags)
    return folder


@pytest.mark.parametrize("beside", ["nothing", "a volume", "another study", "another study between"])
@pytest.mark.parametrize("patient", ["p1", ""])
def test_a_study_in_a_folder_and_below_it_is_one_case(patient, beside, tmp_path):
    above = tmp_path / "in" / "p"
    write_part(above, range(0, 6, 2), patient=patient)
    write_part(above / "between" / "more" if "between" in beside else above / "more", range(6, 12, 2), patient=patient)
    if beside == "a volume":
        write_ct(above / "other.nii.gz")
    elif beside == "another study":
        write_part(above / "later", range(3), "1.9.2")
    elif beside == "another study between":
        write_part(above / "between", range(3), "1.9.2")
    skipped = []
    cases = find_batch(tmp_path / "in", tmp_path / "out", skipped=skipped)
    others = {"nothing": [], "a volume": [above / "other.nii.gz"], "another study": [above / "later"]}
    images = [case.image for case in cases]
    if beside == "nothing":
        assert images == [above]
    else:
        assert images == [above, *others.get(beside, [above / "between"])]
    assert skipped == []
    assert cases[0].study == ("1.9.1" if "study" in beside else None)
    assert choose_series(above, study=cases[0].study).depth == 6


@pytest.mark.parametrize(("patient", "images"), [("p1", ["p"]), ("", ["p/a", "p/b"])])
def test_series_in_folders_beside_a_volume(patient, images, tmp_path):
    """Without a PatientID they may be two patients, whose studies an anonymiser gave one UID."""
    write_part(tmp_path / "p" / "a", range(4), patient=patient)
    write_part(tmp_path / "p" / "b", range(5), patient=patient, series=".2")
    write_ct(tmp_path / "p" / "other.nii.gz")
    cases = found(tmp_path, tmp_path / "out").values()
    dicom = [case.image.relative_to(tmp_path).as_posix() for case in cases if case.image.suffix != ".gz"]
    assert dicom == images


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("changed", ["nothing", "the names", "one slice less", "other instances"])
def test_a_copy_of_a_study_elsewhere_is_listed_and_not_computed(changed, alone, tmp_path):
    root = tmp_path / "in"
    write_part(root / "a", range(5))
    write_part(root / "backup" / "a", range(5), series=".2" if changed == "other instances" else ".1")
    if changed == "the names":
        for file in (root / "backup" / "a").iterdir():
            file.rename(file.with_name(f"IM{9999 - int(file.stem)}"))
    elif changed == "one slice less":
        (root / "backup" / "a" / "0004.dcm").unlink()
    write_part(root / "b", range(3), "1.9.2", "p2")
    if not alone:
        write_part(root / "backup" / "a", range(100, 103), "1.9.3", "p3")
    skipped = []
    cases = find_batch(root, tmp_path / "out", skipped=skipped)
    seen = [(case.image.relative_to(root).as_posix(), case.study) for case in cases]
    copy = [] if changed != "other instances" else [("backup/a", None if alone else "1.9.1")]
    other = [] if alone else [("backup/a", "1.9.3")]
    assert sorted(seen, key=str) == sorted([("a", None), ("b", None), *copy, *other], key=str)
    if copy:
        assert skipped == []
    else:
        (entry,) = skipped
        assert entry.path == root / "backup" / "a"
        assert entry.reason == ("study 1.9.1 in it is a copy of that in a, file by file; a study is computed once")


def test_two_patients_with_one_study_uid_in_one_folder_are_one_case(tmp_path):
    write_part(tmp_path / "in", range(3), patient="p1")
    write_part(tmp_path / "in", range(3, 6), patient="p2", series=".2")
    (case,) = find_batch(tmp_path / "in", tmp_path / "out")
    with pytest.raises(LiversegError, match="2 studies in it"):
        choose_series(case.image, study=case.study)
