"""Which CTs a batch is about: of trees, manifests and data lists."""

import json
from pathlib import PurePath

import pytest
from batch_runs import write_ct, write_study
from hypothesis import given
from hypothesis import strategies as st

from liverseg.cases.case import BatchCase, name_in_tree, named_apart, safe_name
from liverseg.cases.sources import find_batch, shard_of
from liverseg.errors import LiversegError
from liverseg.labels import LESION_TYPES


def found(source, output):
    return {case.name: case for case in find_batch(source, output)}


@given(st.text())
def test_no_name_leads_elsewhere(text):
    name = safe_name(text)
    assert name == PurePath(name).name and name not in ("", ".", "..")
    assert name.isascii() and not name.startswith((".", "-")) and len(name) <= 109
    assert safe_name(name) == name or len(name) > 100


@given(st.text(), st.text())
def test_two_texts_do_not_meet_in_one_name(one, other):
    assert (safe_name(one) == safe_name(other)) == (one == other)


def test_names_in_a_tree():
    assert name_in_tree(PurePath("patient1/portal")) == "patient1__portal"
    names = [name_in_tree(PurePath(path)) for path in ("a/b__c", "a__b/c", "a/b/c", "a b/c")]
    assert len(set(names)) == 4
    assert safe_name("summary.csv") != "summary.csv"  # a table lies there


def test_same_names_are_told_apart(tmp_path):
    cases = [BatchCase("ct", tmp_path / "ct.nii"), BatchCase("CT", tmp_path / "CT.nii.gz"), BatchCase("x", tmp_path)]
    names = [case.name for case in named_apart(cases)]
    assert len({name.lower() for name in names}) == 3 and names[2] == "x"
    assert [case.name for case in named_apart(cases)] == names


def test_a_tree_of_all_kinds(tmp_path):
    write_ct(tmp_path / "a.nii.gz")
    write_ct(tmp_path / "deep" / "er" / "b.nii")
    (tmp_path / "c.zip").touch()
    write_study(tmp_path / "p1" / "study" / "arterial", uid="1.2.1")
    write_study(tmp_path / "p1" / "study" / "portal", uid="1.2.2")
    write_study(tmp_path / "p2")  # the same study UID, as anonymisers leave it: but for b.nii it would be p1's
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


def test_a_folder_that_may_not_be_looked_into_is_a_case_that_fails(tmp_path, monkeypatch):
    write_ct(tmp_path / "a.nii")
    (tmp_path / "closed").mkdir()
    import os

    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("closed"):  # root may look everywhere, so that no permission would do
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
    with pytest.raises(LiversegError, match=r"lies within .*study, which is a case"):
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


def test_a_manifest_as_csv_and_as_json(tmp_path):
    header = ["case", "image", "series", "study", "liver", *(f"prior_{kind}" for kind in LESION_TYPES)]
    full = ["1", "sub/a.nii", "portal", "1.2.3", "masks/a.nii.gz:5", "1", "2", "0.5"]
    rows = [full, ["two", "/data/b", "", "", "", "", "", ""]]
    (tmp_path / "m.csv").write_text("\n".join(";".join(row) for row in [header, *rows]), encoding="utf-8-sig")
    listed = [{name: cell for name, cell in zip(header, row, strict=True) if cell} for row in rows]
    listed[0] |= {"case": 1, "prior_cyst": 1, "prior_hemangioma": 2, "prior_metastasis": 0.5}
    (tmp_path / "m.json").write_text(json.dumps(listed), encoding="utf-8")
    for name in ("m.csv", "m.json"):
        one, two = find_batch(tmp_path / name, tmp_path / "out")
        assert (one.name, one.image, one.series, one.study) == ("1", tmp_path / "sub" / "a.nii", "portal", "1.2.3")
        assert one.liver == str(tmp_path / "masks" / "a.nii.gz:5")
        assert one.type_priors == {"cyst": 1, "hemangioma": 2, "metastasis": 0.5}
        assert (two.name, str(two.image), two.own_settings()) == ("two", "/data/b", {})
    (one, _) = find_batch(tmp_path / "m.csv", tmp_path / "out", tmp_path / "elsewhere")
    assert one.image == tmp_path / "elsewhere" / "sub" / "a.nii"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"case": "a"}, "no image"),
        ({"image": "a.nii"}, "no case"),
        ({"case": "a", "image": "../a.nii"}, "must not lead upwards"),
        ({"case": "a", "image": "a.nii", "liver": "b/../../c.nii"}, "must not lead upwards"),
        ({"case": "a", "image": "a\0.nii"}, "zero byte"),
        ({"case": "a", "image": ["a.nii"]}, "text is needed"),
        ({"case": "a", "image": "a.nii", "livr": "b.nii"}, "unknown column 'livr'; did you mean liver"),
        ({"case": "a", "image": "a.nii", "prior_cyst": 1}, "prior_cyst without prior_hemangioma"),
        ({"case": "a", "image": "a.nii", **{f"prior_{kind}": 0 for kind in LESION_TYPES}}, "a number above 0"),
        ({"case": "a", "image": "a.nii", **{f"prior_{kind}": "x" for kind in LESION_TYPES}}, "a number above 0"),
    ],
)
def test_rows_that_cannot_be_used(row, words, tmp_path):
    (tmp_path / "m.json").write_text(json.dumps([{"case": "fine", "image": "f.nii"}, row]), encoding="utf-8")
    with pytest.raises(LiversegError, match=words) as caught:
        find_batch(tmp_path / "m.json", tmp_path / "out")
    assert f"{tmp_path / 'm.json'}, entry 1: " in str(caught.value)


def test_every_wrong_row_is_told_and_one_case_twice(tmp_path):
    rows = [{"case": "a"}, {"case": "b", "image": "b.nii"}, {"case": "B", "image": "c.nii"}]
    (tmp_path / "m.json").write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(LiversegError) as caught:
        find_batch(tmp_path / "m.json", tmp_path / "out")
    first, second = str(caught.value).splitlines()
    assert "entry 0: no image" in first
    assert "case B is there twice" in second


@pytest.mark.parametrize("content", ["{", "[1]", '{"cases": 1}', "[" * 100_000, "\udcff"])
def test_a_manifest_that_is_none(content, tmp_path):
    (tmp_path / "m.json").write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(LiversegError, match=r"m\.json: (cannot be read as JSON|neither a manifest)"):
        find_batch(tmp_path / "m.json", tmp_path / "out")


def test_a_data_list_is_a_batch_of_its_images(cohort_tree, tmp_path):
    listed = json.loads((cohort_tree / "datalist.json").read_text(encoding="utf-8"))
    images = {item["image"] for item in listed["training"] + listed["test"]}
    cases = find_batch(cohort_tree / "datalist.json", tmp_path / "out")
    assert {str(case.image.relative_to(cohort_tree)) for case in cases} == images
    assert len(cases) == len(images) < len(listed["training"] + listed["test"])


def test_shards_are_all_the_cases_once(tmp_path):
    cases = [BatchCase(f"{number}", tmp_path) for number in range(10)]
    parts = [shard_of(cases, part, 4) for part in (1, 2, 3, 4)]
    assert sorted(case.name for part in parts for case in part) == sorted(case.name for case in cases)
    assert [len(part) for part in parts] == [3, 3, 2, 2]
