"""The largest liver is kept; lesions are connected by faces."""

import numpy as np
import pytest

from liverseg.inference import SlabPrediction
from liverseg.inference.components import keep_largest_liver, lesion_components


def prediction(labels):
    """Return a prediction in which each lesion voxel's probabilities contain its flat index, to identify kept rows."""
    index = np.flatnonzero(labels >= 2).astype(np.float32)
    return SlabPrediction(labels, np.stack([index] * 3, axis=1), lesion_probabilities=index)


def test_smaller_parts_go_with_their_lesions():
    labels = np.zeros((6, 12, 12), np.uint8)
    labels[1:5, 1:8, 1:6] = 1
    labels[2, 3, 3] = 3
    labels[2:4, 9:11, 9:11] = 1  # a spleen
    labels[3, 10, 10] = 2
    labels[0, 11, 0] = 4  # isolated
    kept = keep_largest_liver(prediction(labels))
    expected = np.zeros_like(labels)
    expected[1:5, 1:8, 1:6] = labels[1:5, 1:8, 1:6]
    np.testing.assert_array_equal(kept.labels, expected)
    flat = np.flatnonzero(kept.labels >= 2)
    np.testing.assert_array_equal(kept.type_probabilities[:, 0], flat)
    np.testing.assert_array_equal(kept.lesion_probabilities, flat)


def test_parts_that_meet_at_a_corner_are_one_liver_and_lesions_hold_it_together():
    labels = np.zeros((3, 4, 4), np.uint8)
    labels[0, 0, 0] = labels[1, 1, 1] = 1
    labels[2, 2, 2] = 2
    kept = keep_largest_liver(prediction(labels))
    np.testing.assert_array_equal(kept.labels, labels)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 5, 1), (7, 1, 1), (1, 3, 3), (5, 1, 5), (3, 3, 3)])
def test_as_many_parts_as_there_can_be_in_a_thin_box(shape):
    labels = (np.indices(shape) % 2 == 0).all(axis=0).astype(np.uint8)
    kept = keep_largest_liver(prediction(labels))
    assert kept.labels.sum() == 1 and (kept.labels <= labels).all()


def test_nothing_stays_nothing():
    empty = prediction(np.zeros((2, 3, 3), np.uint8))
    assert keep_largest_liver(empty) is empty


def test_lesions_touch_by_a_face_not_by_an_edge():
    mask = np.zeros((2, 3, 3), bool)
    mask[0, 0, 0] = mask[0, 0, 1] = True
    mask[1, 1, 1] = True  # shares an edge with (0, 0, 1) only
    parts, voxels = lesion_components(mask)
    assert sorted(voxels) == [1, 2]
    assert parts[0, 0, 0] == parts[0, 0, 1] != parts[1, 1, 1]
