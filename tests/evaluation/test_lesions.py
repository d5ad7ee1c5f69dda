"""Comparison of lesions, with cases counted by hand."""

import math

import numpy as np
import pytest

from liverseg.evaluation import compare_lesions, lesion_scores
from liverseg.evaluation.lesions import surface_distances

C, H, M = 2, 3, 4


def slice_of(*rows):
    return np.array(rows, dtype=np.uint8)


def compared(pred, true, spacing=(1.0, 1.0), **more):
    table = compare_lesions(pred, true, spacing, **more)
    return table[table["side"] == "true"], table[table["side"] == "predicted"], lesion_scores(table)


def test_nothing_predicted():
    true = slice_of([1, C, C, 1], [1, 1, 1, 1])
    rows, pred, scores = compared(np.ones_like(true), true)
    assert len(pred) == 0
    assert rows[["matched", "hit", "iou", "pred_type"]].to_numpy().tolist() == [[0, False, 0.0, ""]]
    assert scores["recall"] == scores["recall_any"] == 0
    assert math.isnan(scores["precision"])
    assert math.isnan(scores["detected_dice"])


def test_no_lesion_present():
    pred = slice_of([1, C, C, 1], [1, 1, 1, 1])
    _, found, scores = compared(pred, np.ones_like(pred))
    assert found[["matched", "hit", "true_type", "pred_type"]].to_numpy().tolist() == [[0, False, "", "cyst"]]
    assert scores["precision"] == 0
    assert scores["lesions"] == 0
    assert math.isnan(scores["recall"])


def test_neither_predicted_nor_present():
    table = compare_lesions(np.ones((3, 3), np.uint8), np.ones((3, 3), np.uint8), (1, 1))
    assert table.empty
    assert math.isnan(lesion_scores(table)["recall"])


def test_two_truths_spanned_by_one_prediction():
    true = slice_of([C, C, C, 1, H, H])
    pred = slice_of([C, C, C, C, C, C])
    rows, found, scores = compared(pred, true)
    # overlap 3 of 6: not above one half; the other 2 of 6
    assert rows["iou"].tolist() == pytest.approx([3 / 6, 2 / 6])
    assert rows["matched"].tolist() == [0, 0]
    assert rows["hit"].tolist() == [True, True]
    assert found["iou"].item() == pytest.approx(3 / 6)
    assert scores["recall"] == scores["precision"] == 0
    assert scores["recall_any"] == scores["precision_any"] == 1


def test_one_truth_split_in_two():
    true = slice_of([M, M, M, M, M, M])
    pred = slice_of([M, M, M, M, 1, M])
    rows, found, scores = compared(pred, true)
    assert rows[["matched", "iou"]].to_numpy().tolist() == [[1, pytest.approx(4 / 6)]]
    assert found["matched"].tolist() == [1, 0]
    assert found["hit"].tolist() == [True, True]
    assert (scores["recall"], scores["precision"], scores["precision_any"]) == (1, 0.5, 1)
    assert scores["detected_dice"] == pytest.approx(2 * 4 / (4 + 6))


def test_a_lesion_at_the_border():
    true = slice_of([1, 1, 1, 1, 1], [C, C, 1, H, 1], [1, 1, 1, 1, 1])
    rows, _, scores = compared(true, true)
    assert rows["touches_border"].tolist() == [True, False]
    assert rows["assd_mm"].tolist() == rows["mssd_mm"].tolist() == [0, 0]
    assert scores["recall"] == scores["precision"] == scores["type_accuracy_end_to_end"] == 1


def test_a_mixed_type_slice():
    true = slice_of([C, C, 1, M, M, 1, H, H])
    pred = slice_of([C, C, 1, C, C, 1, 1, 1])
    rows, found, scores = compared(pred, true)
    assert rows["true_type"].tolist() == ["cyst", "metastasis", "hemangioma"]
    assert rows["pred_type"].tolist() == ["cyst", "cyst", ""]
    assert found["true_type"].tolist() == ["cyst", "metastasis"]
    assert scores["type_accuracy_detected"] == 0.5
    assert scores["type_accuracy_end_to_end"] == pytest.approx(1 / 3)


def test_types_that_touch_are_one_lesion_of_the_larger():
    rows, found, _ = compared(slice_of([C, C, M]), slice_of([M, M, C]))
    assert rows["true_type"].tolist() == ["metastasis"]
    assert found["pred_type"].tolist() == ["cyst"]
    assert found["probability_cyst"].item() == pytest.approx(2 / 3)


def test_weights_name_a_lesion_against_its_labels():
    pred = slice_of([C, C, 1, C])
    weights = np.array([[0.6, 0.6, 0.2], [0.0, 0.0, 0.1], [0.4, 0.4, 0.7]])
    _, found, _ = compared(pred, pred, type_weights=weights)
    assert found["pred_type"].tolist() == ["cyst", "metastasis"]
    assert found["probability_metastasis"].tolist() == pytest.approx([0.4, 0.7])


def test_a_map_without_types_names_nothing():
    rows, found, scores = compared(slice_of([2, 2, 1]), slice_of([M, M, 1]), typed=False)
    assert rows["true_type"].item() == "metastasis"
    assert found["pred_type"].item() == ""
    assert "type_accuracy_detected" not in scores


def test_truth_without_types_counts_for_no_type_score():
    labels = slice_of([C, C, 1])
    rows, found, scores = compared(labels, labels, true_typed=False)
    assert rows[["true_type", "pred_type"]].to_numpy().tolist() == [["", "cyst"]]
    assert found["true_type"].item() == ""
    assert scores["recall"] == 1
    assert "type_accuracy_end_to_end" not in scores


def test_one_voxel_lesions_in_a_volume():
    true = np.ones((3, 3, 3), np.uint8)
    pred = true.copy()
    true[1, 1, 1] = pred[1, 1, 1] = C
    true[0, 0, 0] = M
    rows, _, scores = compared(pred, true, (5.0, 1.0, 1.0))
    assert rows["matched"].tolist() == [0, 1]
    assert rows["voxels"].tolist() == [1, 1]
    assert rows["assd_mm"].tolist()[1] == 0
    assert rows["diameter_mm"].tolist() == pytest.approx([(6 * 5 / math.pi) ** (1 / 3)] * 2)
    assert scores["recall"] == 0.5
    assert scores["recall_small"] == 0.5


def test_voxels_that_touch_at_a_corner_are_two_lesions():
    volume = np.ones((2, 2, 2), np.uint8)
    volume[0, 0, 0] = volume[1, 1, 1] = C
    rows, _, _ = compared(volume, volume, (1, 1, 1))
    assert len(rows) == 2
    flat = slice_of([C, 1], [1, C])
    assert len(compared(flat, flat)[0]) == 2


def test_distances_are_in_mm_along_each_axis():
    true = np.ones((8, 8, 3), np.uint8)
    true[1:7, 2:6, 1] = C
    along_rows, along_columns = true.copy(), true.copy()
    along_rows[1] = 1
    along_columns[:, 2] = 1
    spacing = (0.5, 2.0, 5.0)
    _, found, _ = compared(along_rows, true, spacing)
    assert found["mssd_mm"].item() == pytest.approx(0.5)
    _, found, _ = compared(along_columns, true, spacing)
    assert found["mssd_mm"].item() == pytest.approx(2.0)


def test_a_lesion_is_measured_as_if_it_were_alone():
    spacing = (2.5, 0.7, 0.9)
    pred, true = np.ones((2, 30, 40, 40), np.uint8)
    boxes = [np.s_[0:7, 2:9, 3:12], np.s_[8:20, 20:34, 1:9], np.s_[22:30, 5:20, 25:40]]
    for number, box in enumerate(boxes):
        true[box] = C + number
        pred[tuple(slice(side.start + (axis == number), side.stop - 1) for axis, side in enumerate(box))] = C + number
    _, found, _ = compared(pred, true, spacing)
    assert found["matched"].tolist() == [1, 2, 3]
    for (_, row), box in zip(found.iterrows(), boxes, strict=True):
        alone = [np.zeros(true.shape, bool) for _ in range(2)]
        for mask, labels in zip(alone, (pred, true), strict=True):
            mask[box] = labels[box] >= C
        shared = 2 * np.count_nonzero(alone[0] & alone[1]) / (np.count_nonzero(alone[0]) + np.count_nonzero(alone[1]))
        assert row["dice"] == pytest.approx(shared)
        assert (row["assd_mm"], row["mssd_mm"]) == pytest.approx(surface_distances(*alone, spacing))
        assert row["mssd_mm"] > 0


@pytest.mark.parametrize(
    ("pred", "true", "spacing"),
    [((3, 3), (3, 4), (1, 1)), ((3,), (3,), (1,)), ((3, 3), (3, 3), (1, 1, 1))],
)
def test_shapes_that_do_not_fit(pred, true, spacing):
    with pytest.raises(ValueError, match="maps of shape"):
        compare_lesions(np.ones(pred, np.uint8), np.ones(true, np.uint8), spacing)


def test_weights_that_do_not_fit():
    with pytest.raises(ValueError, match=r"weights of shape \(3, 5\) for 2 lesion voxels"):
        compare_lesions(slice_of([C, C]), slice_of([C, C]), (1, 1), np.ones((3, 5)))
