"""Lesion-level comparison of label maps: detection, outlines and types, by the rules of LiTS."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import cc3d
import numpy as np
import pandas as pd
import torch
from scipy.ndimage import find_objects

from liverseg.evaluation.lesion_threshold import lesion_score
from liverseg.evaluation.scores import dice
from liverseg.labels import FACE_CONNECTIVITY, LESION, LESION_TYPES

__all__ = [
    "SIZES",
    "compare_lesions",
    "lesion_scores",
    "surface_distances",
]

_DETECTED = 0.5
"""A lesion is detected above this intersection over union."""

SIZES = {"small": (0, 10), "medium": (10, 20), "large": (20, np.inf)}
"""Lesion sizes by name: limits in mm of the diameter of a ball or disc of the lesion size; the upper is excluded."""


def surface_distances(pred: np.ndarray, true: np.ndarray, spacing_mm: Sequence[float]) -> tuple[float, float]:
    """Return the average and the maximum symmetric surface distance (ASSD, MSSD) of two masks in mm, by MONAI.

    Surface voxels are those with a background voxel at one of their faces; outside the image is background. Distances
    are between voxel centres. ASSD is the mean over the surface voxels of both masks, MSSD the maximum, the Hausdorff
    distance. Other libraries define surfaces differently.

    Args:
        pred: predicted mask, 2-D or 3-D.
        true: true mask of that shape.
        spacing_mm: voxel spacing along each axis.

    Raises:
        ValueError: if a mask is empty.
    """
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance  # seconds

    if not (pred.any() and true.any()):
        raise ValueError("surface distances of an empty mask are not defined")
    # padded, since MONAI's surface needs background at the edge
    pred_mask, true_mask = (torch.from_numpy(np.pad(mask, 1).astype(np.float32))[None, None] for mask in (pred, true))
    spacing = [float(step) for step in spacing_mm]
    with warnings.catch_warnings():
        # MONAI warns of an argument that it passes itself
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy", category=FutureWarning)
        assd = compute_average_surface_distance(
            pred_mask, true_mask, include_background=True, symmetric=True, spacing=spacing
        )
        mssd = compute_hausdorff_distance(pred_mask, true_mask, include_background=True, spacing=spacing)
    return float(assd), float(mssd)


def compare_lesions(
    pred: np.ndarray,
    true: np.ndarray,
    spacing_mm: Sequence[float],
    type_weights: np.ndarray | None = None,
    typed: bool = True,
    true_typed: bool = True,
    lesion_probabilities: np.ndarray | None = None,
) -> pd.DataFrame:
    """Return one row for each true and each predicted lesion of a slice or a volume.

    A lesion is a connected component of the lesion mask; pixels are connected by edges, voxels by faces. A true and a
    predicted lesion match if their intersection over union is above 0.5, which is possible with only one other lesion.

    Args:
        pred: predicted label map of either label table, 2-D or 3-D, integers.
        true: true label map of that shape.
        spacing_mm: voxel spacing along each axis.
        type_weights: votes of the predicted lesion voxels, in C order, for each type, (types, voxels); by default each
            voxel votes for its label.
        typed: whether predicted labels have types; otherwise predicted lesions have no type.
        true_typed: whether true labels have types; those of LiTS do not.
        lesion_probabilities: probability of lesion of the predicted lesion voxels, in C order, (voxels,); None for no
            scores.

    Returns:
        Columns `side` (true, predicted), `lesion` (number from 1 within its side), `voxels`, `diameter_mm` (of a ball
        or disc of that size), `touches_border`, `iou` (highest with a lesion of the other side), `hit` (any overlap),
        `matched` (number of the matching lesion, 0 for none), `dice`, `assd_mm`, `mssd_mm` (of a match, else NaN),
        `true_type`, `pred_type` (for the other side that of the lesion with the highest IoU; empty for none),
        `probability_<type>` (of the predicted lesion, NaN for none), `lesion_score` (of the predicted lesion; for a
        true lesion the highest of those that overlap it, NaN for none).

    Raises:
        ValueError: if shapes or weights do not fit.
    """
    if pred.shape != true.shape or pred.ndim not in FACE_CONNECTIVITY or len(spacing_mm) != pred.ndim:
        raise ValueError(f"maps of shape {pred.shape} and {true.shape} with {len(spacing_mm)} spacings")
    components = {"true": _components(true), "predicted": _components(pred)}
    box = _bounding_box((components["true"] > 0) | (components["predicted"] > 0))
    if box is None:
        return _table([], pred.ndim, spacing_mm)
    types = {
        "true": _type_shares(components["true"], true, None) if true_typed else None,
        "predicted": _type_shares(components["predicted"], pred, type_weights) if typed else None,
    }
    at_border = {side: _at_border(numbers) for side, numbers in components.items()}
    predicted_voxels = components["predicted"][components["predicted"] > 0]
    cropped = {side: numbers[box] for side, numbers in components.items()}
    boxes = {side: find_objects(numbers) for side, numbers in cropped.items()}
    sizes = {side: np.bincount(numbers.ravel())[1:] for side, numbers in cropped.items()}
    overlap = np.zeros([len(sizes["true"]) + 1, len(sizes["predicted"]) + 1], dtype=np.int64)
    np.add.at(overlap, (cropped["true"].ravel(), cropped["predicted"].ravel()), 1)
    overlap = overlap[1:, 1:]
    predicted_scores = lesion_score(predicted_voxels, len(sizes["predicted"]), lesion_probabilities)
    scores = {
        "predicted": predicted_scores,
        "true": np.array([np.max(predicted_scores[row > 0], initial=-np.inf) for row in overlap]),
    }
    iou = overlap / (sizes["true"][:, None] + sizes["predicted"][None] - overlap)
    rows = []
    for side, ious in (("true", iou), ("predicted", iou.T)):
        for number in range(len(ious)):
            best = int(ious[number].argmax()) if ious.shape[1] else -1
            highest = float(ious[number, best]) if best >= 0 else 0.0
            row: dict[str, Any] = {
                "side": side,
                "lesion": number + 1,
                "voxels": int(sizes[side][number]),
                "touches_border": number + 1 in at_border[side],
                "iou": highest,
                "hit": highest > 0,
                "matched": best + 1 if highest > _DETECTED else 0,
                **_type_columns(types, side, number, best if highest > 0 else -1),
                "lesion_score": float(scores[side][number]) if highest > 0 or side == "predicted" else np.nan,
            }
            if row["matched"]:
                of_pred, of_true = (number, best) if side == "predicted" else (best, number)
                row |= _outline_scores(cropped, boxes, of_pred, of_true, spacing_mm)
            rows.append(row)
    return _table(rows, pred.ndim, spacing_mm)


def lesion_scores(lesions: pd.DataFrame) -> dict[str, float]:
    """Return scores pooled over all lesions of a data set, from rows of `compare_lesions`; undefined scores are NaN.

    Recall is that of true lesions, precision that of predicted ones, at IoU > 0.5 and (`_any`) at any overlap. Dice,
    ASSD and MSSD are means over the true lesions detected at IoU > 0.5, so they are meaningless without recall.
    """
    true, pred = lesions[lesions["side"] == "true"], lesions[lesions["side"] == "predicted"]
    detected = true[true["matched"] > 0]
    scores = {
        "lesions": len(true),
        "recall": _share(true["matched"] > 0),
        "precision": _share(pred["matched"] > 0),
        "recall_any": _share(true["hit"]),
        "precision_any": _share(pred["hit"]),
    }
    for name in ("dice", "assd_mm", "mssd_mm"):
        scores[f"detected_{name}"] = float(detected[name].mean())
    for name, (lower, upper) in SIZES.items():
        of_size = true[(true["diameter_mm"] >= lower) & (true["diameter_mm"] < upper)]
        scores[f"recall_{name}"] = _share(of_size["matched"] > 0)
    typed = true[true["true_type"] != ""]
    if len(typed) and (pred["pred_type"] != "").any():
        matched = typed["matched"] > 0
        correct = matched & (typed["true_type"] == typed["pred_type"])
        scores["type_accuracy_detected"] = _share(correct[matched])
        scores["type_accuracy_end_to_end"] = _share(correct)
    return {name: float(value) for name, value in scores.items()}


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...] | None:
    """Return the bounding box of a mask of any dimensions; None for an empty mask."""
    boxes = find_objects(mask.view(np.uint8))
    return boxes[0] if boxes else None


def _components(labels: np.ndarray) -> np.ndarray:
    return cc3d.connected_components(
        np.ascontiguousarray(labels >= LESION), connectivity=FACE_CONNECTIVITY[labels.ndim]
    )


def _type_shares(components: np.ndarray, labels: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Return the share of each component's votes for each type, (components, types)."""
    inside = components > 0
    if weights is None:
        weights = np.stack([labels[inside] == LESION + number for number in range(len(LESION_TYPES))])
    if weights.shape != (len(LESION_TYPES), np.count_nonzero(inside)):
        raise ValueError(f"weights of shape {weights.shape} for {np.count_nonzero(inside)} lesion voxels")
    count = int(components.max())
    votes = np.stack([np.bincount(components[inside], row, minlength=count + 1)[1:] for row in weights], axis=1)
    return votes / np.maximum(votes.sum(axis=1, keepdims=True), np.finfo(float).tiny)


def _at_border(components: np.ndarray) -> set[int]:
    touching: set[int] = set()
    for axis in range(components.ndim):
        for edge in (0, -1):
            touching |= {*np.unique(np.take(components, edge, axis=axis)).tolist()}
    return touching - {0}


def _type_columns(types: Mapping[str, np.ndarray | None], side: str, number: int, other: int) -> dict[str, Any]:
    """Return types and probabilities of a lesion; `other` is the lesion of the other side with the highest IoU."""
    of_true, of_pred = (number, other) if side == "true" else (other, number)
    columns: dict[str, Any] = {
        "true_type": _likeliest_type(types["true"], of_true),
        "pred_type": _likeliest_type(types["predicted"], of_pred),
    }
    shares = types["predicted"]
    for column, name in enumerate(LESION_TYPES):
        share = float("nan") if shares is None or of_pred < 0 else float(shares[of_pred, column])
        columns[f"probability_{name}"] = share
    return columns


def _likeliest_type(shares: np.ndarray | None, number: int) -> str:
    return "" if shares is None or number < 0 else LESION_TYPES[int(shares[number].argmax())]


def _outline_scores(
    components: Mapping[str, np.ndarray],
    boxes: Mapping[str, Sequence[tuple[slice, ...]]],
    of_pred: int,
    of_true: int,
    spacing_mm: Sequence[float],
) -> dict[str, float]:
    """Return Dice, ASSD and MSSD of a predicted and a true lesion by their numbers from 0."""
    sides = zip(boxes["predicted"][of_pred], boxes["true"][of_true], strict=True)
    box = tuple(slice(min(pred.start, true.start), max(pred.stop, true.stop)) for pred, true in sides)
    pred, true = components["predicted"][box] == of_pred + 1, components["true"][box] == of_true + 1
    overlap = float(dice(np.count_nonzero(pred & true), np.count_nonzero(pred), np.count_nonzero(true)))
    assd, mssd = surface_distances(pred, true, spacing_mm)
    return {"dice": overlap, "assd_mm": assd, "mssd_mm": mssd}


def _table(rows: list[dict[str, Any]], dimensions: int, spacing_mm: Sequence[float]) -> pd.DataFrame:
    columns = ["side", "lesion", "voxels", "diameter_mm", "touches_border", "iou", "hit", "matched", "dice"]
    columns += ["assd_mm", "mssd_mm", "true_type", "pred_type", *(f"probability_{name}" for name in LESION_TYPES)]
    columns += ["lesion_score"]
    table = pd.DataFrame(rows, columns=columns)
    size = table["voxels"].astype(float) * float(np.prod(spacing_mm))
    # area of a disc is pi d^2 / 4, volume of a ball pi d^3 / 6
    table["diameter_mm"] = (size * (4 if dimensions == 2 else 6) / np.pi) ** (1 / dimensions)
    return table


def _share(values: pd.Series) -> float:
    return float(values.mean()) if len(values) else float("nan")
