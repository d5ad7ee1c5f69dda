"""Lesion scores on random shapes, compared with MONAI's panoptic quality and with panoptica.

panoptica needs older packages than the project (numpy below 2.3, pandas below 3), so it is not a test dependency. Its
tests run if it is on the path: `pip install --target DIR --no-deps panoptica==2.1.7 ruamel.yaml scikit-image
lazy_loader imageio tifffile typer plotly rich`, then PYTHONPATH=DIR.
"""

import cc3d
import numpy as np
import pytest
import torch
from monai.metrics.panoptic_quality import compute_panoptic_quality
from scipy.ndimage import gaussian_filter, shift

from liverseg.evaluation import compare_lesions, lesion_scores

SPACING = (2.0, 0.8, 0.7)


def blobs(shape, seed):
    """Return true and predicted label maps of random lesions: some outlined, some moved, some new, some missed."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(size=shape), 2.0)
    true = smooth > np.quantile(smooth, 0.93)
    parts = cc3d.connected_components(true, connectivity=4 if true.ndim == 2 else 6)
    pred = np.zeros(shape, bool)
    for number in range(1, parts.max() + 1):
        part = parts == number
        fate = rng.integers(4)
        if fate:
            pred |= shift(part, [int(step) for step in rng.integers(0, fate, true.ndim)], order=0)
    pred |= gaussian_filter(rng.normal(size=shape), 1.5) > 0.16
    return (1 + pred).astype(np.uint8), (1 + true).astype(np.uint8)


def instances(labels):
    return cc3d.connected_components(labels >= 2, connectivity=4 if labels.ndim == 2 else 6).astype(np.uint16)


CASES = [((64, 64), seed) for seed in range(5)] + [((16, 40, 40), seed) for seed in range(5)]


@pytest.mark.parametrize(("shape", "seed"), CASES)
def test_detection_is_monais(shape, seed):
    pred, true = blobs(shape, seed)
    scores = lesion_scores(compare_lesions(pred, true, SPACING[-len(shape) :], typed=False))
    maps = [torch.from_numpy(instances(labels).reshape(shape[0], -1).astype(np.int64)) for labels in (pred, true)]
    hits, false, missed, _ = compute_panoptic_quality(*maps, output_confusion_matrix=True, match_iou_threshold=0.5)
    assert hits > 0
    assert false > 0
    assert scores["recall"] == pytest.approx(float(hits / (hits + missed)))
    assert scores["precision"] == pytest.approx(float(hits / (hits + false)))


@pytest.mark.parametrize(("shape", "seed"), CASES)
def test_detection_dice_and_surface_distance_are_panopticas(shape, seed):
    panoptica = pytest.importorskip("panoptica")
    pred, true = blobs(shape, seed)
    spacing = SPACING[-len(shape) :]
    scores = lesion_scores(compare_lesions(pred, true, spacing, typed=False))
    evaluator = panoptica.Panoptica_Evaluator(
        expected_input=panoptica.InputType.UNMATCHED_INSTANCE,
        # panoptica also matches at exactly one half
        instance_matcher=panoptica.NaiveThresholdMatching(matching_threshold=0.5 + 1e-9),
        instance_metrics=[panoptica.Metric.DSC, panoptica.Metric.ASSD, panoptica.Metric.HD],
    )
    found = evaluator.evaluate(instances(pred), instances(true), voxelspacing=spacing, verbose=False)
    (theirs,) = found.values()
    assert scores["recall"] == pytest.approx(theirs.tp / (theirs.tp + theirs.fn))
    assert scores["precision"] == pytest.approx(theirs.tp / (theirs.tp + theirs.fp))
    assert scores["detected_dice"] == pytest.approx(theirs.sq_dsc)
    # panoptica averages the means of both directions, MONAI all surface voxels; test_surfaces.py is exact
    assert scores["detected_assd_mm"] == pytest.approx(theirs.sq_assd, rel=0.3)
    assert scores["detected_mssd_mm"] == pytest.approx(theirs.sq_hd)
