"""Lesions: the vote on types, the minimum volume, ids by volume."""

import numpy as np
import pytest

from liverseg.inference import SlabPrediction
from liverseg.inference.components import liver_contact
from liverseg.inference.lesions import find_lesions, liver_volume_ml
from liverseg.labels import INDETERMINATE


def labels_of(*lesions, shape=(4, 10, 10)):
    labels = np.ones(shape, np.uint8)
    for box, label in lesions:
        labels[box] = label
    return labels


def test_a_lesion_takes_the_type_its_voxels_think_likeliest_on_average():
    # three voxels slightly prefer cyst, two are certain of metastasis: probability counts, not the number of voxels
    labels = labels_of((np.s_[1, 2, 2:5], 2), (np.s_[1, 2, 5:7], 4))
    sure, barely = [0.0, 0.1, 0.9], [0.4, 0.3, 0.3]
    found = find_lesions(SlabPrediction(labels, np.array([barely] * 3 + [sure] * 2, np.float32)), 1.0)
    assert found.types.tolist() == [4]
    np.testing.assert_allclose(found.probabilities, [[0.24, 0.22, 0.54]], atol=1e-6)
    assert (found.labels[1, 2, 2:7] == 4).all()
    assert (found.labels != 1).sum() == 5
    assert (found.ids > 0).sum() == 5


def test_probabilities_go_to_their_own_lesion():
    labels = labels_of((np.s_[0, 1, 1], 2), (np.s_[2, 5, 5:7], 3), (np.s_[3, 0, 9], 4))
    rows = np.array([[0.8, 0.1, 0.1], [0.1, 0.7, 0.2], [0.3, 0.5, 0.2], [0, 0, 1]], np.float32)
    found = find_lesions(SlabPrediction(labels, rows), 1.0)
    assert found.ids[2, 5, 5] == 1  # the largest
    by_voxel = found.probabilities[found.ids[labels >= 2] - 1]
    np.testing.assert_allclose(
        by_voxel, rows[[0, 1, 1, 3]] + [[0] * 3, [0.1, -0.1, 0], [0.1, -0.1, 0], [0] * 3], atol=1e-6
    )
    np.testing.assert_array_equal(found.labels, labels)


def test_small_lesions_become_liver_and_the_stated_size_is_kept():
    labels = labels_of((np.s_[0, 0, 0:2], 2), (np.s_[0, 5, 0:3], 3), (np.s_[2, 5, 0:4], 4))
    rows = np.eye(3, dtype=np.float32)[labels[labels >= 2] - 2]
    found = find_lesions(SlabPrediction(labels, rows), voxel_ml=0.01, min_lesion_ml=0.03)
    assert found.types.tolist() == [4, 3]
    assert found.voxels.tolist() == [4, 3]
    assert found.dropped == 1
    assert (found.labels[0, 0, 0:2] == 1).all()
    assert found.labels.dtype == np.uint8
    assert found.ids.dtype == np.uint16


@pytest.mark.parametrize("labels", [np.zeros((2, 3, 3), np.uint8), np.ones((2, 3, 3), np.uint8)])
def test_no_lesion(labels):
    found = find_lesions(SlabPrediction(labels, np.zeros((0, 3), np.float32)), 1.0)
    assert len(found.voxels) == 0
    assert not found.ids.any()
    np.testing.assert_array_equal(found.labels, labels)


def test_all_too_small():
    labels = labels_of((np.s_[0, 0, 0], 3))
    found = find_lesions(SlabPrediction(labels, np.array([[0, 1, 0]], np.float32)), 0.001, 0.03)
    assert len(found.types) == 0
    assert (found.labels == 1).all()


def test_lesions_without_types_need_no_vote():
    labels = labels_of((np.s_[0, 0, 0:2], 2))
    found = find_lesions(SlabPrediction(labels, np.ones((2, 1), np.float32)), 1.0)
    assert found.types.tolist() == [2]
    assert found.probabilities.tolist() == [[1.0]]


def test_more_lesions_than_ids(monkeypatch):
    monkeypatch.setattr("liverseg.inference.lesions.MAX_LESIONS", 2)
    labels = labels_of((np.s_[0, 0, 0:2], 2), (np.s_[0, 5, 0:3], 2), (np.s_[2, 5, 0:4], 2))
    found = find_lesions(SlabPrediction(labels, np.ones((9, 3), np.float32) / 3), 1.0)
    assert found.voxels.tolist() == [4, 3]
    assert found.dropped == 1


def test_liver_volume_includes_lesions():
    labels = labels_of((np.s_[0, 0, 0:2], 2), shape=(1, 4, 5))
    labels[0, 3] = 0
    found = find_lesions(SlabPrediction(labels, np.ones((2, 3), np.float32) / 3), 0.5)
    assert liver_volume_ml(found, 0.5) == 7.5


def test_impossible_volumes_are_refused():
    prediction = SlabPrediction(np.ones((1, 2, 2), np.uint8), np.zeros((0, 3), np.float32))
    for voxel_ml, smallest in ((0.0, 0.1), (1.0, -1.0), (1.0, float("nan"))):
        with pytest.raises(ValueError, match="neither may be"):
            find_lesions(prediction, voxel_ml, smallest)


def test_a_lesion_no_type_of_which_is_likely_enough_is_indeterminate():
    labels = labels_of((np.s_[1, 2, 2:5], 2), (np.s_[1, 6, 2:4], 4))
    rows = np.array([[0.4, 0.3, 0.3]] * 3 + [[0.1, 0.4, 0.5]] * 2, np.float32)
    found = find_lesions(SlabPrediction(labels, rows), 1.0, min_confidence=0.5)
    assert found.types.tolist() == [INDETERMINATE.index, 4]
    assert (found.labels[1, 2, 2:5] == 5).all()
    assert found.labels.dtype == np.uint8
    np.testing.assert_allclose(found.probabilities, [[0.4, 0.3, 0.3], [0.1, 0.4, 0.5]], atol=1e-6)
    assert find_lesions(SlabPrediction(labels, rows), 1.0).types.tolist() == [2, 4]


def test_lesions_of_a_box_lie_in_their_volume():
    labels = labels_of((np.s_[1, 2, 2:5], 2), shape=(3, 5, 6))
    box = (slice(2, 5), slice(1, 6), slice(4, 10))
    found = find_lesions(SlabPrediction(labels, np.ones((3, 3), np.float32) / 3, box, (9, 8, 12)), 1.0)
    assert found.labels.shape == found.ids.shape == (9, 8, 12)
    assert np.argwhere(found.ids).tolist() == [[3, 3, 6], [3, 3, 7], [3, 3, 8]]
    assert (found.labels > 0).sum() == 90
    assert liver_volume_ml(found, 2.0) == 180
    for index in range(9):
        on_labels, on_ids = found.on_slice(index)
        np.testing.assert_array_equal(on_labels, found.labels[index])
        np.testing.assert_array_equal(on_ids, found.ids[index])
        assert (on_labels.dtype, on_ids.dtype) == (np.uint8, np.uint16)


def test_beside_a_liver_from_elsewhere_small_lesions_become_background():
    labels = labels_of((np.s_[0, 0, 0:2], 2), (np.s_[2, 5, 0:4], 4))
    liver = np.ones(labels.shape, bool)
    liver[0, 0, 0] = False
    liver[2, 5, 0] = False
    rows = np.eye(3, dtype=np.float32)[labels[labels >= 2] - 2]
    found = find_lesions(SlabPrediction(labels, rows, liver=liver), voxel_ml=0.01, min_lesion_ml=0.03)
    assert found.labels[0, 0, 0:2].tolist() == [0, 1]
    assert (found.labels[2, 5, 0:4] == 4).all()


def test_lesions_the_network_is_not_sure_of_become_liver():
    labels = labels_of((np.s_[1, 2, 2:5], 2), (np.s_[1, 5, 0:10], 4), shape=(3, 7, 12))
    rows = np.full((13, 3), 1 / 3, np.float32)
    lesion = np.array([0.5, 0.9, 0.6, *np.linspace(0.31, 0.4, 10)], np.float32)
    prediction = SlabPrediction(labels, rows, lesion_probabilities=lesion)
    every = find_lesions(prediction, 1.0)
    np.testing.assert_allclose(every.scores, [0.39, 0.9], atol=1e-6)  # the 9th of 10 voxels, the 3rd of 3
    assert (every.voxels.tolist(), every.below_threshold, every.dropped) == ([10, 3], 0, 0)
    some = find_lesions(prediction, 1.0, lesion_threshold=0.5)
    assert (some.voxels.tolist(), some.below_threshold, some.dropped) == ([3], 1, 0)
    assert some.types.tolist() == [2]
    assert (some.labels[1, 5] == 1).all() and (some.labels[1, 2, 2:5] == 2).all()
    assert find_lesions(prediction, 1.0, lesion_threshold=0.39).below_threshold == 0  # the exact limit is enough
    small = find_lesions(prediction, 1.0, min_lesion_ml=5, lesion_threshold=0.5)
    assert (len(small.voxels), small.below_threshold, small.dropped) == (0, 1, 1)


def contacts_by_hand(labels, parts, count):
    """Return the share of liver among voxels within two steps over faces, computed voxel by voxel."""
    shares = []
    for number in range(1, count + 1):
        own = np.argwhere(parts == number)
        near = [
            labels[place] >= 1
            for place in np.ndindex(labels.shape)
            if parts[place] != number and np.abs(own - place).sum(axis=1).min() <= 2
        ]
        shares.append(np.mean(near))
    return shares


def test_how_much_of_what_surrounds_a_lesion_is_liver():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (6, 9, 9)).astype(np.uint8)
    parts = np.zeros(labels.shape, np.uint32)
    for number, box in enumerate((np.s_[2:4, 3:6, 3:6], np.s_[0, 0, 0:2], np.s_[5, 8, 4], np.s_[2, 3:5, 7]), 1):
        parts[box], labels[box] = number, 2
    np.testing.assert_allclose(liver_contact(parts, labels >= 1), contacts_by_hand(labels, parts, 4))
    assert liver_contact(np.ones((2, 2, 2), np.uint32), np.ones((2, 2, 2), bool)).tolist() == [1]


def test_lesions_mostly_outside_the_liver_become_background():
    labels = np.zeros((5, 12, 12), np.uint8)
    labels[:, :6] = 1
    labels[2, 2:4, 2:4], labels[2, 5:8, 8:10] = 2, 4  # one deep inside, one at the surface
    rows = np.eye(3, dtype=np.float32)[labels[labels >= 2] - 2]
    prediction = SlabPrediction(labels, rows, lesion_probabilities=np.ones(len(rows), np.float32))
    assert len(find_lesions(prediction, 1.0).voxels) == 2
    found = find_lesions(prediction, 1.0, min_liver_contact=0.5)
    assert (found.types.tolist(), found.outside_liver, found.dropped, found.below_threshold) == ([2], 1, 0, 0)
    assert not found.labels[2, 5:8, 8:10].any() and (found.labels[2, 2:4, 2:4] == 2).all()
    elsewhere = SlabPrediction(labels, rows, liver=labels > 0, lesion_probabilities=np.ones(len(rows), np.float32))
    assert find_lesions(elsewhere, 1.0, min_liver_contact=0.5).outside_liver == 0


def test_without_probabilities_of_lesion_there_are_no_scores_and_no_threshold():
    prediction = SlabPrediction(labels_of((np.s_[1, 2, 2:5], 2)), np.full((3, 3), 1 / 3, np.float32))
    assert np.isnan(find_lesions(prediction, 1.0).scores).all()
    with pytest.raises(ValueError, match=r"threshold of 0\.5 needs"):
        find_lesions(prediction, 1.0, lesion_threshold=0.5)


def test_why_a_lesion_is_indeterminate():
    labels = labels_of((np.s_[1, 2, 2:5], 2), (np.s_[1, 6, 2:4], 4))
    rows = np.array([[0.4, 0.3, 0.3]] * 3 + [[0.1, 0.1, 0.8]] * 2, np.float32)
    found = find_lesions(SlabPrediction(labels, rows), 1.0, min_confidence=0.5)
    assert found.reasons == {1: "cyst is the likeliest type, with a probability of 0.40; at least 0.5 is needed"}
    both = found.mark_indeterminate({2: "odd"})
    assert both.types.tolist() == [5, 5] and (both.labels[1, 6, 2:4] == 5).all()
    assert both.reasons == {**found.reasons, 2: "odd"}
    assert found.types.tolist() == [5, 4] and (found.labels[1, 6, 2:4] == 4).all()  # the first is unchanged


def touching_lesions(shift):
    """A cyst and a metastasis of ten slices; from slice 5 on, the cyst's voxels lie `shift` pixels to the right."""
    types = np.zeros((10, 40, 60), np.uint8)
    types[:, 10:26, 10:26], types[:, 10:26, 26:46] = 2, 4
    types[5:, 10:26, 26 : 26 + shift] = 2
    lesion = types > 0
    probabilities = np.where((types[lesion] == 2)[:, None], [0.9, 0.05, 0.05], [0.1, 0.1, 0.8]).astype(np.float32)
    return types, lesion, probabilities


@pytest.mark.parametrize("shift", [0, 6])
def test_a_cyst_is_not_merged_into_a_lesion_that_it_touches(shift):
    types, lesion, probabilities = touching_lesions(shift)
    prediction = SlabPrediction(np.where(lesion, np.uint8(4), 0), probabilities, typed_regions=True)
    found = find_lesions(prediction, 0.01)
    assert sorted(found.types) == [2, 4]
    np.testing.assert_array_equal(found.labels, types)
    assert found.voxels.sum() == lesion.sum()
    merged = find_lesions(SlabPrediction(np.where(lesion, np.uint8(4), 0), probabilities), 0.01)
    assert len(merged.types) == 1


def test_lesions_that_only_a_cyst_connects_are_two():
    types = np.zeros((6, 30, 80), np.uint8)
    types[:, 6:22, 6:26], types[:, 6:22, 26:46], types[:, 6:22, 46:76] = 4, 2, 3
    types[:, 12, 5], types[:, 12, 76] = 2, 2  # a few pixels at the edges that look like a cyst
    lesion = types > 0
    rows = np.eye(3, dtype=np.float32)[types[lesion] - 2]
    found = find_lesions(SlabPrediction(np.where(lesion, np.uint8(4), 0), rows, typed_regions=True), 0.01)
    assert found.types.tolist() == [3, 4, 2]
    assert found.voxels.tolist() == [6 * 16 * 30 + 6, 6 * 16 * 20 + 6, 6 * 16 * 20]


def test_slices_that_disagree_about_a_type_vote_for_it():
    types = np.zeros((10, 40, 40), np.uint8)
    types[:6, 10:26, 10:26], types[6:, 10:26, 10:26] = 4, 2
    lesion = types > 0
    probabilities = np.where((types[lesion] == 2)[:, None], [0.9, 0.05, 0.05], [0.1, 0.1, 0.8]).astype(np.float32)
    found = find_lesions(SlabPrediction(np.where(lesion, np.uint8(4), 0), probabilities, typed_regions=True), 0.01)
    assert found.types.tolist() == [4]


def test_parts_that_do_not_touch_on_a_slice_are_not_side_by_side():
    """Two lobes that are joined on other slices only, with different types on one slice, are one lesion."""
    types = np.zeros((6, 40, 60), np.uint8)
    types[:, 10:26, 10:26], types[:, 10:26, 32:50], types[3:, 10:26, 26:32] = 4, 4, 4
    types[0, 10:26, 10:26] = 2
    lesion = types > 0
    probabilities = np.where((types[lesion] == 2)[:, None], [0.9, 0.05, 0.05], [0.1, 0.1, 0.8]).astype(np.float32)
    found = find_lesions(SlabPrediction(np.where(lesion, np.uint8(4), 0), probabilities, typed_regions=True), 0.01)
    assert found.types.tolist() == [4]
