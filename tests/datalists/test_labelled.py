"""Items with partial label maps: listed, read, checked, and refused if they contradict themselves."""

import json

import nibabel as nib
import numpy as np
import pytest

from liverseg.datalists import (
    DataItem,
    DataList,
    build_datalist,
    label_table,
    lesion_loads,
    read_datalist,
    write_datalist,
)
from liverseg.datalists.check import check_datalist
from liverseg.datalists.describe import describe_datalist
from liverseg.datasets import SlabDataset
from liverseg.errors import LiversegError, UsageError


@pytest.fixture
def livers(tmp_path, write_nifti):
    """Return a function that writes four volumes in LiTS's layout with label maps of some values."""

    def write(*values):
        rng = np.random.default_rng(0)
        for number in range(4):
            label = np.zeros((8, 8, 4), np.uint8)
            for start, value in enumerate(values):
                label[2:6, 2 + 2 * start : 4 + 2 * start, 1:3] = value
            hu = np.where(label > 0, 100, -50) + rng.integers(-20, 20, label.shape)
            hu[0] = -1000
            write_nifti(tmp_path / f"volume-{number}.nii.gz", hu.astype(np.int16))
            write_nifti(tmp_path / f"segmentation-{number}.nii.gz", label)
        return tmp_path

    return write


def test_a_set_of_livers_is_listed_checked_and_described(livers):
    root = livers(1)
    path = build_datalist("lits", root, folds=2, labelled="liver", name="livers", origin="here", licence="CC0-1.0")
    datalist = read_datalist(path)
    assert {item.labelled for item in datalist.training} == {("liver",)}
    assert {item.patient for item in datalist.training} == {f"livers-lits-00{n}" for n in range(4)}
    assert json.loads(path.read_text(encoding="utf-8"))["training"][0]["labelled"] == ["liver"]
    assert lesion_loads(datalist.training, root, progress=False) == (None,) * 4
    findings = check_datalist(path, root, progress=False)
    assert "labelled" not in set(findings["defect"]) and not (findings["level"] == "error").any()
    table = describe_datalist(path, root, progress=False).table
    assert table.loc["volumes whose lesions are not outlined", "all"] == "4"
    assert table.loc["lesions", "all"] == "0"


@pytest.mark.parametrize(("labelled", "values", "highest"), [(["liver"], (1, 2), 1), (["liver", "lesion"], (1, 3), 2)])
def test_label_maps_with_too_many_values_are_found(labelled, values, highest, livers):
    root = livers(*values)
    items = tuple(
        DataItem(f"volume-{n}.nii.gz", f"segmentation-{n}.nii.gz", f"p{n}", fold=n % 2, labelled=tuple(labelled))
        for n in range(4)
    )
    path = write_datalist(root / "datalist.json", DataList("l", "1", "s", "CC0-1.0", label_table(5), items))
    findings = check_datalist(path, root, progress=False)
    of_labels = findings[findings["defect"] == "labelled"]
    assert sorted(of_labels["file"]) == [f"segmentation-{n}.nii.gz" for n in range(4)]
    assert set(of_labels["level"]) == {"error"}
    assert set(of_labels["found"]) == {
        f"it holds {values[-1]}, but its item is labelled {json.dumps(labelled)}, whose label maps hold 0 to {highest}"
        "; correct labelled or the label map"
    }


def test_lesions_without_a_type_are_described_as_lesions(livers):
    root = livers(1, 2)
    items = tuple(
        DataItem(f"volume-{n}.nii.gz", f"segmentation-{n}.nii.gz", f"p{n}", fold=n % 2, labelled=("liver", "lesion"))
        for n in range(4)
    )
    path = write_datalist(root / "datalist.json", DataList("l", "1", "s", "CC0-1.0", label_table(5), items))
    description = describe_datalist(path, root, progress=False)
    assert set(description.lesions["lesion_type"]) == {"lesion"}
    assert "volumes whose lesions are not outlined" not in description.table.index


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"labelled": "liver"}, r'has labelled "liver"; \["liver"\] or \["liver", "lesion"\] is needed, or none'),
        ({"labelled": ["lesion"]}, r'has labelled \["lesion"\]'),
        ({"labelled": [["liver"]]}, "has labelled"),
        (
            {"labelled": ["liver"], "lesion_type": "cyst"},
            r'lesion_type cyst and labelled \["liver"\]; give one of the two',
        ),
    ],
)
def test_invalid_labelled_is_refused(item, message, tmp_path):
    content = {"training": [{"image": "a.nii", "label": "b.nii", "patient": "p", "fold": 0, **item}]}
    (tmp_path / "datalist.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(LiversegError, match=message):
        read_datalist(tmp_path / "datalist.json")


def test_what_a_set_cannot_be_labelled_with(livers):
    with pytest.raises(UsageError, match="labelled 'spleen'; it must be liver"):
        build_datalist("lits", livers(1), folds=2, labelled="spleen")
    with pytest.raises(UsageError, match="source cohort: labelled given; allowed for lits and slices only"):
        build_datalist("cohort", livers(1), labelled="liver")
    with pytest.raises(UsageError, match="this is no LiTS; give its name, where it is from and its licence"):
        build_datalist("lits", livers(1), labelled="liver")


def test_slices_of_one_label_map_may_be_labelled_apart(livers):
    root = livers(1)
    label = nib.load(root / "segmentation-0.nii.gz")
    array = np.asanyarray(label.dataobj).copy()
    array[3, 3, 1], array[3, 3, 2] = 4, 2
    nib.save(nib.Nifti1Image(array, label.affine), root / "segmentation-0.nii.gz")
    typed = DataItem("volume-0.nii.gz", "segmentation-0.nii.gz", "p", fold=0, slice=1, lesion_type="metastasis")
    untyped = DataItem("volume-0.nii.gz", "segmentation-0.nii.gz", "p", fold=0, slice=2, labelled=("liver", "lesion"))
    assert len(SlabDataset([typed, untyped], root, None, labels=5, progress=False)) == 2
    path = write_datalist(root / "datalist.json", DataList("l", "1", "s", "CC0-1.0", label_table(5), (typed, untyped)))
    assert "labelled" not in set(check_datalist(path, root, progress=False)["defect"])
    lesions = describe_datalist(path, root, progress=False).lesions
    assert dict(zip(lesions["slice"], lesions["lesion_type"], strict=True)) == {1: "metastasis", 2: "lesion"}
