"""`liverseg datalist` writes a data list of a folder and prints its path."""

import json

import nibabel as nib
import numpy as np
import pytest

from liverseg.cli.main import main
from liverseg.datalists import read_datalist


@pytest.fixture
def lits_folder(tmp_path, write_nifti):
    folder = tmp_path / "lits"
    folder.mkdir()
    for number in range(8):
        (folder / f"volume-{number}.nii").touch()
        write_nifti(folder / f"segmentation-{number}.nii", np.full((2, 2, 2), number % 3, np.uint8))
    return folder


@pytest.fixture
def cohort_folder(tmp_path):
    folder = tmp_path / "cohort"
    folder.mkdir()
    mask = np.zeros((4, 3, 12), np.uint8)
    mask[1:3, 1] = 2
    nib.save(nib.Nifti1Image(mask, np.eye(4)), folder / "mask.nii")
    for patient in range(6):
        nib.save(nib.Nifti1Image(np.full(mask.shape, patient, np.int16), np.eye(4)), folder / f"ct-{patient}.nii")
    rows = [f"p{number // 2},ct-{number // 2}.nii,mask.nii,{number},cyst" for number in range(12)]
    (folder / "slices.csv").write_text("\n".join(["patient,image,mask,slice,lesion_type", *rows]) + "\n")
    return folder


def test_the_list_is_in_the_folder_and_its_path_is_printed(lits_folder, capsys):
    assert main(["datalist", "lits", str(lits_folder), "--folds", "3", "--test", "0.25"]) == 0
    assert capsys.readouterr().out == f"{lits_folder / 'datalist.json'}\n"
    listed = read_datalist(lits_folder / "datalist.json")
    assert (listed.name, listed.folds, len(listed.test), len(listed.training)) == ("lits", (0, 1, 2), 2, 6)
    assert "Bilic" in listed.source


def test_a_cohort_with_a_name_a_source_and_a_licence_somewhere_else(cohort_folder, tmp_path, capsys):
    target = tmp_path / "lists" / "mine.json"
    options = ["--output", str(target), "--name", "mine", "--from", "our archive", "--licence", "internal"]
    assert main(["datalist", "cohort", str(cohort_folder), "--folds", "3", *options]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{target}\n"
    assert f"its paths are relative to {cohort_folder}: give --dataset-dir {cohort_folder} with it\n" in captured.err
    content = json.loads(target.read_text(encoding="utf-8"))
    assert (content["name"], content["source"], content["licence"]) == ("mine", "our archive", "internal")
    assert content["labels"]["3"] == "hemangioma"
    assert not (cohort_folder / "datalist.json").exists()


@pytest.mark.integration
def test_another_seed_is_another_split_and_the_same_seed_the_same_bytes(lits_folder, tmp_path):
    lists = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        target = tmp_path / f"{name}.json"
        assert main(["datalist", "lits", str(lits_folder), "-o", str(target), "--seed", str(seed)]) == 0
        lists.append(target.read_bytes())
    assert lists[0] == lists[1] != lists[2]


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--folds", "9"], 1, "9 folds requested with 8 patients; take 2 to 8"),
        (["--folds", "1"], 2, "1 folds requested; at least 2 are needed"),
        (["--test", "2"], 2, "test share 2.0; a number from 0 to 1 is needed"),
        (["--test", "nan"], 2, "test share nan; a number from 0 to 1 is needed"),
        (["--seed", "-1"], 2, "seed is -1; it must be a whole number, 0 to 4294967295"),
        (["--output", "lits/volume-0.nii/list.json"], 1, "list.json: the data list cannot be written"),
    ],
)
def test_what_cannot_be_split_or_written_is_one_line_and_leaves_nothing(
    options, code, words, lits_folder, monkeypatch, capsys
):
    monkeypatch.chdir(lits_folder.parent)
    before = sorted(lits_folder.iterdir())
    assert main(["datalist", "lits", "lits", *options]) == code
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("liverseg: ")
    assert words in line
    assert captured.out == ""
    assert sorted(lits_folder.iterdir()) == before


@pytest.mark.parametrize("source", ["lits", "cohort"])
def test_a_folder_of_another_layout_is_reported(source, tmp_path, capsys):
    assert main(["datalist", source, str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path) in line
    assert "is this a LiTS tree?" in line or "a cohort needs a CSV with columns" in line


def test_folds_of_another_list_are_taken_over(lits_folder, tmp_path, capsys):
    fixed = tmp_path / "fixed.json"
    assert main(["datalist", "lits", str(lits_folder), "-o", str(fixed), "--folds", "3", "--test", "0.25"]) == 0
    (lits_folder / "segmentation-7.nii").rename(lits_folder / "segmentation-7.nii.gz")  # other paths, same patients
    (lits_folder / "volume-7.nii").rename(lits_folder / "volume-7.nii.gz")
    assert main(["datalist", "lits", str(lits_folder), "--seed", "5", "--folds-from", str(fixed)]) == 0
    own, given = (read_datalist(path) for path in (lits_folder / "datalist.json", fixed))
    folds = [[(item.patient, item.fold) for item in listed.training] for listed in (own, given)]
    assert folds[0] == folds[1]
    assert {item.patient for item in own.test} == {item.patient for item in given.test}
    assert "volume-7.nii.gz" in {item.image for item in (*own.training, *own.test)}
    capsys.readouterr()
    assert main(["datalist", "lits", str(lits_folder), "--test", "0.2", "--folds-from", str(fixed)]) == 2
    assert "take one of the two" in capsys.readouterr().err
    for kind in ("volume", "segmentation"):
        (lits_folder / f"{kind}-8.nii").touch()
    assert main(["datalist", "lits", str(lits_folder), "--folds-from", str(fixed)]) == 1
    assert "1 of the patients are not in it, such as lits-008" in capsys.readouterr().err


def test_a_list_of_test_items_alone_needs_no_folds(lits_folder):
    for number in range(1, 8):
        (lits_folder / f"segmentation-{number}.nii").unlink()
    assert main(["datalist", "lits", str(lits_folder), "--test", "1"]) == 0
    listed = read_datalist(lits_folder / "datalist.json")
    assert (listed.training, len(listed.test)) == ((), 8)
    assert (listed.test[0].label, listed.test[0].fold) == ("segmentation-0.nii", None)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--folds", "1"], 2, "1 folds requested"),
        (["--test", "2"], 2, "test share 2.0"),
        (["--seed", "-1"], 2, "seed is -1"),
        (["--folds-from", "nowhere.json"], 1, "nowhere.json: no such data list"),
        (["--folds-from", "nowhere.json", "--test", "0.2"], 2, "take one of the two"),
    ],
)
def test_arguments_are_refused_before_anything_is_imported(options, code, words, tmp_path, capsys):
    # an importer would refuse the empty folder with another message
    assert main(["datalist", "ircadb", str(tmp_path), *options]) == code
    assert words in capsys.readouterr().err


def test_a_valid_list_is_reported_as_valid(lits_tree, tmp_path, capsys):
    report = tmp_path / "report.csv"
    assert main(["datalist", "check", str(lits_tree / "datalist.json"), "--report", str(report)]) == 0
    assert "0 errors and 0 warnings in 12 files checked" in capsys.readouterr().out
    assert report.read_text(encoding="utf-8") == "file,level,defect,found\n"


def test_defects_are_reported_and_the_exit_code_is_one(lits_folder, capsys):
    assert main(["datalist", "lits", str(lits_folder)]) == 0
    assert main(["datalist", "check", str(lits_folder / "datalist.json"), "--workers", "1"]) == 1
    captured = capsys.readouterr()
    assert "13 errors and 0 warnings in 16 files checked" in captured.out
    assert "Traceback" not in captured.err


def test_a_list_with_the_patients_of_another_is_refused(lits_tree, tmp_path, capsys):
    own = lits_tree / "datalist.json"
    assert main(["datalist", "check", str(own), "--against", str(own)]) == 1
    assert "6 of its patients are in" in " ".join(capsys.readouterr().out.split())
    other = json.loads(own.read_text(encoding="utf-8"))
    for number, item in enumerate((*other["training"], *other["test"]), 1):
        item["patient"] = f"decathlon-liver-{number:03d}"
    (tmp_path / "other.json").write_text(json.dumps(other))
    assert main(["datalist", "check", str(own), "--against", str(tmp_path / "other.json")]) == 1
    assert "error    twins: patient lits-000 is in it and decathlon-liver-001 in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "place", "words"),
    [
        ("--repair", "lits", "it holds originals"),
        ("--repair", "lits/mended", "it is inside"),
        ("--report", "lits/volume-0.nii/findings.csv", "its folder cannot be created"),
        ("--report", "lits", "it is a folder"),
    ],
)
def test_places_that_cannot_be_written_are_refused_before_a_file_is_read(option, place, words, lits_folder, capsys):
    assert main(["datalist", "lits", str(lits_folder)]) == 0
    capsys.readouterr()
    assert main(["datalist", "check", str(lits_folder / "datalist.json"), option, str(lits_folder.parent / place)]) == 1
    captured = capsys.readouterr()
    assert words in captured.err and len(captured.err.splitlines()) == 1
    assert captured.out == ""


def test_a_flipped_label_is_repaired_into_a_copy(lits_tree, tmp_path, capsys):
    tmp_path, mended = tmp_path / "tree", tmp_path / "mended" / "datalist.json"
    tmp_path.mkdir()
    for path in lits_tree.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    label = tmp_path / "segmentation-0.nii.gz"
    flipped = nib.load(label)
    affine = flipped.affine @ np.diag([-1, 1, 1, 1])
    nib.save(nib.Nifti1Image(np.asarray(flipped.dataobj), affine), label)
    before = label.read_bytes()
    command = ["datalist", "check", str(tmp_path / "datalist.json"), "--repair", str(mended.parent)]
    assert main(command) == 1
    captured = capsys.readouterr()
    assert "error    flipped affine: " in captured.out
    assert f"give --dataset-dir {tmp_path} with it" in captured.err
    assert label.read_bytes() == before
    assert main(["datalist", "check", str(mended), "--dataset-dir", str(tmp_path)]) == 0
