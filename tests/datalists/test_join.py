"""Joining data lists: paths, folds, properties of items, and lists that must not be joined."""

import json

import numpy as np
import pytest

from liverseg.cli.main import main
from liverseg.datalists import DataItem, DataList, join_datalists, label_table, read_datalist, write_datalist
from liverseg.datasets import SlabDataset
from liverseg.errors import LiversegError, UsageError


@pytest.fixture
def make(tmp_path, write_nifti):
    """Return a function that writes a folder with a list of small volumes, one per patient, and returns the list."""

    def write(name, patients=("p0", "p1"), rows=3, folds=2, folder=None, **facts):
        root = tmp_path / (folder or name)
        (root / "images").mkdir(parents=True)
        label = np.zeros((6, 6, 3), np.uint8)
        label[1:4, 1:4] = 1
        items = []
        for number, patient in enumerate(patients):
            hu = np.where(label > 0, 100, -1000) + number
            write_nifti(root / f"images/{number}.nii.gz", hu.astype(np.int16))
            write_nifti(root / f"{number}.nii.gz", label)
            items.append(DataItem(f"images/{number}.nii.gz", f"{number}.nii.gz", patient, fold=number % folds, **facts))
        listed = DataList(name, "3", f"the {name} archive", f"licence of {name}", label_table(rows), tuple(items))
        return write_datalist(root / "datalist.json", listed)

    return write


def test_items_keep_what_they_say_and_get_paths_from_the_new_list(make, tmp_path):
    full = make("full")
    partial = make("livers", ("q0", "q1", "q2"), folds=3, labelled=("liver",), clipped_hu=(-2000, 300))
    test = DataItem("images/2.nii.gz", None, "q3", labelled=None)
    listed = read_datalist(partial)
    write_datalist(partial, DataList(**{**vars(listed), "training": listed.training[:2], "test": (test,)}))
    path = join_datalists([full, partial], tmp_path / "lists" / "both.json", name="both")
    joined = read_datalist(path)
    assert (joined.name, joined.labels) == ("both", label_table(3))
    assert joined.source == "full: the full archive; livers: the livers archive"
    assert joined.licence == "full: licence of full; livers: licence of livers"
    assert [(item.image, item.label, item.patient, item.fold) for item in joined.training] == [
        ("../full/images/0.nii.gz", "../full/0.nii.gz", "p0", 0),
        ("../full/images/1.nii.gz", "../full/1.nii.gz", "p1", 1),
        ("../livers/images/0.nii.gz", "../livers/0.nii.gz", "q0", 0),
        ("../livers/images/1.nii.gz", "../livers/1.nii.gz", "q1", 1),
    ]
    assert [(item.image, item.label, item.patient) for item in joined.test] == [
        ("../livers/images/2.nii.gz", None, "q3")
    ]
    facts = [(item.labelled, item.clipped_hu) for item in joined.training]
    assert facts == [(None, None)] * 2 + [(("liver",), (-2000, 300))] * 2
    # a training finds them
    assert len(SlabDataset(joined.training, path.parent, tmp_path / "cache", labels=3, progress=False)) == 12


def test_paths_from_another_folder_through_a_link(make, tmp_path):
    lists = [make("a"), make("b", ("q0", "q1"))]
    moved = [tmp_path / f"{path.parent.name}.json" for path in lists]
    for old, new in zip(lists, moved, strict=True):
        old.rename(new)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "er")
    path = join_datalists(
        moved, tmp_path / "ab.json", dataset_dirs=[tmp_path / "a", tmp_path / "b"], root=tmp_path / "link"
    )
    items = read_datalist(path).training
    assert items[0].image == "../../a/images/0.nii.gz"
    assert all((tmp_path / "link" / item.image).is_file() for item in items)


def test_folds_are_kept_and_their_consequences_logged(make, tmp_path, caplog):
    lists = [make("full"), make("livers", ("q0", "q1", "q2"), folds=3, labelled=("liver",))]
    target = tmp_path / "both.json"
    assert read_datalist(join_datalists(lists, target)).folds == (0, 1, 2)
    assert [record.message for record in caplog.records] == [
        f"{target}: folds are kept as they are: full has 0, 1; livers has 0, 1, 2; --folds splits all items again",
        f"{target}: no item of fold 2 has its lesions outlined; "
        "validate it with --key_score liver_dice, or another fold",
    ]
    caplog.clear()
    again = read_datalist(join_datalists(lists, target, folds=5))
    assert sorted(item.fold for item in again.training) == [0, 1, 2, 3, 4]
    assert "folds are kept" not in caplog.text


def test_lists_of_livers_fit_either_table_and_others_do_not(make, tmp_path):
    typed = make("typed", rows=5)
    livers = make("livers", ("q0", "q1"), labelled=("liver",))
    target = tmp_path / "both.json"
    for lists in ([typed, livers], [livers, typed]):
        assert read_datalist(join_datalists(lists, target)).labels == label_table(5)
    untyped = make("lits", ("r0", "r1"))
    with pytest.raises(
        LiversegError, match=r"lits/datalist\.json: its labels are 0 background, 1 liver, 2 lesion, those"
    ):
        join_datalists([typed, untyped], target)
    other = json.loads(untyped.read_text(encoding="utf-8"))
    other["labels"] = {"0": "background", "1": "liver"}
    untyped.write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(LiversegError, match="its labels are 0 background, 1 liver; those of the pre-training or"):
        join_datalists([typed, untyped], target)


def test_a_patient_of_two_lists_is_refused_unless_names_get_a_prefix(make, tmp_path):
    lists, target = [make("a"), make("b")], tmp_path / "ab.json"
    with pytest.raises(
        LiversegError, match=r"b/datalist\.json: patient p0 and 1 more is in .*a/datalist\.json as well"
    ):
        join_datalists(lists, target)
    assert not target.exists()
    joined = read_datalist(join_datalists(lists, target, prefix_patients=True))
    assert [item.patient for item in joined.training] == ["a-p0", "a-p1", "b-p0", "b-p1"]
    with pytest.raises(LiversegError, match="patient p0"):  # the same images are the same people
        join_datalists([lists[0], lists[0]], target)


def test_the_same_patients_may_be_in_several_lists_with_one_fold(make, tmp_path):
    lists = [make("a"), make("b")]
    joined = read_datalist(join_datalists(lists, tmp_path / "ab.json", same_patients=True))
    assert [(item.patient, item.fold) for item in joined.training] == [("p0", 0), ("p1", 1)] * 2
    other = make("c", ("p1", "p0"))
    with pytest.raises(LiversegError, match="patient p0 is in fold 0 and in fold 1; one patient may be in one fold"):
        join_datalists([lists[0], other], tmp_path / "ac.json", same_patients=True)
    with pytest.raises(UsageError, match="prefix_patients and same_patients given"):
        join_datalists(lists, tmp_path / "ab.json", same_patients=True, prefix_patients=True)


def test_public_sets_that_share_patients_are_refused_with_a_prefix_too(make, tmp_path):
    lists = [make("l", ("lits-030", "x")), make("i", ("ircadb-05", "y"))]
    with pytest.raises(LiversegError, match=r"patient ircadb-05 may be lits-030 of .*: leave those of one side out"):
        join_datalists(lists, tmp_path / "li.json", prefix_patients=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lists": ["a"]}, "1 data lists to join; at least 2 are needed"),
        ({"dataset_dirs": ["a"]}, "1 dataset_dirs for 2 data lists"),
        ({"folds": 1}, "1 folds requested; at least 2 are needed"),
        ({"output": "a/datalist.json"}, "is one of the lists to join"),
    ],
)
def test_invalid_arguments_are_refused(options, message, make, tmp_path, monkeypatch):
    lists = [make("a"), make("b", ("q0", "q1"))]
    monkeypatch.chdir(tmp_path)
    arguments = {"lists": lists, "output": "ab.json", **options}
    with pytest.raises(UsageError, match=message):
        join_datalists(**arguments)


def test_the_command(make, tmp_path, capsys):
    lists = [str(make("a")), str(make("b", ("q0", "q1")))]
    target = tmp_path / "ab.json"
    assert main(["datalist", "join", *lists, "-o", str(target)]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{target}\n" and captured.err == ""
    assert read_datalist(target).name == "a+b"
    wrong = ["--dataset-dirs", str(tmp_path / "b"), str(tmp_path)]
    assert main(["datalist", "join", *lists, "-o", str(target), *wrong]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"b/datalist.json: none of its 2 images is below {tmp_path}, such as images/0.nii.gz" in line
    assert main(["datalist", "join", *lists, "-o", str(target), "--root", str(tmp_path / "a")]) == 0
    assert f"its paths are relative to {tmp_path / 'a'}" in capsys.readouterr().err
