"""Lesion by lesion: which were found, how well outlined, and what they were called. LiTS's rules, with types.

Distances between surfaces are those of MONAI's metrics alone: libraries differ in what a surface is.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import cc3d
import numpy as np
import pandas as pd
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
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

_MARGIN = 1


def surface_distances(pred: np.ndarray, true: np.ndarray, spacing_mm: Sequence[float]) -> tuple[float, float]:
    """Average and maximum symmetric surface distance (ASSD, MSSD) in mm of two masks, neither empty.

    A mask's surface are its voxels with a background voxel at one of their faces; outside of the image is background.
    Distances run between voxel centres. ASSD is their mean over the surface voxels of both masks together, MSSD their
    largest, the Hausdorff distance. MONAI crops to the two masks first.

    Args:
        pred: predicted mask, 2-D or 3-D.
        true: true mask of that shape.
        spacing_mm: voxel spacing along each axis.

    Raises:
        ValueError: if a mask is empty.
    """
    if not (pred.any() and true.any()):
        raise ValueError("surface distances of an empty mask are not defined")
    one, two = (torch.from_numpy(np.pad(mask, _MARGIN).astype(np.float32))[None, None] for mask in (pred, true))
    spacing = [float(step) for step in spacing_mm]
    with warnings.catch_warnings():
        # MONAI warns of an argument that it passes to itself
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy", category=FutureWarning)
        average = compute_average_surface_distance(one, two, include_background=True, symmetric=True, spacing=spacing)
        largest = compute_hausdorff_distance(one, two, include_background=True, spacing=spacing)
    return float(average), float(largest)


_DETECTED = 0.5
SIZES = {"small": (0, 10), "medium": (10, 20), "large": (20, np.inf)}
"""Sizes of lesions by name: from and below this diameter, in mm, of a ball or disc of the lesion's size."""


def compare_lesions(
    pred: np.ndarray,
    true: np.ndarray,
    spacing_mm: Sequence[float],
    type_weights: np.ndarray | None = None,
    typed: bool = True,
    true_typed: bool = True,
    lesion_probabilities: np.ndarray | None = None,
) -> pd.DataFrame:
    """A row for each true and each predicted lesion of a slice or a volume.

    A lesion is a part of the lesion mask whose pixels touch by an edge, or voxels by a face. A true and a predicted
    lesion match where their intersection over union is above 0.5, which no lesion can have with two others.

    Args:
        pred: predicted label map of either label table, 2-D or 3-D, whole numbers.
        true: true label map of that shape.
        spacing_mm: voxel spacing along each axis.
        type_weights: of each predicted lesion voxel in C order, how much it speaks for each type, (types, voxels); None
            takes the labels for it.
        typed: whether predicted labels name types; without, no predicted lesion has one.
        true_typed: whether true labels do; those of LiTS only say lesion.
        lesion_probabilities: that each predicted lesion voxel is lesion, in C order, (voxels,); None gives no scores.

    Returns:
        Columns `side` (true, predicted), `lesion` (number from 1 within its side), `voxels`, `diameter_mm` (of the ball
        or disc of that size), `touches_border`, `iou` (highest with a lesion of the other side), `hit` (any overlap),
        `matched` (number of the lesion it matches, 0 for none), `dice`, `assd_mm`, `mssd_mm` (of a match, else NaN),
        `true_type`, `pred_type` (the other side's from the lesion of the highest IoU; empty where there is none),
        `probability_<type>` (of the predicted lesion, NaN where there is none), `lesion_score` (`lesion_score` of the
        predicted lesion; of a true one the highest of those that overlap it, NaN where there is none).

    Raises:
        ValueError: if shapes or weights do not fit.
    """
    if pred.shape != true.shape or pred.ndim not in FACE_CONNECTIVITY or len(spacing_mm) != pred.ndim:
        raise ValueError(f"maps of shape {pred.shape} and {true.shape} with {len(spacing_mm)} spacings")
    sides = {"true": _parts(true), "predicted": _parts(pred)}
    box = _box((sides["true"] > 0) | (sides["predicted"] > 0))
    if box is None:
        return _table([], pred.ndim, spacing_mm)
    types = {
        "true": _types_of(sides["true"], true, None) if true_typed else None,
        "predicted": _types_of(sides["predicted"], pred, type_weights) if typed else None,
    }
    border = {side: _at_border(parts) for side, parts in sides.items()}
    boxed = {side: parts[box] for side, parts in sides.items()}
    boxes = {side: find_objects(parts) for side, parts in boxed.items()}
    sizes = {side: np.bincount(parts.ravel())[1:] for side, parts in boxed.items()}
    overlap = np.zeros([len(sizes["true"]) + 1, len(sizes["predicted"]) + 1], dtype=np.int64)
    np.add.at(overlap, (boxed["true"].ravel(), boxed["predicted"].ravel()), 1)
    overlap = overlap[1:, 1:]
    scores = lesion_score(sides["predicted"][sides["predicted"] > 0], len(sizes["predicted"]), lesion_probabilities)
    highest_hit = np.array([np.max(scores[row > 0], initial=-np.inf) for row in overlap])
    own_scores = {"predicted": scores, "true": highest_hit}
    iou = overlap / (sizes["true"][:, None] + sizes["predicted"][None] - overlap)
    rows = []
    for side, other, shared in (("true", "predicted", iou), ("predicted", "true", iou.T)):
        for number in range(len(shared)):
            best = int(shared[number].argmax()) if shared.shape[1] else -1
            highest = float(shared[number, best]) if best >= 0 else 0.0
            row: dict[str, Any] = {
                "side": side,
                "lesion": number + 1,
                "voxels": int(sizes[side][number]),
                "touches_border": number + 1 in border[side],
                "iou": highest,
                "hit": highest > 0,
                "matched": best + 1 if highest > _DETECTED else 0,
                **_names(types, side, number, best if highest > 0 else -1),
                "lesion_score": float(own_scores[side][number]) if highest > 0 or side == "predicted" else np.nan,
            }
            if row["matched"]:
                one, two = (side, number), (other, best)
                of_pred, of_true = (one, two) if side == "predicted" else (two, one)
                row |= _agreement(boxed, boxes, of_pred, of_true, spacing_mm)
            rows.append(row)
    return _table(rows, pred.ndim, spacing_mm)


def lesion_scores(lesions: pd.DataFrame) -> dict[str, float]:
    """Scores pooled over all lesions of a data set, from the rows of `compare_lesions`; NaN where nothing counts.

    Recall is over true lesions, precision over predicted ones, at IoU > 0.5 and (`_any`) at any overlap; Dice, ASSD and
    MSSD are means over the true lesions detected at IoU > 0.5, so they mean little without recall beside them.
    """
    true, pred = lesions[lesions["side"] == "true"], lesions[lesions["side"] == "predicted"]
    found = true[true["matched"] > 0]
    scores = {
        "lesions": len(true),
        "recall": _share(true["matched"] > 0),
        "precision": _share(pred["matched"] > 0),
        "recall_any": _share(true["hit"]),
        "precision_any": _share(pred["hit"]),
    }
    for name in ("dice", "assd_mm", "mssd_mm"):
        scores[f"detected_{name}"] = float(found[name].mean())
    for name, (least, most) in SIZES.items():
        of_size = true[(true["diameter_mm"] >= least) & (true["diameter_mm"] < most)]
        scores[f"recall_{name}"] = _share(of_size["matched"] > 0)
    known = true[true["true_type"] != ""]
    if len(known) and (pred["pred_type"] != "").any():
        detected = known["matched"] > 0
        right = detected & (known["true_type"] == known["pred_type"])
        scores["type_accuracy_detected"] = _share(right[detected])
        scores["type_accuracy_end_to_end"] = _share(right)
    return {name: float(value) for name, value in scores.items()}


def _box(mask: np.ndarray) -> tuple[slice, ...] | None:
    """The smallest box around a mask of any dimensions; None where it is empty."""
    found = find_objects(mask.view(np.uint8))
    return found[0] if found else None


def _parts(labels: np.ndarray) -> np.ndarray:
    return cc3d.connected_components(
        np.ascontiguousarray(labels >= LESION), connectivity=FACE_CONNECTIVITY[labels.ndim]
    )


def _types_of(parts: np.ndarray, labels: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Share of each part's weight that speaks for each type, (parts, types)."""
    inside = parts > 0
    if weights is None:
        weights = np.stack([labels[inside] == LESION + number for number in range(len(LESION_TYPES))])
    if weights.shape != (len(LESION_TYPES), np.count_nonzero(inside)):
        raise ValueError(f"weights of shape {weights.shape} for {np.count_nonzero(inside)} lesion voxels")
    count = int(parts.max())
    votes = np.stack([np.bincount(parts[inside], row, minlength=count + 1)[1:] for row in weights], axis=1)
    return votes / np.maximum(votes.sum(axis=1, keepdims=True), np.finfo(float).tiny)


def _at_border(parts: np.ndarray) -> set[int]:
    touching: set[int] = set()
    for axis in range(parts.ndim):
        for edge in (0, -1):
            touching |= {*np.unique(np.take(parts, edge, axis=axis)).tolist()}
    return touching - {0}


def _names(types: Mapping[str, np.ndarray | None], side: str, number: int, other: int) -> dict[str, Any]:
    """True and predicted type of a lesion, the other side's from the lesion it overlaps most."""
    of_true, of_pred = (number, other) if side == "true" else (other, number)
    named: dict[str, Any] = {
        "true_type": _name(types["true"], of_true),
        "pred_type": _name(types["predicted"], of_pred),
    }
    shares = types["predicted"]
    for column, name in enumerate(LESION_TYPES):
        share = float("nan") if shares is None or of_pred < 0 else float(shares[of_pred, column])
        named[f"probability_{name}"] = share
    return named


def _name(shares: np.ndarray | None, number: int) -> str:
    return "" if shares is None or number < 0 else LESION_TYPES[int(shares[number].argmax())]


def _agreement(
    parts: Mapping[str, np.ndarray],
    boxes: Mapping[str, Sequence[tuple[slice, ...]]],
    of_pred: tuple[str, int],
    of_true: tuple[str, int],
    spacing_mm: Sequence[float],
) -> dict[str, float]:
    around = zip(*(boxes[side][number] for side, number in (of_pred, of_true)), strict=True)
    box = tuple(slice(min(one.start, two.start), max(one.stop, two.stop)) for one, two in around)
    pred, true = (parts[side][box] == number + 1 for side, number in (of_pred, of_true))
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


def _share(yes: pd.Series) -> float:
    return float(yes.mean()) if len(yes) else float("nan")
