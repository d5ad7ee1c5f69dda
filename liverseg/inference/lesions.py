"""Find the lesions of a label map: their voxels, and the type that the voxels vote for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from liverseg.evaluation.lesion_threshold import lesion_score
from liverseg.imageio.boxes import Box, bounding_box, crop_to_box, embed, pad_box
from liverseg.inference.components import SURROUNDING_STEPS, lesion_components, liver_contact, separate_cysts
from liverseg.inference.prediction import SlabPrediction
from liverseg.labels import INDETERMINATE, LESION, LESION_TYPES, LIVER

__all__ = ["MAX_LESIONS", "LesionMap", "find_lesions", "liver_volume_ml"]

MAX_LESIONS = int(np.iinfo(np.uint16).max)
"""Largest number of ids that lesions.nii.gz can hold."""


@dataclass(frozen=True)
class LesionMap:
    """Labels and lesions of a volume in axial order, kept for the box that holds all labelled voxels.

    Attributes:
        inside: label map of the box, uint8, shape (slice, row, column); all voxels of a lesion have the lesion's type.
        ids_inside: lesion ids 1 ... n by decreasing volume, 0 elsewhere, uint16, same shape.
        box: position of both in the volume; outside it is background.
        shape: of the volume, (slice, row, column).
        voxels: voxels of each lesion, shape (n,).
        types: label of each lesion, shape (n,).
        probabilities: of each type for each lesion, rows sum to 1, shape (n, lesion types).
        dropped: number of lesions left out, too small or beyond `MAX_LESIONS`.
        scores: of each lesion, 0 to 1, see `lesion_score`; NaN if unknown, shape (n,).
        below_threshold: number of lesions left out because of their score.
        outside_liver: number of lesions left out because they are mostly outside the liver.
        reasons: why a lesion is `INDETERMINATE`, by its id.
    """

    inside: np.ndarray
    ids_inside: np.ndarray
    box: Box
    shape: tuple[int, int, int]
    voxels: np.ndarray
    types: np.ndarray
    probabilities: np.ndarray
    dropped: int
    scores: np.ndarray
    below_threshold: int
    outside_liver: int
    reasons: Mapping[int, str]

    def mark_indeterminate(self, reasons: Mapping[int, str]) -> LesionMap:
        """Return a copy in which some lesions are `INDETERMINATE`.

        Args:
            reasons: by lesion id.
        """
        numbers = np.array(sorted(reasons), np.int64)
        types = self.types.copy()
        types[numbers - 1] = INDETERMINATE.index
        inside = np.where(np.isin(self.ids_inside, numbers), np.uint8(INDETERMINATE.index), self.inside)
        return replace(self, inside=inside, types=types, reasons={**self.reasons, **reasons})

    @property
    def labels(self) -> np.ndarray:
        """The label map of the volume, a new array each time."""
        return embed(self.inside, self.box, self.shape)

    @property
    def ids(self) -> np.ndarray:
        """The lesion ids of the volume, a new array each time."""
        return embed(self.ids_inside, self.box, self.shape)

    def on_slice(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return labels and ids of one axial slice of the volume, each of shape (row, column)."""
        slices, rows, columns = self.box
        labels, ids = np.zeros(self.shape[1:], np.uint8), np.zeros(self.shape[1:], np.uint16)
        if slices.start <= index < slices.stop:
            labels[rows, columns] = self.inside[index - slices.start]
            ids[rows, columns] = self.ids_inside[index - slices.start]
        return labels, ids


def find_lesions(
    prediction: SlabPrediction,
    voxel_ml: float,
    min_lesion_ml: float = 0.03,
    min_confidence: float = 0.0,
    lesion_threshold: float = 0.0,
    min_liver_contact: float = 0.0,
) -> LesionMap:
    """Join lesion voxels that touch by a face, whatever their type, and let each lesion's voxels vote for its type.

    A network that gives each connected lesion of a slice one type also separates cysts from other lesions that they
    touch, see `separate_cysts`.

    The vote is the mean of the voxels' probabilities of each type given lesion. The lesion takes the type with the
    highest mean if that is high enough. Its score is `lesion_score`.

    Lesions below the smallest volume or score become liver; with a given mask of the liver, their voxels outside the
    mask become background. If the network outlined the liver, lesions with too little liver around them become
    background too.

    Args:
        prediction: label map and probabilities.
        voxel_ml: volume of a voxel.
        min_lesion_ml: smallest lesion to keep; 0.03 ml is a ball of 3.9 mm, smaller than a reader would measure.
        min_confidence: smallest probability of the likeliest type; a lesion below it is `INDETERMINATE`.
        lesion_threshold: smallest `lesion_score` to keep; 0 keeps all.
        min_liver_contact: smallest share of liver around a lesion to keep, see `liver_contact`; 0 keeps all. It is not
            applied with a given mask, which may leave out lesions at its surface.

    Raises:
        ValueError: if a volume is not positive, the smallest lesion is below zero, or there is a threshold and the
            prediction has no probabilities of lesion.
    """
    if voxel_ml <= 0 or not min_lesion_ml >= 0:
        raise ValueError(f"voxels of {voxel_ml} ml, lesions from {min_lesion_ml} ml; neither may be negative")
    if lesion_threshold > 0 and prediction.lesion_probabilities is None and len(prediction.type_probabilities):
        raise ValueError(f"a lesion threshold of {lesion_threshold} needs the voxels' probabilities of lesion")
    types = prediction.type_probabilities.shape[1]
    labels, ids = prediction.inside.copy(), np.zeros(prediction.inside.shape, np.uint16)
    box = bounding_box(labels >= LESION)
    if box is None:
        no_lesions = np.zeros(0, np.int64)
        return LesionMap(
            labels, ids, prediction.box, prediction.shape, no_lesions, no_lesions, np.zeros((0, types)), 0, np.zeros(0),
            0, 0, {},
        )  # fmt: skip
    lesion = labels[box] >= LESION
    parts, voxels = lesion_components(lesion)
    if prediction.typed_regions:
        cyst = np.zeros_like(lesion)
        cyst[lesion] = prediction.type_probabilities.argmax(axis=1) == LESION_TYPES.index("cyst")
        parts, voxels = separate_cysts(parts, voxels, cyst)
    # with a tolerance for rounding: a lesion of exactly the smallest size or confidence is kept
    large = np.flatnonzero(voxels * voxel_ml >= min_lesion_ml * (1 - 1e-6))
    scores = lesion_score(parts[lesion], len(voxels), prediction.lesion_probabilities)
    outside = np.zeros(0, np.int64)
    if min_liver_contact > 0 and prediction.liver is None:
        padded = pad_box(box, SURROUNDING_STEPS, labels.shape)
        contact = liver_contact(crop_to_box(parts, box, padded), labels[padded] >= LIVER)
        inside = contact[large] >= min_liver_contact - 1e-6
        large, outside = large[inside], large[~inside]
    likely = large[~(scores[large] < lesion_threshold - 1e-6)]
    kept = likely[np.argsort(-voxels[likely], kind="stable")][:MAX_LESIONS]
    new_id = np.zeros(len(voxels) + 1, np.uint16)
    new_id[kept + 1] = np.arange(1, len(kept) + 1)
    ids[box] = new_id[parts]

    of_voxel = ids[box][lesion]
    sums = [np.bincount(of_voxel, column, minlength=len(kept) + 1)[1:] for column in prediction.type_probabilities.T]
    probabilities = np.stack(sums, axis=1) / voxels[kept, None]
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    winners = LESION + np.argmax(probabilities, axis=1)
    unsure = np.flatnonzero(probabilities.max(axis=1) < min_confidence * (1 - 1e-6))
    reasons = {
        int(number) + 1: f"{LESION_TYPES[winners[number] - LESION]} is the likeliest type, with a probability of "
        f"{math.floor(100 * probabilities[number].max() + 1e-4) / 100:.2f}; at least {min_confidence:g} is needed"
        for number in unsure
    }
    winners[unsure] = INDETERMINATE.index
    label_of = np.concatenate([[LIVER], winners]).astype(np.uint8)
    labels[box][lesion] = label_of[of_voxel]
    if prediction.liver is not None:
        labels[box][lesion & (ids[box] == 0) & ~prediction.liver[box]] = 0
    if len(outside):
        labels[box][np.isin(parts, outside + 1)] = 0
    below = len(large) - len(likely)
    dropped = len(voxels) - len(kept) - below - len(outside)
    return LesionMap(
        labels, ids, prediction.box, prediction.shape, voxels[kept], winners, probabilities, dropped,
        scores[kept], below, len(outside), reasons,
    )  # fmt: skip


def liver_volume_ml(lesions: LesionMap, voxel_ml: float) -> float:
    """Return the volume of the liver with its lesions, in ml."""
    return float(np.count_nonzero(lesions.inside)) * voxel_ml
