"""The measurement of lesions of unknown types: AUROC by patient, names, and a run on one section."""

import argparse

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks.unknown_lesions import KINDS, Places, auroc, measure, outcome, report
from liverseg.datalists import DataItem, DataList, write_datalist
from liverseg.datalists.model import label_table
from liverseg.imageio.volume import read_volume
from liverseg.labels import LESION_TYPES
from liverseg.synthesis.unknown_types import UNKNOWN_TYPES


def scored(lesions_of_patient=6, patients=9, seed=0):
    rng = np.random.default_rng(seed)
    kinds = rng.choice(KINDS, lesions_of_patient * patients)
    rows = pd.DataFrame({"patient": np.repeat(np.arange(patients), lesions_of_patient), "kind": kinds})
    return rows, np.round(rng.normal(rows["kind"].isin(UNKNOWN_TYPES), 1.0), 1)  # rounded, so that there are ties


def test_auroc_is_that_of_scikit_learn():
    rows, scores = scored()
    found = auroc(rows, scores, UNKNOWN_TYPES)
    assert found.value == pytest.approx(roc_auc_score(rows["kind"].isin(UNKNOWN_TYPES), scores))
    assert found.lower < found.value < found.upper
    hcc = rows["kind"].isin((*LESION_TYPES, "hcc"))
    expected = roc_auc_score(rows["kind"][hcc] == "hcc", scores[hcc])
    assert auroc(rows, scores, ("hcc",)).value == pytest.approx(expected)


def test_the_interval_is_that_of_resampled_patients():
    rows, scores = scored(patients=12)
    rng = np.random.default_rng(1)
    values = []
    for _ in range(1500):
        index = np.concatenate([np.flatnonzero(rows["patient"] == patient) for patient in rng.integers(12, size=12)])
        values.append(roc_auc_score(rows["kind"].iloc[index].isin(UNKNOWN_TYPES), scores[index]))
    found = auroc(rows, scores, UNKNOWN_TYPES)
    np.testing.assert_allclose([found.lower, found.upper], np.percentile(values, [2.5, 97.5]), atol=0.02)


def test_a_lesion_takes_the_name_of_most_of_its_overlap():
    columns = {f"probability_{name}": [0.2, 0.8] for name in LESION_TYPES}
    measured = {"mean_hu": 60.0, "std_hu": 9.0, "liver_contrast_hu": -50.0, "longest_diameter_mm": 20.0}
    table = pd.DataFrame({"id": [1, 2], "type": ["cyst", "indeterminate"], "lesion_score": [0.9, 0.8], **columns})
    table = table.assign(indeterminate_because=[None, "x"], **measured)
    ids = np.array([0, 0, 1, 2, 2], np.uint16)
    found = outcome(ids, table, {"cyst": {"mean_hu": (0.0, 40.0)}})
    assert found["name"] == "indeterminate" and found["lesion_score"] == 0.8
    assert found["training_distance"] == pytest.approx(0.5)
    assert outcome(ids[:2], table, None) == {"name": "missed"}


@pytest.fixture(scope="module")
def section(tmp_path_factory):
    """Return the list of an abdomen of one slice: a liver with vessels, a spine and air around."""
    folder = tmp_path_factory.mktemp("section")
    x, y, _ = np.mgrid[:160, :160, :1]
    body = ((x - 80) / 75) ** 2 + ((y - 80) / 55) ** 2 < 1
    liver = ((x - 52) / 36) ** 2 + ((y - 76) / 40) ** 2 < 1
    hu = np.where(liver, 105.0, np.where(body, -90.0, -1000.0))
    hu[np.hypot(x - 80, y - 118) < 12] = 300
    for column, row in ((40, 60), (60, 90), (50, 76)):
        hu[np.hypot(x - column, y - row) < 3] = 165
    hu += 8 * np.random.default_rng(0).standard_normal(hu.shape)
    for name, array in (("image", np.rint(hu).astype(np.int16)), ("label", liver.astype(np.uint8))):
        nib.save(nib.Nifti1Image(array, np.diag([-1.5, -1.5, 5.0, 1.0])), folder / f"{name}.nii.gz")
    item = DataItem("image.nii.gz", "label.nii.gz", patient="a", fold=0, labelled=("liver",))
    return write_datalist(folder / "list.json", DataList("x", "1", "made here", "CC0-1.0", label_table(3), (item,)))


def test_all_types_are_painted_at_one_place(section):
    volume = read_volume(section.parent / "image.nii.gz")
    liver = read_volume(section.parent / "label.nii.gz").axial > 0
    places = Places(volume, liver, (0,), np.zeros(liver.shape, bool))
    assert len(places.lesions) == 1
    centre, shape = places.lesions[0]
    assert 2 * shape.radius >= 8
    rows, columns = np.indices(liver.shape[1:]) * 1.5
    box_row, box_column = places.box[1].start * 1.5, places.box[2].start * 1.5
    distance = np.hypot(rows - box_row - centre[1], columns - box_column - centre[2])
    for number, kind in enumerate(KINDS):
        hu, painted = places.paint(kind, number)
        again, _ = places.paint(kind, number)
        assert np.array_equal(hu, again)
        changed = hu[0] != np.rint(volume.axial[0])
        assert changed.any() and distance[changed].max() <= 1.5 * shape.reach + 9
        assert not changed[~liver[0] & (distance > shape.reach)].any()
        assert len(painted) == 1 and (painted[0] is None or painted[0].kind == kind)


@pytest.mark.integration
def test_a_section_is_measured_and_reported(section, capsys):
    args = argparse.Namespace(list=section, dataset_dir=None, fold=0, copies=1, seed=0, weights=None)
    table = pd.DataFrame(measure(args))
    assert set(table["kind"]) <= set(KINDS) and {"cyst", "calcified", "fat-containing"} <= set(table["kind"])
    assert set(table["name"]) <= {"missed", "indeterminate", *LESION_TYPES}
    found = table[table["name"] != "missed"]
    assert len(found) and found[[f"probability_{name}" for name in LESION_TYPES]].sum(axis=1).round(2).eq(1).all()
    report(table)
    printed = capsys.readouterr().out
    assert "1 patients" in printed and "distance from the training's ranges" in printed
