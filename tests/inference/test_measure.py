"""The lesion table of a box lesion with known values, on straight and oblique grids."""

import nibabel as nib
import numpy as np
import pytest

from liverseg.imageio.boxes import bounding_box
from liverseg.imageio.volume import read_volume
from liverseg.inference import SlabPrediction
from liverseg.inference.lesion_measurements import lesion_columns
from liverseg.inference.lesions import find_lesions
from liverseg.inference.measurements import file_slice_indices, lesion_table
from liverseg.labels import JOINT_LABELS, PRETRAIN_LABELS

TURN = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]])


def measured(tmp_path, affine, codes="RAS", labels=JOINT_LABELS):
    """Measure a liver with one lesion of 6 × 4 × 3 voxels, RAS+ index (5..10, 8..11, 2..4)."""
    hu = np.full((20, 18, 9), 100, np.int16)
    hu[5:11, 8:12, 2:5] = 12
    hu[5, 8, 2] = 84
    image = nib.Nifti1Image(hu, affine)
    turned = image.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(codes))
    )
    nib.save(turned, tmp_path / "ct.nii")
    volume = read_volume(tmp_path / "ct.nii")
    found = np.where(volume.axial < 90, 2, 1).astype(np.uint8)
    rows = np.tile(np.array([0.7, 0.2, 0.1], np.float32), (72, 1)) if len(labels) == 5 else np.ones((72, 1), np.float32)
    table = lesion_table(find_lesions(SlabPrediction(found, rows), volume.voxel_ml), volume, labels)
    assert len(table) == 1
    return table.records()[0], volume


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SAL", "PSR"])
@pytest.mark.parametrize("turn", [np.eye(3), TURN])
def test_a_box(codes, turn, tmp_path):
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.7, 0.9, 2.5])
    affine[:3, 3] = (-20, 31, -400)
    row, volume = measured(tmp_path, affine, codes)
    assert row["type"] == "cyst"
    assert [row[f"probability_{kind}"] for kind in ("cyst", "hemangioma", "metastasis")] == [0.7, 0.2, 0.1]
    assert row["volume_ml"] == pytest.approx(72 * 0.7 * 0.9 * 2.5 / 1000, abs=1e-4)
    middle = (affine @ [7.5, 9.5, 3, 1])[:3]
    assert [row[f"centroid_{axis}_mm"] for axis in "xyz"] == pytest.approx(list(middle), abs=0.006)
    # between the middles of outer voxels' edges; 5 × 4 voxels is longer than 6 × 3 here
    assert row["longest_diameter_mm"] == pytest.approx(np.hypot(5 * 0.7, 4 * 0.9), abs=0.01)
    assert row["mean_hu"] == 13.0
    assert row["std_hu"] == pytest.approx(np.sqrt(71), abs=0.05)  # one voxel of 72 is 72 HU above the others
    assert (row["surface_distance_mm"], row["touches_surface"]) == (pytest.approx(np.nan, nan_ok=True), False)
    assert row["liver_contrast_hu"] == 13 - 100
    assert np.isnan(row["lesion_score"]) and row["indeterminate_because"] is None
    down = codes in ("LPI",)
    assert (row["first_slice"], row["last_slice"], row["slices"]) == ((4, 6, 3) if down else (2, 4, 3))
    assert row["first_slice"] <= row["diameter_slice"] <= row["last_slice"]
    assert volume.array.shape[volume.slice_axis] == 9


@pytest.mark.parametrize("codes", ["RAS", "LPI", "PSR"])
def test_the_distance_to_the_surface_of_a_liver_in_a_box(codes, tmp_path):
    hu = np.full((30, 28, 15), -100, np.int16)
    hu[4:26, 3:25, 2:13] = 100
    hu[10:13, 9:12, 5:8] = 12
    hu[25, 9:12, 5:8] = 12
    image = nib.Nifti1Image(hu, np.diag([0.7, 0.9, 2.5, 1]))
    turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(codes))
    nib.save(image.as_reoriented(turn), tmp_path / "ct.nii")
    volume = read_volume(tmp_path / "ct.nii")
    box = bounding_box(volume.axial > 0)
    inside = np.where(volume.axial[box] < 90, 3, 1).astype(np.uint8)
    rows = np.ones((36, 3), np.float32) / 3
    lesions = find_lesions(SlabPrediction(inside, rows, box, volume.axial.shape), volume.voxel_ml, 0)
    table = lesion_table(lesions, volume, JOINT_LABELS).to_frame()
    # the first is 6 voxels of 0.7 mm, 6 of 0.9 mm and 3 of 2.5 mm below the surface
    assert table["surface_distance_mm"].tolist() == [pytest.approx(6 * 0.7, abs=0.01), 0.0]
    assert table["touches_surface"].tolist() == [False, True]
    assert table["centroid_x_mm"].tolist() == [pytest.approx(11 * 0.7, abs=0.01), pytest.approx(25 * 0.7, abs=0.01)]


def test_the_contrast_is_to_the_liver_nearby(tmp_path):
    hu = np.full((60, 30, 20), 100, np.int16)
    hu[30:] = 60  # fat, in one lobe only
    hu[8:12, 10:14, 8:12] = 30
    hu[48:52, 10:14, 8:12] = 30
    nib.save(nib.Nifti1Image(hu, np.diag([1.0, 1, 2, 1])), tmp_path / "ct.nii")
    volume = read_volume(tmp_path / "ct.nii")
    found = np.where(volume.axial == 30, 2, 1).astype(np.uint8)
    lesions = find_lesions(SlabPrediction(found, np.ones((128, 3), np.float32) / 3), volume.voxel_ml)
    table = lesion_table(lesions, volume, JOINT_LABELS).to_frame()
    by_place = table.sort_values("centroid_x_mm")["liver_contrast_hu"].tolist()
    assert by_place == [-70, -30]
    alone = np.where(found == 2, 2, 0).astype(np.uint8)  # without liver around them, no comparison is possible
    lesions = find_lesions(SlabPrediction(alone, np.ones((128, 3), np.float32) / 3), volume.voxel_ml)
    assert lesion_table(lesions, volume, JOINT_LABELS).to_frame()["liver_contrast_hu"].isna().all()


def test_slices_are_the_files_own(tmp_path):
    _, up = measured(tmp_path, np.eye(4), "RAS")
    assert file_slice_indices(up).tolist() == list(range(9))
    _, down = measured(tmp_path, np.eye(4), "RAI")
    assert file_slice_indices(down).tolist() == list(range(8, -1, -1))


def test_without_types_there_are_no_probabilities(tmp_path):
    row, _ = measured(tmp_path, np.diag([1.0, 1, 1, 1]), labels=PRETRAIN_LABELS)
    assert row["type"] == "lesion"
    assert tuple(row) == lesion_columns(PRETRAIN_LABELS)
    assert not any("probability" in name for name in row)


def test_an_empty_table_has_every_column(tmp_path):
    _, volume = measured(tmp_path, np.eye(4))
    nothing = SlabPrediction(np.zeros(volume.axial.shape, np.uint8), np.zeros((0, 3), np.float32))
    table = lesion_table(find_lesions(nothing, 1.0), volume, JOINT_LABELS)
    assert table.columns == lesion_columns(JOINT_LABELS)
    assert len(table) == 0
