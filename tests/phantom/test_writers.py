"""The two trees on disk: files, tables, determinism, continuation, bad arguments."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from liverseg.cli.main import main
from liverseg.datalists.importers.cohort import cohort_items
from liverseg.datalists.importers.lits import lits_items
from liverseg.errors import LiversegError, OutputError, UsageError
from liverseg.labels import LESION, LESION_TYPES
from liverseg.phantom import write_cohort, write_lits_tree
from liverseg.phantom.difficulty import RECIPE
from liverseg.phantom.tables import choose_slices


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.integration
def test_bytes_do_not_depend_on_the_number_of_workers(cohort: Path, tmp_path: Path) -> None:
    root = write_cohort(tmp_path / "two", patients=5, slices=12, matrix=64, seed=4, workers=2, progress=False)
    assert contents(root) == contents(cohort)


def test_lits_tree_is_what_the_importer_reads(lits_tree: Path) -> None:
    items, unlabelled = lits_items(lits_tree)
    assert [item.image for item in items] == ["volume-0.nii.gz", "volume-1.nii.gz"]
    assert not unlabelled
    for item in items:
        image, label = nib.load(lits_tree / item.image), nib.load(lits_tree / item.label)
        assert image.get_data_dtype() == np.int16
        assert label.get_data_dtype() == np.uint8
        assert image.shape == label.shape
        assert set(np.unique(label.dataobj)) == {0, 1, 2}


def test_headers_carry_both_forms_and_millimetres(lits_tree: Path) -> None:
    header = nib.load(lits_tree / "volume-0.nii.gz").header
    assert header["sform_code"] == header["qform_code"] == 1
    assert header.get_xyzt_units()[0] == "mm"
    assert np.allclose(header.get_sform(), header.get_qform(), atol=1e-4)
    assert nib.aff2axcodes(header.get_sform()) == ("L", "P", "S")
    assert 320 / 64 <= header.get_zooms()[0] <= 430 / 64
    assert 1 <= header.get_zooms()[2] <= 5


def test_slice_table_agrees_with_the_labels(cohort: Path) -> None:
    items = cohort_items(cohort)
    assert len(items) == 12
    assert len({item.patient for item in items}) == 5
    assert len({(item.patient, item.slice) for item in items}) == 12
    for item in items:
        label = np.asarray(nib.load(cohort / item.label).dataobj)
        pixels = np.bincount(label[:, :, item.slice].ravel(), minlength=5)[LESION:]
        assert pixels.max() > 0
        assert pixels[LESION_TYPES.index(item.lesion_type)] == pixels.max()


def test_lesion_table_agrees_with_the_labels(cohort: Path) -> None:
    lesions = pd.read_csv(cohort / "lesions.csv")
    assert set(lesions["lesion_type"]) <= set(LESION_TYPES)
    for patient, rows in lesions.groupby("patient"):
        file = nib.load(cohort / "labels" / f"{patient}.nii.gz")
        label = np.asarray(file.dataobj)
        voxel_ml = abs(np.linalg.det(file.affine[:3, :3])) / 1000
        assert rows["volume_ml"].sum() == pytest.approx((label >= LESION).sum() * voxel_ml, rel=1e-3)


@pytest.mark.integration
def test_deleted_files_come_back_and_the_others_are_kept(cohort: Path, tmp_path: Path) -> None:
    root = tmp_path / "cohort"
    shutil.copytree(cohort, root)
    kept = root / "images" / "patient-001.nii.gz"
    before = kept.stat().st_mtime_ns
    (root / "labels" / "patient-003.nii.gz").unlink()
    (root / "records" / "patient-004.json").unlink()
    (root / "slices.csv").unlink()
    write_cohort(root, patients=5, slices=12, matrix=64, seed=4, workers=1, progress=False)
    assert kept.stat().st_mtime_ns == before
    assert contents(root) == contents(cohort)


def test_other_slices_need_no_other_volumes(cohort: Path, tmp_path: Path) -> None:
    root = tmp_path / "cohort"
    shutil.copytree(cohort, root)
    write_cohort(root, patients=5, slices=9, matrix=64, seed=4, workers=1, progress=False)
    assert len(pd.read_csv(root / "slices.csv")) == 9
    assert json.loads((root / "phantom.json").read_text(encoding="utf-8"))["slices"] == 9
    with pytest.raises(LiversegError, match=r"slices 5000: only \d+ slices of these 5 patients show a lesion"):
        write_cohort(root, patients=5, slices=5000, matrix=64, seed=4, workers=1, progress=False)
    assert json.loads((root / "phantom.json").read_text(encoding="utf-8"))["slices"] == 9  # as in the tables


def test_a_cohort_of_an_earlier_version_is_continued(cohort: Path, tmp_path: Path) -> None:
    root = tmp_path / "cohort"
    shutil.copytree(cohort, root)
    settings = {"kind": "cohort", "patients": 5, "matrix": 64, "seed": 4, "recipe": RECIPE}
    (root / "phantom.json").write_text(json.dumps(settings))  # earlier versions wrote no number of slices
    images = {path: path.stat().st_mtime_ns for path in root.rglob("*.nii.gz")}
    write_cohort(root, patients=5, slices=12, matrix=64, seed=4, workers=1, progress=False)
    assert contents(root) == contents(cohort)
    assert {path: path.stat().st_mtime_ns for path in images} == images
    assert json.loads((root / "phantom.json").read_text(encoding="utf-8")) == {**settings, "slices": 12}
    (root / "phantom.json").write_text(json.dumps(settings))
    with pytest.raises(LiversegError, match="made with matrix 64, now matrix 96 is requested"):
        write_cohort(root, patients=5, slices=12, matrix=96, seed=4, workers=1, progress=False)


def test_types_are_dealt_out_evenly() -> None:
    def record(number: int, kind: str) -> dict:
        section = {str(k): 20 - abs(k - 10) for k in range(21)}
        return {"patient": f"patient-{number:03d}", "lesions": [{"lesion_type": kind, "slices": section}]}

    records = [record(n, LESION_TYPES[0 if n < 6 else 1 + n % 2]) for n in range(12)]
    chosen = choose_slices(records, 45, seed=0)
    counts = [sum(kind == name for rows in chosen for _, kind in rows) for name in LESION_TYPES]
    assert sum(counts) == 45
    assert max(counts) - min(counts) <= 6  # by patients alone it would be 22, 11 and 12
    assert all(rows and rows == sorted(rows) for rows in chosen)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patients": 0}, "patients 0: at least 1"),
        ({"patients": 5, "slices": 4}, "slices 4: fewer than the 5 patients"),
        ({"matrix": 32}, "matrix 32: from 64"),
        ({"workers": 0}, "workers is 0"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_bad_arguments_are_named_and_nothing_is_written(tmp_path: Path, arguments: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        write_cohort(tmp_path / "cohort", **{"patients": 5, "slices": 12, "matrix": 64, **arguments}, progress=False)
    assert not (tmp_path / "cohort").exists()


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "volume-0.nii.gz").write_bytes(b"a patient's own")
    with pytest.raises(LiversegError, match="not empty"):
        write_lits_tree(tmp_path, volumes=1, matrix=64, progress=False)
    assert contents(tmp_path) == {"volume-0.nii.gz": b"a patient's own"}


def test_a_tree_of_other_settings_is_refused(lits_tree: Path) -> None:
    with pytest.raises(LiversegError, match="made with seed 4, now seed 5 is requested"):
        write_lits_tree(lits_tree, volumes=2, matrix=64, seed=5, progress=False)


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written there"):
        write_lits_tree(tmp_path / "file" / "lits", volumes=1, matrix=64, progress=False)


@pytest.mark.integration
def test_command_writes_and_says_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["phantom", str(tmp_path), "--kind", "lits", "--volumes", "1", "--matrix", "64", "--workers", "1"]
    assert main(arguments) == 0
    assert f"1 volumes in {tmp_path / 'lits'}" in capsys.readouterr().err
    settings = json.loads((tmp_path / "lits" / "phantom.json").read_text(encoding="utf-8"))
    assert settings["kind"] == "lits"


def test_command_checks_both_trees_before_it_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["phantom", str(tmp_path / "out"), "--patients", "9", "--slices", "3"]) == 2
    assert "slices 3" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
