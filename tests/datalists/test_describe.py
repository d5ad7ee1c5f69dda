"""Statistics of a data list, compared with the known content of its files."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from ct_tree import AFFINE, LABEL, SHAPE, make_case, save, write_list, write_tree
from PIL import Image

from liverseg.cli.main import main
from liverseg.datalists.describe import describe_datalist
from liverseg.errors import LiversegError


@pytest.fixture
def tree(tmp_path):
    write_tree(tmp_path)
    return tmp_path


def describe(root):
    return describe_datalist(root / "datalist.json", root, progress=False)


def test_volumes_are_counted_and_measured(tree):
    found = describe(tree)
    label = nib.load(tree / LABEL)
    voxel_ml = abs(np.linalg.det(AFFINE[:3, :3])) / 1000
    lesion = np.asarray(label.dataobj) == 2
    hu = np.asarray(nib.load(tree / "volume-0.nii.gz").dataobj)[lesion]
    first = found.lesions.iloc[0]
    assert (len(found.lesions), found.by_slice) == (3, False)
    assert first["volume_ml"] == pytest.approx(lesion.sum() * voxel_ml)
    assert first["diameter_mm"] == pytest.approx((6000 * lesion.sum() * voxel_ml / np.pi) ** (1 / 3))
    assert (first["mean_hu"], first["sd_hu"]) == (pytest.approx(hu.mean()), pytest.approx(hu.std()))
    images = found.images.iloc[0]
    assert (images["pixel_mm"], images["slice_mm"], images["volume_slices"]) == (2, 4, SHAPE[2])
    assert images["liver_ml"] == pytest.approx((np.asarray(label.dataobj) > 0).sum() * voxel_ml)
    assert images["liver_hu"] == pytest.approx(110, abs=1)
    table = found.table
    assert list(table.columns) == ["training", "test", "all"]
    assert list(table.loc["patients"]) == ["2", "1", "3"]
    assert list(table.loc["... lesion"]) == ["2 in 2 patients", "1 in 1 patients", "3 in 3 patients"]


def test_lesions_that_touch_by_a_corner_are_two_and_a_liver_without_any_is_counted(tree):
    _, label = make_case(0)
    label[label == 2] = 1
    label[10, 16, 4] = label[11, 17, 4] = 2
    save(tree / LABEL, label)
    _, healthy = make_case(1)
    save(tree / "segmentation-1.nii.gz", np.minimum(healthy, 1).astype(np.uint8))
    found = describe(tree)
    assert list(found.lesions.groupby("image").size()) == [2, 1]
    assert found.table.loc["volumes with a lesion", "training"] == "1"
    assert found.table.loc["volumes", "training"] == "2"


def test_annotated_slices_are_described_one_by_one_with_their_types(cohort_tree):
    found = describe(cohort_tree)
    rows = pd.read_csv(cohort_tree / "slices.csv")
    assert found.by_slice
    assert found.table.loc["slices", "all"] == str(len(rows))
    assert set(found.lesions["lesion_type"]) <= {"cyst", "hemangioma", "metastasis"}
    for row in rows.itertuples():
        label = nib.load(cohort_tree / row.mask)
        plane = np.asarray(label.dataobj)[:, :, row.slice]
        here = found.lesions[(found.lesions["image"] == row.image) & (found.lesions["slice"] == row.slice)]
        pixel = float(np.prod(label.header.get_zooms()[:2]))
        assert here["area_mm2"].sum() == pytest.approx((plane >= 2).sum() * pixel, rel=1e-5)
        assert row.lesion_type in set(here["lesion_type"])


@pytest.mark.integration
def test_tables_and_picture_are_written(cohort_tree, tmp_path, capsys):
    folder = tmp_path / "out"
    assert main(["datalist", "describe", str(cohort_tree / "datalist.json"), "-o", str(folder)]) == 0
    assert "HU of liver" in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == {"summary.csv", "images.csv", "lesions.csv", "picture.png"}
    assert len(pd.read_csv(folder / "lesions.csv")) == len(describe(cohort_tree).lesions)
    with Image.open(folder / "picture.png") as picture:
        assert len(set(picture.convert("RGB").get_flattened_data())) > 50


def test_errors_of_describe_are_one_line(tree):
    save(tree / LABEL, np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(LiversegError, match=r"segmentation-0\.nii\.gz: another shape than its image"):
        describe(tree)
    write_list(tree, {"training": [], "test": [{"image": "volume-0.nii.gz"}]})
    with pytest.raises(LiversegError, match="no item has a label"):
        describe(tree)
