"""Data lists: importers read real trees, splits share no patients, and invalid lists are refused."""

import json
from pathlib import Path

import pytest
from cohort_tree import image, mask, nifti
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import load_decathlon_datalist

from liverseg.datalists import (
    SOURCES,
    DataItem,
    DataList,
    assign_folds,
    build_datalist,
    cohort_items,
    hold_out,
    lits_items,
    read_datalist,
    write_datalist,
)
from liverseg.errors import LiversegError, UsageError
from liverseg.labels import LESION_TYPES

loads = st.one_of(st.none(), st.just(0.0), st.floats(0, 1e4), st.sampled_from([1.0, 50.0]))
cohorts = st.integers(2, 30).flatmap(
    lambda patients: st.lists(
        st.tuples(st.integers(0, patients - 1), st.sampled_from([None, *LESION_TYPES]), loads), min_size=2, max_size=80
    ).filter(lambda rows: len({row[0] for row in rows}) >= 2)
)
"""Rows of patient, type and load, with any number of patients, types and slices per patient."""


def items_of(rows):
    return [
        DataItem(image=f"p{patient}.nii", label=f"l{patient}.nii", patient=f"p{patient}", slice=n, lesion_type=kind)
        for n, (patient, kind) in enumerate(rows)
    ]


@pytest.mark.integration
@settings(max_examples=60, deadline=None)
@given(
    rows=cohorts,
    folds=st.integers(2, 6),
    seed=st.integers(0, 2**32 - 1),
    share=st.sampled_from([0, 0.1, 0.2, 0.25, 0.4, 0.9]),
    with_loads=st.booleans(),
)
def test_no_split_ever_shares_a_patient(rows, folds, seed, share, with_loads):
    items = items_of([row[:2] for row in rows])
    loads = [row[2] for row in rows] if with_loads else None
    kept, held_out = hold_out(items, share, seed, loads)
    assert sorted(item.slice for item in kept + held_out) == list(range(len(items)))
    assert not {item.patient for item in kept} & {item.patient for item in held_out}
    assert kept
    assert bool(held_out) == (share > 0)
    assert (kept, held_out) == hold_out(items, share, seed, loads)
    loads_kept = [loads[item.slice] for item in kept] if with_loads else None
    if len({item.patient for item in kept}) < folds:
        with pytest.raises(LiversegError, match=f"{folds} folds requested"):
            assign_folds(kept, folds, seed, loads_kept)
        return
    numbered = assign_folds(kept, folds, seed, loads_kept)
    assert [item.slice for item in numbered] == [item.slice for item in kept]
    homes = {}
    for item in numbered:
        assert homes.setdefault(item.patient, item.fold) == item.fold
    assert set(homes.values()) == set(range(folds))
    assert numbered == assign_folds(kept, folds, seed, loads_kept)


def test_no_fold_is_empty_where_few_patients_have_most_items():
    kinds = [(0, None)] * 4 + [(0, "cyst")] + [(1, "hemangioma")] * 3 + [(2, "hemangioma")] * 2
    kept, _ = hold_out(items_of([*kinds, (3, None), (3, "hemangioma"), (4, None)]), 0.25, seed=0)
    numbered = assign_folds(kept, 4, seed=0)
    assert {item.fold for item in numbered} == set(range(4))
    assert len({(item.patient, item.fold) for item in numbered}) == 4


def test_types_are_spread_over_folds():
    items = items_of([(patient, LESION_TYPES[patient % 3]) for patient in range(60)])
    for fold in range(5):
        held_out = [item.lesion_type for item in assign_folds(items, 5) if item.fold == fold]
        assert {held_out.count(kind) for kind in LESION_TYPES} == {4}


@pytest.mark.parametrize("share", [0.03, 0.1, 0.25, 0.3, 0.4, 0.45, 0.6, 0.75, 0.9, 0.97])
def test_every_share_is_held_out_with_types_in_balance(share):
    items = items_of([(patient, LESION_TYPES[patient % 3]) for patient in range(120) for _ in range(1 + patient % 4)])
    _, held_out = hold_out(items, share)
    assert len(held_out) / len(items) == pytest.approx(share, abs=0.02)
    counts = [sum(item.lesion_type == kind for item in held_out) for kind in LESION_TYPES]
    assert max(counts) - min(counts) <= 8


@pytest.mark.parametrize(("share", "parts"), [(0.25, 4), (0.2, 5)])
def test_a_quarter_is_the_first_of_four_parts_and_a_fifth_of_five(share, parts):
    items = items_of([(patient, LESION_TYPES[patient % 3]) for patient in range(40) for _ in range(1 + patient % 3)])
    kept, held_out = hold_out(items, share, seed=2)
    numbered = assign_folds(items, parts, seed=2)
    assert [item.slice for item in held_out] == [item.slice for item in numbered if item.fold == 0]
    assert {item.fold for item in kept + held_out} == {None}


def test_a_few_patients_can_be_held_out_of_and_split():
    items = items_of(enumerate([*LESION_TYPES, *LESION_TYPES]))
    for share in (0.01, 0.1, 0.5, 0.9):
        assert len(hold_out(items, share)[1]) == max(1, min(5, round(6 * share)))
    assert sorted(item.fold for item in assign_folds(items, 6)) == [0, 1, 2, 3, 4, 5]
    assert hold_out(items[:1], 1) == ((), tuple(items[:1]))
    with pytest.raises(LiversegError, match=r"test share 0\.5 requested with 1 patients; at least 2"):
        hold_out(items[:1], 0.5)


@pytest.mark.parametrize("settings", [{"folds": 1}, {"seed": -1}, {"seed": 2**32}])
def test_numbers_that_cannot_be_are_wrong_usage(settings):
    with pytest.raises(UsageError, match=r"(is|are) needed|must be a whole number"):
        assign_folds(items_of([(1, "cyst"), (2, "cyst")]), **{"folds": 2, **settings})


def test_more_folds_than_patients_is_refused():
    with pytest.raises(LiversegError, match="5 folds requested with 2 patients"):
        assign_folds(items_of([(1, "cyst"), (2, "cyst"), (2, "cyst")]), 5)


def lits_tree(root, numbers=range(6)):
    for number in numbers:
        folder = root / ("batch1" if number < 3 else "batch2")
        folder.mkdir(exist_ok=True, parents=True)
        (folder / f"volume-{number}.nii").touch()
        (folder / f"segmentation-{number}.nii.gz").touch()
    return root


def test_lits_tree_in_two_batches_with_test_volumes(tmp_path):
    lits_tree(tmp_path)
    (tmp_path / "test-volume-9.nii").touch()
    (tmp_path / "volume-10.nii.gz").touch()
    labelled, unlabelled = lits_items(tmp_path)
    assert [item.patient for item in labelled] == [f"lits-{n:03d}" for n in range(6)]
    assert labelled[4].image == "batch2/volume-4.nii"
    assert labelled[4].label == "batch2/segmentation-4.nii.gz"
    assert [(item.image, item.patient, item.label) for item in unlabelled] == [
        ("volume-10.nii.gz", "lits-010", None),
        ("test-volume-9.nii", "lits-test-009", None),
    ]


def test_lits_trees_that_are_refused(tmp_path):
    with pytest.raises(LiversegError, match="no such folder"):
        lits_items(tmp_path / "none")
    with pytest.raises(LiversegError, match="is this a LiTS tree"):
        lits_items(tmp_path)
    lits_tree(tmp_path)
    (tmp_path / "volume-2.nii.gz").touch()
    with pytest.raises(LiversegError, match="volume 2 occurs twice"):
        lits_items(tmp_path)


def test_building_a_list_twice_gives_the_same_bytes_and_monai_reads_it(tmp_path):
    root = lits_tree(tmp_path / "lits", range(12))
    first = build_datalist("lits", root, test=0.25, seed=3).read_bytes()
    assert build_datalist("lits", root, test=0.25, seed=3).read_bytes() == first
    listed = read_datalist(root / "datalist.json")
    assert len(listed.test) == 3
    assert listed.folds == (0, 1, 2, 3, 4)
    for_monai = load_decathlon_datalist(root / "datalist.json", data_list_key="training", base_dir=root)
    assert len(for_monai) == 9
    assert all((root / item.image).samefile(row["image"]) for item, row in zip(listed.training, for_monai, strict=True))


def cohort_table(root, rows, header="patient,image,mask,slice,lesion_type"):
    image(root, "a.nii", (11, 9, 6))
    nifti(root / "m.nii", mask((1, 2, 4), (11, 9, 6), range(6)))
    nifti(root / "untyped.nii", mask((1,), (11, 9, 6), range(6)))
    (root / "slices.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return root


def test_cohort_table(tmp_path):
    items = cohort_items(cohort_table(tmp_path, ["p1,a.nii,m.nii,4,cyst", "p2,a.nii,m.nii,0,metastasis"]))
    assert items[0] == DataItem("a.nii", "m.nii", "p1", slice=4, lesion_type="cyst")
    assert items[1].patient == "p2"


def test_white_space_in_a_cohort_table_does_not_count(tmp_path):
    rows = ["p1, a.nii ,m.nii,4 ,cyst ", " p1\t,a.nii,m.nii, 5, metastasis"]
    items = cohort_items(cohort_table(tmp_path, rows, "patient, image, mask, slice, lesion_type"))
    assert [item.patient for item in items] == ["p1", "p1"]
    assert items[0] == DataItem("a.nii", "m.nii", "p1", slice=4, lesion_type="cyst")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("p1,a.nii,m.nii,4,cist", r"row 3: lesion type 'cist'; allowed: cyst, hemangioma, metastasis"),
        ("p1,gone.nii,m.nii,4,cyst", r"row 3: .*gone.nii does not exist"),
        ("p1,a.nii,m.nii,-1,cyst", r"row 3: slice '-1'"),
        (",a.nii,m.nii,1,cyst", r"row 3: no patient"),
        (" ,a.nii,m.nii,1,cyst", r"row 3: no patient"),
        ("p1,a.nii,untyped.nii,1", r"row 3: lesion type ''; allowed: .*; untyped.nii has no types either"),
        ("p1,a.nii,m.nii,²,cyst", r"row 3: slice '²'"),
    ],
)
def test_cohort_rows_that_are_refused(row, message, tmp_path):
    with pytest.raises(LiversegError, match=message):
        cohort_items(cohort_table(tmp_path, ["p0,a.nii,m.nii,4,cyst", row]))


def test_cohort_without_a_column_or_table(tmp_path):
    with pytest.raises(LiversegError, match="no such table"):
        cohort_items(tmp_path)
    with pytest.raises(LiversegError, match="no column lesion_type"):
        cohort_items(cohort_table(tmp_path, ["p,a.nii,m.nii,1"], "patient,image,mask,slice"))


def listed(training, test=()):
    return DataList("x", "1", "here", "CC0-1.0", {}, tuple(training), tuple(test))


@pytest.mark.parametrize(
    ("datalist", "message"),
    [
        (listed([]), "empty"),
        (listed([DataItem("a", "b", "p", 0), DataItem("c", "d", "p", 1)]), "patient p is in fold 0 and in fold 1"),
        (listed([DataItem("a", "b", "p", 0)], [DataItem("c", "d", "p")]), "patient p is in fold 0 and in test"),
        (
            listed([DataItem("a", "b", "p", 0), DataItem("./a", "d", "q", 0)]),
            r"x\.json: \./a belongs to patient p and to patient q",
        ),
        (listed([DataItem("a", None, "p", 0)]), "has no label"),
        (listed([DataItem("a", "b", "p")]), "has no fold"),
        (listed([DataItem("a", "b", "p", 0, lesion_type="hcc")]), "lesion_type 'hcc'; allowed"),
    ],
)
def test_unsound_lists_are_neither_written_nor_read(datalist, message, tmp_path):
    with pytest.raises(LiversegError, match=message):
        write_datalist(tmp_path / "x.json", datalist)
    assert not (tmp_path / "x.json").exists()


def test_files_that_are_no_data_list(tmp_path):
    with pytest.raises(LiversegError, match="no such data list"):
        read_datalist(tmp_path / "x.json")
    for text in ("{", "[]", '{"training": 3}', '{"training": [{"label": "b"}]}'):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(LiversegError, match=r"x\.json"):
            read_datalist(tmp_path / "x.json")
    (tmp_path / "x.json").write_text(json.dumps({"training": [{"image": "a", "label": "b", "fold": -1}]}))
    with pytest.raises(LiversegError, match="fold -1"):
        read_datalist(tmp_path / "x.json")


GOOD = {"image": "a", "label": "b", "fold": 0}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"training": [GOOD], "test": None}, "test is null; a list is needed"),
        ({"training": {"a": 1}}, r'training is {"a": 1}; a list is needed'),
        ({"training": [GOOD], "labels": ["background"]}, r'labels is \["background"\]; an object such as'),
        ({"training": [{**GOOD, "label": ["b"]}]}, r'a has label \["b"\]; text is needed'),
        ({"training": [{**GOOD, "lesion_type": 2}]}, "a has lesion_type 2; text is needed"),
        ({"training": [{**GOOD, "image": 3}]}, 'item 0 of training, {"image": 3, .*}, has no image, or not as text'),
        ({"training": [{**GOOD, "patient": None}]}, "a has patient null; text or a whole number is needed"),
        ({"training": [{**GOOD, "fold": True}]}, "a has fold true; a whole number from 0 is needed"),
        ({"training": [GOOD], "test": [None]}, "item 0 of test, null, has no image"),
    ],
)
def test_values_of_the_wrong_kind_are_named(content, message, tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(LiversegError, match=rf"x\.json: {message}"):
        read_datalist(tmp_path / "x.json")


def test_a_fold_that_is_not_there():
    with pytest.raises(LiversegError, match="no fold 3; it has 0, 1"):
        listed([DataItem("a", "b", "p", 0), DataItem("c", "d", "q", 1)]).split(3)


def test_every_source_is_on_the_page_of_data_lists():
    page = (Path(__file__).parents[2] / "data_lists" / "README.md").read_text(encoding="utf-8")
    assert "lits" in SOURCES
    assert [source for source in SOURCES if f"- `{source}`:" not in page and f"| `{source}` |" not in page] == []
