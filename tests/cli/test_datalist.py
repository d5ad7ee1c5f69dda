"""`liverseg datalist`: a folder in, a data list out, its path on stdout."""

import json

import pytest

from liverseg.cli.main import main
from liverseg.datalists import read_datalist


@pytest.fixture
def lits_folder(tmp_path):
    folder = tmp_path / "lits"
    folder.mkdir()
    for number in range(8):
        (folder / f"volume-{number}.nii").touch()
        (folder / f"segmentation-{number}.nii").touch()
    return folder


@pytest.fixture
def cohort_folder(tmp_path):
    folder = tmp_path / "cohort"
    folder.mkdir()
    (folder / "mask.nii").touch()
    for patient in range(6):
        (folder / f"ct-{patient}.nii").touch()
    rows = [f"p{number // 2},ct-{number // 2}.nii,mask.nii,{number},cyst" for number in range(12)]
    (folder / "slices.csv").write_text("\n".join(["patient,image,mask,slice,lesion_type", *rows]) + "\n")
    return folder


def test_the_list_lies_in_the_folder_and_its_path_is_told(lits_folder, capsys):
    assert main(["datalist", "lits", str(lits_folder), "--folds", "3", "--test", "0.25"]) == 0
    assert capsys.readouterr().out == f"{lits_folder / 'datalist.json'}\n"
    listed = read_datalist(lits_folder / "datalist.json")
    assert (listed.name, listed.folds, len(listed.test), len(listed.training)) == ("lits", (0, 1, 2), 2, 6)
    assert "Bilic" in listed.source


def test_a_cohort_with_a_name_a_source_and_a_licence_somewhere_else(cohort_folder, tmp_path, capsys):
    target = tmp_path / "lists" / "mine.json"
    options = ["--output", str(target), "--name", "mine", "--from", "our archive", "--licence", "internal"]
    assert main(["datalist", "cohort", str(cohort_folder), "--folds", "3", *options]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    content = json.loads(target.read_text())
    assert (content["name"], content["source"], content["licence"]) == ("mine", "our archive", "internal")
    assert content["labels"]["3"] == "hemangioma"
    assert not (cohort_folder / "datalist.json").exists()


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
        (["--folds", "9"], 1, "9 folds asked for with 8 patients; take 2 to 8"),
        (["--folds", "1"], 2, "1 folds asked for; at least 2 are needed"),
        (["--test", "1"], 2, "test share 1.0; a number from 0 to below 1 is needed"),
        (["--test", "2"], 2, "test share 2.0; a number from 0 to below 1 is needed"),
        (["--test", "nan"], 2, "test share nan; a number from 0 to below 1 is needed"),
        (["--seed", "-1"], 2, "seed -1; a whole number from 0 to 4294967295 is needed"),
        (["--output", "lits/volume-0.nii/list.json"], 1, "list.json: the data list cannot be written"),
    ],
)
def test_what_cannot_be_split_or_written_is_one_line_and_leaves_nothing(
    options, code, words, lits_folder, monkeypatch, capsys
):
    monkeypatch.chdir(lits_folder.parent)
    before = sorted(lits_folder.iterdir())
    assert main(["datalist", "lits", "lits", *options]) == code
    told = capsys.readouterr()
    (line,) = told.err.splitlines()
    assert line.startswith("liverseg: ")
    assert words in line
    assert told.out == ""
    assert sorted(lits_folder.iterdir()) == before


@pytest.mark.parametrize("source", ["lits", "cohort"])
def test_a_folder_of_another_layout_is_told(source, tmp_path, capsys):
    assert main(["datalist", source, str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path) in line
    assert "is this a LiTS tree?" in line or "a cohort needs a CSV with columns" in line
