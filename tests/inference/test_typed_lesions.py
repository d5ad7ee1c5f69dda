"""Ranges of measurements of typed lesions, from a data list."""

import json

import nibabel
import numpy as np
import pytest

from liverseg.errors import LiversegError
from liverseg.inference.typed_lesions import measure_typed_lesions
from liverseg.labels import JOINT_LABELS, PRETRAIN_LABELS


def write_list(folder, items, labels=JOINT_LABELS):
    listed = {
        "name": "typed",
        "version": "1",
        "source": "made here",
        "licence": "CC0-1.0",
        "labels": {str(label.index): label.name for label in labels},
        "training": items,
        "test": [],
    }
    (folder / "datalist.json").write_text(json.dumps(listed), encoding="utf-8")
    return folder / "datalist.json"


@pytest.fixture
def typed(tmp_path):
    """Volumes with a cube of each type and increasing HU; the last has no outlined lesion."""
    items = []
    for number in range(25):
        label = np.ones((40, 40, 12), np.uint8)
        hu = np.full(label.shape, 100, np.int16)
        for value, level in ((2, 0), (3, 150), (4, 50)):
            box = np.s_[10 * value - 18 : 10 * value - 10, 16:24, 4:8]
            label[box], hu[box] = value, level + number
        label = label if number < 24 else np.ones_like(label)
        for name, array in (("image", hu), ("label", label)):
            nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1, 2, 1])), tmp_path / f"{name}{number}.nii.gz")
        item = {"image": f"image{number}.nii.gz", "label": f"label{number}.nii.gz", "patient": f"p{number}", "fold": 0}
        items.append(item if number < 24 else item | {"labelled": ["liver"]})
    return items


def test_the_ranges_are_those_of_the_outlined_lesions(typed, tmp_path):
    ranges = measure_typed_lesions(write_list(tmp_path, typed))
    assert set(ranges) == {"cyst", "hemangioma", "metastasis"}
    for kind, level in (("cyst", 0), ("hemangioma", 150), ("metastasis", 50)):
        low, high = np.quantile(level + np.arange(24), (0.01, 0.99))
        np.testing.assert_allclose(ranges[kind]["mean_hu"], (low, high), atol=0.01)
        np.testing.assert_allclose(ranges[kind]["liver_contrast_hu"], (low - 100, high - 100), atol=0.01)
        np.testing.assert_allclose(ranges[kind]["longest_diameter_mm"], [np.hypot(8, 8)] * 2, rtol=0.15)
    assert measure_typed_lesions(None) is None


def test_a_list_that_cannot_be_used_is_refused(typed, tmp_path):
    with pytest.raises(LiversegError, match="its lesions have no types"):
        measure_typed_lesions(write_list(tmp_path, typed, PRETRAIN_LABELS))
    with pytest.raises(LiversegError, match="5 lesions of type cyst with mean_hu; at least 20 are needed"):
        measure_typed_lesions(write_list(tmp_path, typed[:5]))
    with pytest.raises(LiversegError, match="no item's lesions are outlined and typed"):
        measure_typed_lesions(write_list(tmp_path, typed[24:]))
