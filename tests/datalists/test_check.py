"""Check of a data list: no findings in valid trees; lists, labels and orientation; the table and its text."""

import json
import os
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from ct_tree import AFFINE, LABEL, SHAPE, TYPED, VOLUME, check, found_in, make_case, save, write_list, write_tree

from liverseg.datalists import read_datalist
from liverseg.datalists.check import check_datalist, describe_findings, write_findings
from liverseg.errors import LiversegError, OutputError, UsageError

REAL_DATA = Path(os.environ.get("LIVERSEG_REAL_DATA") or Path(__file__).parents[3] / "shared" / "realdata")


@pytest.fixture
def tree(tmp_path):
    write_tree(tmp_path)
    return tmp_path


def test_a_sound_tree_has_no_findings(tree):
    findings = check(tree)
    assert findings.empty
    assert list(findings.columns) == ["file", "level", "defect", "found"]
    assert describe_findings(findings) == "0 errors and 0 warnings in 6 files checked"


def test_phantoms_have_no_findings(lits_tree, cohort_tree):
    for root in (lits_tree, cohort_tree):
        assert check(root).empty


@pytest.mark.integration
def test_real_ct_has_no_findings(tmp_path):
    names = ["hcc_048/hcc_048_portal.nii.gz", "totalsegmentator_3mm/example_ct.nii.gz"]
    for name in names:
        if not (REAL_DATA / name).is_file():
            pytest.skip(f"{REAL_DATA / name} is not here; set LIVERSEG_REAL_DATA to the folder of real CT")
        write_list(tmp_path, {"training": [], "test": [{"image": name}]})
        assert check_datalist(tmp_path / "datalist.json", REAL_DATA, progress=False).empty


def test_a_label_without_a_liver_is_a_warning_where_nothing_is_trained_on_it(tree):
    save(tree / "segmentation-2.nii.gz", np.zeros(SHAPE, np.uint8))
    assert found_in(tree) == [("segmentation-2.nii.gz", "warning", "empty label")]


def test_a_liver_without_lesion_is_sound_in_a_list_of_volumes(tree):
    save(tree / LABEL, np.minimum(make_case(0)[1], 1))
    assert found_in(tree) == []


def typed_list(root, **item):
    content = write_tree(root)
    content["labels"] = TYPED
    content["training"][0] |= {"slice": 4, "lesion_type": "cyst", **item}
    write_list(root, content)


@pytest.mark.parametrize(
    ("item", "file", "level", "word", "sentence"),
    [
        ({"slice": 12}, VOLUME, "error", "annotated slice", "slice 12 is annotated, but the volume has 0 to 11"),
        ({"slice": 0}, LABEL, "error", "lesion type", "listed as cyst, .*only no lesion"),
        ({"lesion_type": "metastasis"}, LABEL, "error", "lesion type", "listed as metastasis, .*only 2 cyst"),
        ({"slice": 0, "lesion_type": None}, LABEL, "warning", "no lesion", "annotated as a slice"),
        ({"slice": None, "lesion_type": "hemangioma"}, LABEL, "error", "lesion type", "it is listed as hemangioma"),
    ],
)
def test_annotated_slices(item, file, level, word, sentence, tree):
    typed_list(tree)
    assert found_in(tree) == []
    typed_list(tree, **item)
    findings = check(tree)
    assert found_in(tree) == [(file, level, word)]
    assert re.search(sentence, findings["found"][0])


def test_mixed_orientation_is_one_warning(tree):
    hu, label = make_case(0)
    affine = AFFINE @ np.array([[-1, 0, 0, 39], [0, -1, 0, 35], [0, 0, 1, 0], [0, 0, 0, 1]])
    save(tree / VOLUME, hu[::-1, ::-1], affine)
    save(tree / LABEL, label[::-1, ::-1], affine)
    findings = check(tree)
    assert found_in(tree) == [("datalist.json", "warning", "orientation")]
    assert "LPS in 2 images, RAS in 1 image (volume-0.nii.gz)" in findings["found"][0]


def test_an_image_without_orientation_is_a_warning(tree):
    hu, label = make_case(0)
    for name, array in ((VOLUME, hu), (LABEL, label)):
        nib.save(nib.Nifti1Image(array, None), tree / name)
    assert found_in(tree) == [(VOLUME, "warning", "orientation")]


LISTS = {
    "two folds": (
        lambda c: c["training"][1].update(patient="p0"),
        [("datalist.json", "error", "two folds")],
        "patient p0 is in fold 0 and in fold 1",
    ),
    "fold and test": (
        lambda c: c["test"][0].update(patient="p1"),
        [("datalist.json", "error", "two folds")],
        "in fold 1 and in test",
    ),
    "two patients": (
        lambda c: c["test"].append({"image": "./volume-2.nii.gz", "patient": "p9"}),
        [("volume-2.nii.gz", "error", "two patients")],
        "patient p2 and to patient p9",
    ),
    "no label": (lambda c: c["training"][0].pop("label"), [(VOLUME, "error", "missing")], "it has no label; training"),
    "no fold": (lambda c: c["training"][0].pop("fold"), [(VOLUME, "error", "no fold")], "split the list"),
    "fold -1": (
        lambda c: c["training"][0].update(fold=-1),
        [(VOLUME, "error", "list"), (VOLUME, "error", "no fold")],
        "has fold -1; a whole number",
    ),
    "type": (lambda c: c["test"][0].update(lesion_type="hcc"), [("volume-2.nii.gz", "error", "list")], "'hcc'"),
    "no image": (lambda c: c["test"].append({}), [("datalist.json", "error", "list")], "item 1 of test, {}, has no"),
    "labels": (lambda c: c.update(labels=["liver"]), [("datalist.json", "error", "list")], "labels is"),
    "label index": (
        lambda c: c.update(labels={"liver": 1}),
        [("datalist.json", "error", "list")],
        'labels is {"liver": 1}; an object such as',
    ),
    "empty": (lambda c: c.update(training=[], test=[]), [("datalist.json", "error", "list")], "empty"),
    "no lists": (lambda c: (c.pop("training"), c.pop("test")), [("datalist.json", "error", "list")], "needs"),
}


@pytest.mark.parametrize("defect", LISTS)
def test_unsound_lists_are_findings_and_the_rest_is_checked(defect, tree):
    spoil, expected, sentence = LISTS[defect]
    content = write_tree(tree)
    spoil(content)
    write_list(tree, content)
    assert found_in(tree) == expected
    assert re.search(sentence, check(tree)["found"][0])
    with pytest.raises(LiversegError, match=rf"datalist\.json: .*{sentence.removeprefix('it ')}"):
        read_datalist(tree / "datalist.json")
    (tree / "segmentation-1.nii.gz").unlink()
    if any(row.get("label") == "segmentation-1.nii.gz" for row in content.get("training", [])):
        assert ("segmentation-1.nii.gz", "error", "missing") in found_in(tree)


@pytest.mark.parametrize(
    ("text", "word"),
    [("{", "unreadable"), ("[]", "list"), ("\xff", "unreadable"), ("[" * 10_000, "unreadable")],
    ids=["cut", "no object", "no text", "deep"],
)
def test_files_that_are_no_list_are_one_finding(text, word, tmp_path):
    (tmp_path / "datalist.json").write_bytes(text.encode("latin-1"))
    assert found_in(tmp_path) == [("datalist.json", "error", word)]
    with pytest.raises(LiversegError, match=r"datalist\.json: not a (readable JSON )?data list"):
        read_datalist(tmp_path / "datalist.json")
    (tmp_path / "datalist.json").unlink()
    assert found_in(tmp_path) == [("datalist.json", "error", "missing")]


def test_a_folder_that_is_not_there_is_one_finding(tree):
    findings = check_datalist(tree / "datalist.json", tree / "gone", progress=False)
    assert findings["defect"].tolist() == ["missing"]
    with pytest.raises(UsageError, match="workers is 0; it must be a whole number, 1 or more"):
        check(tree, workers=0)


def test_a_list_with_no_file_below_its_folder_is_one_finding(tree):
    (tree / "elsewhere").mkdir()
    findings = check_datalist(tree / "datalist.json", tree / "elsewhere", progress=False)
    assert findings["defect"].tolist() == ["missing"]
    assert f"none of its 6 files is below {tree / 'elsewhere'}; give --dataset-dir" in findings["found"][0]


def test_findings_do_not_depend_on_the_workers(tree):
    save(tree / LABEL, make_case(0)[1], AFFINE * np.array([-1, -1, 1, 1]))
    for name in ("volume-1.nii.gz", "segmentation-2.nii.gz"):
        content = (tree / name).read_bytes()
        (tree / name).write_bytes(content[: len(content) // 2])
    single, parallel = check(tree, workers=1), check(tree, workers=4)
    pd.testing.assert_frame_equal(single, parallel)
    assert sorted(single["defect"]) == ["flipped affine", "truncated", "truncated"]


@pytest.mark.parametrize("seed", range(30))
def test_damaged_bytes_never_raise(seed, tmp_path):
    hu, label = make_case(0)
    rng = np.random.default_rng(seed)
    write_list(tmp_path, {"training": [{"image": "a.nii", "label": "b.nii", "patient": "p", "fold": 0}]})
    for name, array in (("a.nii", hu[:8, :8]), ("b.nii", label[:8, :8])):
        content = bytearray(save(tmp_path / name, array).read_bytes())
        for place in rng.integers(0, 348, 12):
            content[place] = rng.integers(256)
        (tmp_path / name).write_bytes(content)
    check(tmp_path)


def test_progress_is_on_stderr(tree, capsys):
    check_datalist(tree / "datalist.json", tree)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "checking" in captured.err


def test_findings_are_written_and_read_by_a_person(tree):
    typed_list(tree, slice=99)
    (tree / "volume-1.nii.gz").unlink()
    save(tree / "segmentation-2.nii.gz", np.zeros(SHAPE, np.uint8), np.eye(4))
    findings = check(tree)
    path = write_findings(findings, tree / "new" / "findings.csv")
    pd.testing.assert_frame_equal(pd.read_csv(path, dtype=str), findings, check_dtype=False)
    text = describe_findings(findings)
    assert max(map(len, text.splitlines())) <= 120
    assert text.splitlines()[-1] == "3 errors and 1 warning in 6 files checked"
    (tree / "file").touch()
    with pytest.raises(OutputError, match="folder cannot be created"):
        write_findings(findings, tree / "file" / "findings.csv")


@pytest.mark.parametrize(
    ("patients", "expected"),
    [
        (("lits-028", "ircadb-01", "p2"), ["patient lits-028 is in fold 0 and ircadb-01 in fold 1"]),
        (("lits-028", "p1", "ircadb-01"), ["patient lits-028 is in fold 0 and ircadb-01 in test"]),
        (("lits-027", "ircadb-01", "p2"), []),
    ],
)
def test_a_patient_under_two_names_is_found(patients, expected, tree):
    content = json.loads((tree / "datalist.json").read_text(encoding="utf-8"))
    for patient, item in zip(patients, (*content["training"], *content["test"]), strict=True):
        item["patient"] = patient
    write_list(tree, content)
    findings = check(tree)
    assert [found.split(";")[0] for found in findings["found"]] == expected
    assert set(findings["defect"]) <= {"twins"}
