"""Patient names that differ only in spelling."""

import logging

import pytest
from cohort_tree import image, mask, nifti
from ct_tree import check, write_list, write_tree

from liverseg.datalists import build_datalist
from liverseg.datalists.check import check_datalist
from liverseg.datalists.similar_names import similar_names


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        ("patient-001", "PATIENT-001", True),
        ("01", "1", True),
        ("p 1", "P_01", True),
        ("Müller.7", "Mu\u0308ller-007", True),
        ("0", "000", True),
        ("site1-12", "Site 01_0012", True),
        ("1-12", "11-2", False),
        ("1.20", "12.0", False),
        ("p10", "p1", False),
        ("p1", "q1", False),
        ("lits-001", "lits-test-001", False),
    ],
)
def test_spellings(first, second, alike):
    assert similar_names([first, second, first]) == ([tuple(sorted((first, second)))] if alike else [])


def listed(tree, *patients):
    content = write_tree(tree)
    for patient, item in zip(patients, (*content["training"], *content["test"]), strict=True):
        item["patient"] = patient
    return write_list(tree, content)


@pytest.mark.parametrize(
    ("patients", "expected"),
    [
        (("patient-001", "PATIENT-001", "p2"), ["patients 'PATIENT-001' in fold 1, 'patient-001' in fold 0"]),
        (("01", "p1", "1"), ["patients '01' in fold 0, '1' in test"]),
        (("01", "p1", "2"), []),
    ],
)
def test_one_patient_spelled_in_two_ways_on_two_sides_is_a_warning(patients, expected, tmp_path):
    listed(tmp_path, *patients)
    findings = check(tmp_path)
    assert [found.split(" differ")[0] for found in findings["found"]] == expected
    assert set(zip(findings["level"], findings["defect"], strict=True)) <= {("warning", "similar patients")}


def test_two_spellings_in_one_fold_leak_nothing(tmp_path):
    content = listed(tmp_path, "p-1", "P1", "p2")
    content["training"][1]["fold"] = 0
    write_list(tmp_path, content)
    assert check(tmp_path).empty


def test_a_spelling_in_the_other_list_is_a_warning(tmp_path):
    for name in ("own", "other"):
        (tmp_path / name).mkdir()
    listed(tmp_path / "own", "p0", "p1", "p2")
    listed(tmp_path / "other", "q0", "q1", "P-02")
    other = tmp_path / "other" / "datalist.json"
    findings = check_datalist(tmp_path / "own" / "datalist.json", tmp_path / "own", against=other, progress=False)
    assert findings["defect"].tolist() == ["similar patients"]
    assert f"patients 'P-02' in {other}, 'p2' in it differ" in findings["found"][0]


def test_an_import_logs_it_in_one_line(tmp_path, caplog):
    image(tmp_path, "a.nii", (11, 9, 6))
    nifti(tmp_path / "m.nii", mask((1, 2, 4), (11, 9, 6), range(6)))
    for number in range(1, 4):
        (tmp_path / f"a{number}.nii").write_bytes((tmp_path / "a.nii").read_bytes())
    rows = ["p-1,a.nii,m.nii,4,cyst", "P1,a1.nii,m.nii,4,cyst", "q-1,a2.nii,m.nii,4,cyst", "q1,a3.nii,m.nii,4,cyst"]
    (tmp_path / "slices.csv").write_text("\n".join(["patient,image,mask,slice,lesion_type", *rows]) + "\n")
    with caplog.at_level(logging.WARNING):
        build_datalist("cohort", tmp_path, folds=2)
    (line,) = [record.getMessage() for record in caplog.records if "spelling" in record.getMessage()]
    assert line.startswith("patients 'P1' and 'p-1' differ only in spelling, and 1 more such names; if they are one")
