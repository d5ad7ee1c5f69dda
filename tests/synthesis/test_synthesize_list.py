"""`liverseg synthesize`: copies of a list's volumes with lesions, reproducible by seed."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from liverseg.cli.main import main
from liverseg.datalists import DataItem, DataList, read_datalist, write_datalist
from liverseg.datalists.model import label_table
from liverseg.errors import ExitCode, LiversegError, UsageError
from liverseg.labels import LESION, LESION_TYPES, LIVER
from liverseg.synthesis.writer import synthesize_datalist

AFFINE = np.diag([-1.6, -1.6, 5.0, 1.0])


def write_volume(folder: Path, name: str, slices: int, *, vessels: float = 55.0, radius: float = 38.0) -> DataItem:
    """Return a noisy liver with vessels in fat, 96 × 96 pixels."""
    rng = np.random.default_rng(len(name))
    x, y, _ = np.mgrid[:96, :96, :slices]
    liver = np.hypot(x - 48, y - 46) < radius
    hu = np.where(liver, 110.0, -100.0)
    for column, row in ((30, 40), (60, 60), (50, 30)):
        hu[(np.hypot(x - column, y - row) < 4) & liver] += vessels
    hu += 10 * rng.standard_normal(hu.shape)
    for kind, array in (("image", np.rint(hu).astype(np.int16)), ("label", liver.astype(np.uint8))):
        nib.save(nib.Nifti1Image(array, AFFINE), folder / f"{name}_{kind}.nii.gz")
    return DataItem(f"{name}_image.nii.gz", f"{name}_label.nii.gz", patient=name, fold=0, labelled=("liver",))


def write_list(folder: Path, items: list[DataItem]) -> Path:
    listed = DataList("livers", "1", "made here", "CC0-1.0", label_table(3), tuple(items))
    return write_datalist(folder / "datalist.json", listed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write two sections of one slice, in different folds, and a volume of 20 slices."""
    folder = tmp_path_factory.mktemp("livers")
    items = [write_volume(folder, "a", 1), write_volume(folder, "bb", 2), write_volume(folder, "ccc", 20)]
    write_list(folder, [items[0], replace(items[1], fold=1), items[2]])
    return folder


def run(folder: Path, output: Path, **arguments: object) -> DataList:
    result = synthesize_datalist(folder / "datalist.json", folder, output, workers=1, progress=False, **arguments)
    assert not result.failures
    return read_datalist(result.datalist)


def test_copies_hold_typed_lesions_in_the_livers(folder: Path, tmp_path: Path) -> None:
    listed = run(folder, tmp_path)
    assert {item.patient: item.fold for item in listed.training} == {"a": 0, "bb": 1, "ccc": 0}
    assert listed.labels == label_table(5)
    assert "counted as liver" in listed.source
    assert [item.slice for item in listed.training] == [0, 0, 1, None]  # a volume stays a volume
    rows = pd.read_csv(tmp_path / "lesions.csv")
    assert set(rows["lesion_type"]) <= set(LESION_TYPES)
    for item in listed.training:
        before = nib.load(folder / f"{item.patient}_label.nii.gz").get_fdata()
        label = nib.load(tmp_path / str(item.label))
        np.testing.assert_allclose(label.affine, AFFINE, atol=1e-6)
        found = np.asarray(label.dataobj)
        assert ((found >= LIVER) == (before == LIVER)).all()
        lesions = rows[rows["image"] == item.image]
        for number, kind in enumerate(LESION_TYPES):
            millilitres = (found == LESION + number).sum() * 1.6 * 1.6 * 5 / 1000
            assert lesions.loc[lesions["lesion_type"] == kind, "volume_ml"].sum() == pytest.approx(
                millilitres, abs=1e-3
            )
        if item.lesion_type is not None and item.slice is not None:
            assert set(np.unique(found[:, :, item.slice])) - {0, 1} == {LESION + LESION_TYPES.index(item.lesion_type)}


def test_sections_always_have_a_lesion(folder: Path, tmp_path: Path) -> None:
    listed = run(folder, tmp_path, copies=4, fold=1)
    assert len({item.image for item in listed.training}) == 4
    found = [np.asarray(nib.load(tmp_path / str(item.label)).dataobj).max() for item in listed.training]
    assert min(found) >= LESION


def test_generous_outlines_hold_the_exact_ones(folder: Path, tmp_path: Path) -> None:
    exact, generous = (run(folder, tmp_path / str(mm), fold=1, outline_margin_mm=mm) for mm in (0.0, 3.0))
    for exact_item, generous_item in zip(exact.training, generous.training, strict=True):
        for kind, same in (("image", True), ("label", False)):
            first, second = (
                np.asarray(nib.load(tmp_path / mm / str(getattr(item, kind))).dataobj)
                for mm, item in (("0.0", exact_item), ("3.0", generous_item))
            )
            assert np.array_equal(first, second) == same
        assert (second[first >= LESION] >= LESION).all()


def test_lesions_that_are_hardly_seen_are_drawn_again(folder: Path, tmp_path: Path) -> None:
    for least in (0.0, 25.0):
        run(folder, tmp_path / str(least), fold=1, copies=30, min_detectability=least)
    rows = {least: pd.read_csv(tmp_path / str(least) / "lesions.csv") for least in (0.0, 25.0)}
    # a cyst is 100 HU below these livers, metastases and hemangiomas less
    contrast = {least: (table["mean_hu"] - table["liver_hu"]).abs() for least, table in rows.items()}
    assert contrast[25.0].median() > contrast[0.0].median()
    assert rows[25.0]["volume_ml"].min() > rows[0.0]["volume_ml"].min()


def test_nothing_is_painted_over_what_may_be_a_lesion_that_nobody_outlined(tmp_path: Path) -> None:
    item = write_volume(tmp_path, "a", 1)
    image = nib.load(tmp_path / item.image)
    hu = np.asarray(image.dataobj).copy()
    x, y, _ = np.mgrid[:96, :96, :1]
    spot = np.hypot(x - 40, y - 50) < 12
    hu[spot] -= 50
    nib.save(nib.Nifti1Image(hu, AFFINE), tmp_path / item.image)
    write_list(tmp_path, [item])
    listed = run(tmp_path, tmp_path / "out", copies=20)
    assert len(listed.training) == 20
    inner = np.hypot(x - 40, y - 50) < 10
    for new in listed.training:
        assert (np.asarray(nib.load(tmp_path / "out" / str(new.label)).dataobj)[inner] == LIVER).all()


def test_a_seed_decides_the_voxels_however_many_work(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "one", seed=3)
    two = synthesize_datalist(
        folder / "datalist.json", folder, tmp_path / "two", seed=3, workers=1, fold=0, progress=False
    )
    run(folder, tmp_path / "other", seed=4)
    for path in (tmp_path / "two" / "images").iterdir():
        voxels = np.asarray(nib.load(path).dataobj)
        assert np.array_equal(voxels, np.asarray(nib.load(tmp_path / "one" / "images" / path.name).dataobj))
        assert not np.array_equal(voxels, np.asarray(nib.load(tmp_path / "other" / "images" / path.name).dataobj))
    assert two.volumes == 2


def test_what_is_complete_is_not_written_again(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path)
    images = sorted((tmp_path / "images").iterdir())
    written = [path.stat().st_mtime_ns for path in images]
    images[1].unlink()
    run(folder, tmp_path)
    again = [path.stat().st_mtime_ns for path in images]
    assert again[0] == written[0]
    assert again[1] > written[1]


def test_untyped_lists_stay_untyped(tmp_path: Path) -> None:
    item = write_volume(tmp_path, "d", 1)
    write_list(tmp_path, [replace(item, labelled=None)])
    listed = run(tmp_path, tmp_path / "out")
    assert listed.labels == label_table(3)
    assert np.asarray(nib.load(tmp_path / "out" / str(listed.training[0].label)).dataobj).max() == LESION


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"radius": 5.0}, r"small_label.nii.gz: 0.\d+ ml of liver|nowhere wide enough"),
        ({"vessels": 0.0}, "small_image.nii.gz: vessels are -?[0-9]+ HU brighter than the liver; at least 12 HU"),
    ],
)
def test_livers_that_cannot_be_painted_fail_alone(
    folder: Path, tmp_path: Path, made: dict[str, float], message: str
) -> None:
    items = [write_volume(tmp_path, "good", 1), write_volume(tmp_path, "small", 1, **made)]
    result = synthesize_datalist(write_list(tmp_path, items), tmp_path, tmp_path / "out", workers=1, progress=False)
    assert result.volumes == 1
    (failure,) = result.failures

    assert re.search(message, failure)
    with pytest.raises(LiversegError, match="no volume could be painted"):
        synthesize_datalist(write_list(tmp_path, items[1:]), tmp_path, tmp_path / "out", workers=1, progress=False)


def test_the_command_says_what_was_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = [write_volume(tmp_path, "good", 1), write_volume(tmp_path, "small", 1, radius=5.0)]
    write_list(tmp_path, items)
    command = [
        "synthesize",
        str(tmp_path / "datalist.json"),
        "-o",
        str(tmp_path / "out"),
        "--workers",
        "1",
        "--untyped",
    ]
    assert main(command) == ExitCode.SOME_CASES_FAILED
    captured = capsys.readouterr()
    assert captured.out.strip() == str(tmp_path / "out" / "datalist.json")
    assert "liverseg: " in captured.err
    assert "small_label.nii.gz" in captured.err
    assert read_datalist(tmp_path / "out" / "datalist.json").labels == label_table(3)
    write_list(tmp_path, items[:1])
    assert main(command) == ExitCode.DONE


def test_a_list_without_liver_masks_is_refused(tmp_path: Path) -> None:
    listed = DataList("x", "1", "made here", "CC0-1.0", label_table(3), (), (DataItem("a.nii.gz", None, patient="a"),))
    path = write_datalist(tmp_path / "datalist.json", listed)
    with pytest.raises(LiversegError, match=r"no item has a liver mask"):
        synthesize_datalist(path, tmp_path, tmp_path / "out")


def test_arguments_out_of_range_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="outline margin 6 mm: 0 to 5 are allowed"):
        synthesize_datalist(folder / "datalist.json", folder, tmp_path, outline_margin_mm=6)
    with pytest.raises(UsageError, match="min detectability nan: it must be a number, 0 or more"):
        synthesize_datalist(folder / "datalist.json", folder, tmp_path, min_detectability=float("nan"))
    with pytest.raises(UsageError, match="copies 0: at least 1 is needed"):
        synthesize_datalist(folder / "datalist.json", folder, tmp_path, copies=0)
    with pytest.raises(LiversegError, match="no fold 7; it has 0, 1"):
        synthesize_datalist(folder / "datalist.json", folder, tmp_path, fold=7)
