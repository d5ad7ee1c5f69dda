"""`liverseg synthesize --cohort`: a typed cohort of real livers, an ordinary one for `liverseg datalist cohort`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from liverseg.datalists import DataItem, DataList, cohort_items, read_datalist, write_datalist
from liverseg.datalists.model import label_table
from liverseg.errors import LiversegError, UsageError
from liverseg.labels import LESION, LESION_TYPES
from liverseg.synthesis.writer import SynthesisResult, synthesize_datalist

pytestmark = pytest.mark.integration

AFFINE = np.diag([-1.5, -1.5, 5.0, 1.0])
LICENCE = "CC BY-SA 4.0"


def write_section(folder: Path, patient: str, number: int, *, slices: int = 1, lesion: bool = False) -> DataItem:
    """Write a noisy liver of 44 cm² with vessels, and with a real lesion of 18 mm if asked."""
    rng = np.random.default_rng([number, *patient.encode()])
    x, y, _ = np.mgrid[:64, :64, :slices]
    liver = np.hypot(x - 32, y - 32) < 25
    hu = np.where(liver, 110.0, -100.0)
    for column, row in ((20, 30), (40, 40), (34, 20)):
        hu[(np.hypot(x - column, y - row) < 3) & liver] += 60
    if lesion:
        hu[np.hypot(x - 30, y - 32) < 6] = 65
    hu += 8 * rng.standard_normal(hu.shape)
    names = {kind: f"{patient}-{number}_{kind}.nii.gz" for kind in ("image", "label")}
    for kind, array in (("image", np.rint(hu).astype(np.int16)), ("label", liver.astype(np.uint8))):
        nib.save(nib.Nifti1Image(array, AFFINE), folder / names[kind])
    return DataItem(names["image"], names["label"], patient=patient, fold=int(patient[1:]) % 3, labelled=("liver",))


def write_list(folder: Path, items: list[DataItem]) -> Path:
    listed = DataList("livers", "1", "livers of this test", LICENCE, label_table(3), tuple(items))
    return write_datalist(folder / "datalist.json", listed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write twelve patients in three folds, with two sections each."""
    folder = tmp_path_factory.mktemp("livers")
    write_list(folder, [write_section(folder, f"p{p}", n, slices=1 + p % 2) for p in range(12) for n in range(2)])
    return folder


def make(folder: Path, output: Path, **arguments: object) -> SynthesisResult:
    settings = {"cohort": True, "copies": 2, "outline_margin_mm": 2.0, "workers": 1, "progress": False, **arguments}
    return synthesize_datalist(folder / "datalist.json", folder, output, **settings)


@pytest.fixture(scope="module")
def cohort(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("cohort")
    assert not make(folder, output, test_fold=2).failures
    return output


def test_it_is_an_ordinary_cohort(cohort: Path) -> None:
    listed = read_datalist(cohort / "datalist.json")
    imported = cohort_items(cohort, progress=False)
    items = (*listed.training, *listed.test)
    assert set(imported) == {replace(item, fold=None) for item in items}
    assert len(items) > 30
    table = pd.read_csv(cohort / "slices.csv")
    for row in table.itertuples():
        label = np.asarray(nib.load(cohort / row.mask).dataobj)[:, :, row.slice]
        pixels = np.bincount(label[label >= LESION] - LESION, minlength=3)
        assert LESION_TYPES[int(pixels.argmax())] == row.lesion_type and pixels.sum() > 0
        assert (label == 1).any()


def test_patients_of_the_test_fold_are_in_no_fold(cohort: Path) -> None:
    listed = read_datalist(cohort / "datalist.json")
    assert {item.patient for item in listed.test} == {"p2", "p5", "p8", "p11"}
    assert {item.fold for item in listed.training} == {0, 1}
    assert "real livers with synthetic lesions" in listed.source and "livers of this test" in listed.source
    assert listed.licence == LICENCE and listed.labels == label_table(5)


def test_types_belong_to_patients_and_are_balanced(cohort: Path) -> None:
    lesions = pd.read_csv(cohort / "lesions.csv")
    types = lesions.groupby("patient")["lesion_type"].agg(lambda of_patient: set(of_patient))
    assert max(map(len, types)) <= 2
    single = [next(iter(names)) for names in types if len(names) == 1]
    assert len(single) >= 6 and set(single) == set(LESION_TYPES)
    assert lesions["volume_ml"].min() * 1000 / 5 > 20  # mm²: lesions from 10 mm on, which a slice of 5 mm crosses


def test_nothing_else_changes(folder: Path, cohort: Path) -> None:
    compared = 0
    for item in read_datalist(cohort / "datalist.json").training:
        name = Path(item.image).name.removesuffix(".nii.gz")[len(item.patient) + 1 : -2]
        before, after = (
            np.asarray(nib.load(path).dataobj) for path in (folder / f"{name}.nii.gz", cohort / item.image)
        )
        if before.shape[2] > 1:  # a lesion may graze the next slice, where it has no label
            continue
        lesion = np.asarray(nib.load(cohort / str(item.label)).dataobj) >= LESION
        near = ndimage.distance_transform_edt(~lesion, sampling=(1.5, 1.5, 5)) < 12
        assert np.array_equal(before[~near], after[~near])
        assert np.abs(before[lesion].astype(float) - after[lesion]).mean() > 5
        compared += 1
    assert compared > 8


def test_the_same_seed_gives_the_same_bytes(folder: Path, cohort: Path, tmp_path: Path) -> None:
    make(folder, tmp_path, test_fold=2)
    made = sorted(
        path.relative_to(cohort) for path in cohort.rglob("*") if path.is_file() and "records" not in path.parts
    )
    assert len(made) > 80
    for path in made:
        assert (cohort / path).read_bytes() == (tmp_path / path).read_bytes(), path
    make(folder, tmp_path / "other", seed=1)
    assert (cohort / "lesions.csv").read_bytes() != (tmp_path / "other" / "lesions.csv").read_bytes()


def test_sections_that_may_show_a_real_lesion_are_left_out(tmp_path: Path) -> None:
    items = [write_section(tmp_path, "p1", 0), write_section(tmp_path, "p1", 1, lesion=True)]
    write_list(tmp_path, [*items, write_section(tmp_path, "p2", 0, slices=9)])
    result = make(tmp_path, tmp_path / "out", copies=1)
    lesion, volume = sorted(result.failures)
    assert "p1-1_image.nii.gz: may show a lesion that nobody outlined, an unusual spot of" in lesion
    assert "p2-0_image.nii.gz: 45 mm; a cohort takes sections below 40 mm" in volume
    assert {item.image for item in read_datalist(result.datalist).training} == {"images/p1_p1-0_image_0.nii.gz"}


def test_wrong_arguments_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a cohort has typed lesions; leave untyped out"):
        make(folder, tmp_path, untyped=True)
    with pytest.raises(UsageError, match="test fold 7 has no item with a liver mask; it has 0, 1, 2"):
        make(folder, tmp_path, test_fold=7)
    write_list(tmp_path, [replace(write_section(tmp_path, "p1", 0), labelled=None)])
    with pytest.raises(LiversegError, match="has outlined lesions; a cohort needs livers"):
        make(tmp_path, tmp_path / "out")
