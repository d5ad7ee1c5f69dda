"""Lesion load of a list's items, and splits balanced by it."""

import logging

import nibabel as nib
import numpy as np
import pytest

from liverseg.datalists import DataItem, assign_folds, build_datalist, hold_out, lesion_loads, read_datalist
from liverseg.datalists import lesion_load as loads_module
from liverseg.datalists.splits import imbalance, load_classes
from liverseg.errors import LiversegError

UPRIGHT = np.diag([-0.5, -2.0, 4.0, 1.0])
LYING = np.array([[0.0, 0, -2.0, 9], [4.0, 0, 0, 8], [0, 0.5, 0, 7], [0, 0, 0, 1]])
"""The slice axis is the second array axis; pixels of a slice have 4 mm by 2 mm."""


def write_label(path, counts, affine=UPRIGHT):
    """Write a label map with some number of lesion voxels on each slice, and liver elsewhere."""
    axis = 2 if affine is UPRIGHT else 1
    label = np.ones((6, 5, len(counts)), np.uint8)
    for number, count in enumerate(counts):
        label[..., number].flat[:count] = 2 + np.arange(count) % 3
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.moveaxis(label, 2, axis), affine), path)


def item(label, patient="p", slice=None, kind=None):
    return DataItem(f"image-{label}", label, patient, slice=slice, lesion_type=kind)


def test_volumes_in_ml_and_slices_in_mm2_along_the_files_own_slice_axis(tmp_path):
    write_label(tmp_path / "upright.nii.gz", [0, 3, 7])
    write_label(tmp_path / "lying.nii", [0, 3, 7, 1], LYING)
    items = [
        item("upright.nii.gz"),
        item("upright.nii.gz", slice=2),
        item("./upright.nii.gz", slice=0),
        item("lying.nii"),
        item("lying.nii", slice=2),
        item("lying.nii", slice=3),
    ]
    assert lesion_loads(items, tmp_path) == pytest.approx((0.04, 7, 0, 0.044, 56, 8))


def test_a_label_is_read_once_for_all_its_items(tmp_path, monkeypatch):
    write_label(tmp_path / "a.nii", [1, 2])
    read = []

    def counted(path):
        read.append(path.name)
        return read_complete(path)

    read_complete = loads_module.read_file
    monkeypatch.setattr(loads_module, "read_file", counted)
    assert lesion_loads([item("a.nii", slice=n % 2) for n in range(6)], tmp_path) == (1, 2) * 3
    assert read == ["a.nii"]


def test_labels_without_a_load_give_one_warning(tmp_path, caplog, capsys):
    write_label(tmp_path / "a.nii", [1, 2])
    write_label(tmp_path / "flat.nii", [1, 2])
    content = bytearray((tmp_path / "flat.nii").read_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    header["srow_x"] = 0
    content[:348] = header.binaryblock
    (tmp_path / "flat.nii").write_bytes(content)
    (tmp_path / "cut.nii.gz").touch()
    names = ["cut.nii.gz", "a.nii", "none.nii", "flat.nii"]
    with caplog.at_level(logging.WARNING):
        found = lesion_loads([*map(item, names), item("a.nii", slice=2), item(None)], tmp_path)
    assert found == (None, pytest.approx(0.012), None, None, None, None)
    (record,) = caplog.records
    assert record.getMessage() == (
        "lesion load not known from 4 label files, such as cut.nii.gz; `liverseg datalist check` gives the reasons"
    )
    assert capsys.readouterr().err == ""


def cohort(amounts, kinds=(None,), slices=1):
    """Return items with loads, one patient per amount, with cyclic types."""
    items = [
        item(f"{n}.nii", f"p{n}", k, kinds[n % len(kinds)])
        for n in range(len(amounts))
        for k in (range(slices) if slices > 1 else [None])
    ]
    return items, [float(amount) for amount in amounts for _ in range(slices)]


def shares(split, loads, folds):
    """Return each fold's share of the load."""
    sums = np.bincount([item.fold for item in split], loads, folds)
    return sums / sums.sum()


@pytest.mark.integration
def test_large_lesions_do_not_meet_in_one_fold():
    amounts = np.ones(50)
    items, _ = cohort(amounts)
    # patients that a split by type alone puts into one fold
    amounts[[item.fold == 0 for item in assign_folds(items, 5)]] = 100
    items, loads = cohort(amounts)
    assert shares(assign_folds(items, 5), loads, 5).max() > 0.95
    assert shares(assign_folds(items, 5, 0, loads), loads, 5) == pytest.approx(0.2)


@pytest.mark.integration
@pytest.mark.parametrize("share", [0.2, 0.4])
def test_large_lesions_are_held_out_by_their_share(share):
    items, _ = cohort(np.ones(60))
    with_load = {item.patient for item in hold_out(items, share)[1]}
    items, loads = cohort([100.0 if f"p{n}" in with_load else 1.0 for n in range(60)])
    _, held_out = hold_out(items, share, 0, loads)
    assert sum(item.patient in with_load for item in held_out) / len(with_load) == pytest.approx(share, abs=0.05)


@pytest.mark.integration
def test_loads_are_spread_within_each_type_and_types_stay_spread():
    rng = np.random.default_rng(3)
    kinds = ("cyst", "hemangioma", "metastasis")
    items, loads = cohort(rng.lognormal(3, 1, 90), kinds, slices=2)
    split = assign_folds(items, 5, 1, loads)
    for kind in kinds:
        of_type = [n for n, item in enumerate(split) if item.lesion_type == kind]
        assert np.ptp(np.bincount([split[n].fold for n in of_type])) <= 2
        median = np.median([loads[n] for n in of_type])
        larger = np.bincount([split[n].fold for n in of_type if loads[n] > median], minlength=5)
        assert larger.min() >= 4


@pytest.mark.integration
def test_loads_nobody_knows_change_nothing():
    items, loads = cohort(range(40), ("cyst", "metastasis"))
    assert assign_folds(items, 5, 2, [None] * 40) == assign_folds(items, 5, 2)
    assert hold_out(items, 0.25, 2, [None] * 40) == hold_out(items, 0.25, 2)
    some = [None if n % 3 else load for n, load in enumerate(loads)]
    assert {item.fold for item in assign_folds(items, 5, 2, some)} == {0, 1, 2, 3, 4}
    with pytest.raises(ValueError, match="39 loads for 40 items"):
        assign_folds(items, 5, 2, loads[1:])


@pytest.mark.parametrize(
    ("loads", "classes"),
    [
        ([5, 1, 3, 6, 2, 4], [3, 1, 2, 3, 1, 2]),
        ([5, 1, 3, 6, 2], [2, 1, 1, 2, 1]),
        ([5, 1, 3], [1, 1, 1]),
        ([5], [1]),
        ([0, 0, 5, 1, 3], [0, 0, 1, 1, 1]),
        ([0, 4, 1, 3, 2], [1, 2, 1, 2, 1]),
        ([np.nan, np.nan, 5, 1], [2, 2, 1, 1]),
        ([np.nan, 1, 2, 3, 4, 5, 6], [2, 1, 1, 2, 2, 3, 3]),
        ([np.nan, 0], [1, 1]),
    ],
)
def test_a_class_of_load_has_an_item_for_each_fold_where_it_can(loads, classes):
    loads = np.array(loads, float)
    assert load_classes(np.full(len(loads), "cyst"), loads, 2).tolist() == classes
    both = load_classes(np.repeat(["cyst", "metastasis"], len(loads)), np.concatenate([loads, 10 * loads]), 2)
    assert both.tolist() == classes * 2


def test_imbalance_is_0_where_folds_are_alike_and_types_count_double():
    types, loads = np.array(["a", "a", "a", "a"]), np.array([1.0, 1, 3, 3])
    assert imbalance(types, loads, np.array([0, 1, 0, 1]), 2) == 0
    assert imbalance(types, loads, np.array([0, 0, 1, 1]), 2) == pytest.approx(0.5)
    assert imbalance(types, loads * 0, np.array([0, 0, 0, 1]), 2) == pytest.approx(2 * 0.5)


@pytest.mark.integration
def test_a_built_list_spreads_the_loads_of_its_labels(tmp_path):
    """Loads stay with their items through the test part and the folds."""
    for number in range(24):
        (tmp_path / f"volume-{number}.nii").touch()
        write_label(tmp_path / f"segmentation-{number}.nii.gz", [1, 20 if number % 4 == 0 else 0])
    large = {f"lits-{number:03d}" for number in range(0, 24, 4)}
    for seed in range(4):
        listed = read_datalist(build_datalist("lits", tmp_path, folds=4, test=1 / 3, seed=seed))
        assert len(listed.test) == 8
        assert sum(item.patient in large for item in listed.test) == 2
        found = [sum(item.patient in large for item in listed.split(fold)[1]) for fold in range(4)]
        assert found == [1, 1, 1, 1]


def test_a_list_is_built_of_labels_that_cannot_be_read_and_of_given_folds_none_is(tmp_path, caplog):
    for number in range(6):
        for kind in ("volume", "segmentation"):
            (tmp_path / f"{kind}-{number}.nii").touch()
    first = build_datalist("lits", tmp_path, output=tmp_path / "a.json", folds=3)
    assert "lesion load not known from 6 label files, such as segmentation-0.nii;" in caplog.text
    caplog.clear()
    again = build_datalist("lits", tmp_path, output=tmp_path / "b.json", folds_from=first)
    assert caplog.text == ""
    assert first.read_bytes() == again.read_bytes()


def test_a_split_that_cannot_be_is_refused_before_labels_are_read(tmp_path, caplog):
    for kind in ("volume", "segmentation"):
        (tmp_path / f"{kind}-1.nii").touch()
    with pytest.raises(LiversegError, match="5 folds requested with 1 patients"):
        build_datalist("lits", tmp_path)
    assert caplog.text == ""
