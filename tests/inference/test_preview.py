"""The preview: its slices, its orientation, its colours."""

import io

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread

from liverseg.imageio.volume import read_volume
from liverseg.inference import SlabPrediction
from liverseg.inference.lesions import find_lesions
from liverseg.inference.measurements import lesion_table
from liverseg.inference.output.preview import draw_preview, key_slices
from liverseg.labels import JOINT_LABELS


def found_in(labels, voxel_ml=1.0):
    rows = np.eye(3, dtype=np.float32)[labels[labels >= 2] - 2]
    return find_lesions(SlabPrediction(labels, rows), voxel_ml)


def test_the_largest_lesions_slice_comes_first():
    labels = np.ones((30, 20, 20), np.uint8)
    labels[20, 2:8, 2:8] = 3
    labels[19, 3:5, 3:5] = 3
    labels[4, 10:13, 10:13] = 2
    assert key_slices(found_in(labels))[:2] == [20, 4]
    assert len(set(key_slices(found_in(labels)))) == 3


def test_without_lesions_the_livers_largest_slice_comes_first():
    labels = np.zeros((30, 20, 20), np.uint8)
    labels[5:15, 5:10, 5:10] = 1
    labels[11, 2:15, 2:15] = 1
    chosen = key_slices(found_in(labels))
    assert chosen[0] == 11
    assert all(5 <= index < 15 for index in chosen)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_few_slices_are_shown_once_each(depth):
    assert sorted(key_slices(found_in(np.zeros((depth, 4, 4), np.uint8)))) == list(range(depth))


def drawn(tmp_path, hu, labels_ras, affine):
    nib.save(nib.Nifti1Image(hu, affine), tmp_path / "ct.nii")
    volume = read_volume(tmp_path / "ct.nii")
    nib.save(nib.Nifti1Image(labels_ras, affine), tmp_path / "l.nii")
    found = found_in(np.ascontiguousarray(read_volume(tmp_path / "l.nii").axial), volume.voxel_ml)
    table = lesion_table(found, volume, JOINT_LABELS)
    picture = draw_preview("a $case_1$ & <b>", volume, found, table, JOINT_LABELS)
    return (imread(io.BytesIO(picture))[..., :3] * 255).round()


def where(picture, color, tolerance=12):
    return np.argwhere((abs(picture - np.array(color)) < tolerance).all(axis=2))


def test_the_patients_left_is_on_the_right_front_is_up_and_spacing_is_kept(tmp_path):
    hu = np.full((60, 40, 1), -1000, np.int16)
    hu[2:58, 2:38] = 40
    labels = np.zeros((60, 40, 1), np.uint8)
    labels[5:25, 8:32] = 1  # the patient's right: the file's first axis runs from right to left
    labels[10:15, 24:30] = 4  # its front: the second axis runs from back to front
    affine = np.diag([-1.0, 2.0, 5.0, 1.0])
    picture = drawn(tmp_path, hu, labels, affine)
    panel = picture[:, : picture.shape[1] // 3]
    liver, lesion = where(panel, JOINT_LABELS[1].color), where(panel, JOINT_LABELS[4].color)
    assert len(liver) > 50
    assert len(lesion) > 20
    assert np.median(liver[:, 1]) < panel.shape[1] / 2
    assert np.median(lesion[:, 0]) < np.median(liver[:, 0])
    tall, wide = np.ptp(liver, axis=0)
    assert tall / wide == pytest.approx(24 * 2 / 20, rel=0.1)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 30, 2), (40, 1, 3), (300, 20, 1)])
def test_thin_volumes_are_drawn(shape, tmp_path):
    picture = drawn(tmp_path, np.full(shape, 50, np.int16), np.full(shape, 2, np.uint8), np.eye(4))
    assert min(picture.shape[:2]) > 200
    assert picture.max() > 0
