"""Outlines of livers by a network: cleaning, measures, and checks of plausibility.

Arrays are in axial order, shape (slice, row, column), towards head, back and the patient's left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from liverseg.errors import UsageError
from liverseg.evaluation.scores import dice
from liverseg.imageio.boxes import Box, bounding_box, crop_to_box, full_box, to_global
from liverseg.imageio.ct_check import body_middle
from liverseg.inference.components import components_touching, largest_component
from liverseg.inference.plausibility import PLAUSIBLE_LIVER_ML

__all__ = ["LiverOutline", "Measures", "OutlineLimits", "extract_liver", "measure", "outline_dice"]


@dataclass(frozen=True)
class LiverOutline:
    """Mask of a liver, including lesions, in the box around it.

    Attributes:
        inside: True in the liver, shape of the box.
        box: box in the volume; empty if no liver was found.
        shape: shape of the volume, (slice, row, column).
        largest_part: share of the voxels predicted as liver or lesion that are in the largest component, 0 to 1; 0 if
            there are none.
    """

    inside: np.ndarray
    box: Box
    shape: tuple[int, int, int]
    largest_part: float

    @property
    def voxels(self) -> int:
        """Number of voxels of the liver."""
        return int(np.count_nonzero(self.inside))

    def on_slice(self, index: int) -> np.ndarray:
        """Return the mask on one axial slice of the volume, shape (row, column)."""
        slices, rows, columns = self.box
        mask = np.zeros(self.shape[1:], bool)
        if slices.start <= index < slices.stop:
            mask[rows, columns] = self.inside[index - slices.start]
        return mask


def extract_liver(prediction: np.ndarray) -> LiverOutline:
    """Keep the largest component, 26 neighbours, and fill its enclosed holes.

    A hole is a lesion or vessel that the network did not predict as liver, and is part of the liver.

    Args:
        prediction: True where the network predicts liver or lesion, shape of the volume.
    """
    depth, rows, columns = prediction.shape
    shape = (depth, rows, columns)
    box = bounding_box(prediction)
    if box is None:
        empty = slice(0, 0)
        return LiverOutline(np.zeros((0, 0, 0), bool), (empty, empty, empty), shape, 0.0)
    component = largest_component(prediction[box])
    share = np.count_nonzero(component) / np.count_nonzero(prediction[box])
    component_box = bounding_box(component) or full_box(component.shape)
    outside = np.pad(~component[component_box], 1, constant_values=True)
    seed = np.zeros_like(outside)
    seed[0, 0, 0] = True
    filled = ~components_touching(outside, seed)[1:-1, 1:-1, 1:-1]
    return LiverOutline(filled, to_global(component_box, box), shape, share)


def outline_dice(first: LiverOutline, second: LiverOutline) -> float:
    """Return the Dice of two outlines of one volume: 1 if both are empty, 0 if one is."""
    overlap = np.count_nonzero(first.inside & crop_to_box(second.inside, second.box, first.box))
    return float(dice(overlap, first.voxels, second.voxels))


@dataclass(frozen=True)
class Measures:
    """Measures of an outline; None if not measured or not possible.

    Attributes:
        volume_ml: volume of the liver with its lesions.
        largest_part: see `LiverOutline`.
        cut_off: whether the liver reaches the first or the last slice.
        right_of_midline_mm: distance of the liver's centroid from the middle of the body, to the patient's right.
        median_hu: median HU of the liver.
        flip_agreement: Dice with the same network's outline on the mirrored CT.
        network_agreement: Dice with the outline of a second network.
    """

    volume_ml: float
    largest_part: float
    cut_off: bool
    right_of_midline_mm: float | None = None
    median_hu: float | None = None
    flip_agreement: float | None = None
    network_agreement: float | None = None

    def describe(self) -> str:
        """Format the available measures in one line."""
        if not self.volume_ml:
            return "no liver"
        texts = [f"liver {self.volume_ml:.0f} ml", f"largest part {self.largest_part:.1%}"]
        for value, text in (
            (self.right_of_midline_mm, "{:.0f} mm right of the midline"),
            (self.median_hu, "median {:.0f} HU"),
            (self.flip_agreement, "flips agree {:.3f}"),
            (self.network_agreement, "networks agree {:.3f}"),
        ):
            if value is not None:
                texts.append(text.format(value))
        return ", ".join(texts)


def measure(
    outline: LiverOutline,
    hu: np.ndarray,
    spacing: Sequence[float],
    voxel_ml: float,
    mirrored: LiverOutline | None = None,
    second: LiverOutline | None = None,
) -> Measures:
    """Measure an outline.

    Args:
        outline: outline on the CT.
        hu: the CT, HU of any number type.
        spacing: distance of slices, rows and columns, mm.
        voxel_ml: volume of a voxel.
        mirrored: outline on the mirrored CT, mirrored back.
        second: outline of another network.
    """
    if not outline.voxels:
        return Measures(0.0, 0.0, False)
    slices, _, columns = outline.box
    by_column = outline.inside.sum(axis=(0, 1))
    centroid = columns.start + float(by_column @ np.arange(len(by_column))) / outline.voxels
    return Measures(
        volume_ml=outline.voxels * voxel_ml,
        largest_part=outline.largest_part,
        cut_off=slices.start == 0 or slices.stop == outline.shape[0],
        right_of_midline_mm=(body_middle(hu[slices]) - centroid) * spacing[2],
        median_hu=float(np.median(hu[outline.box][outline.inside])),
        flip_agreement=None if mirrored is None else outline_dice(outline, mirrored),
        network_agreement=None if second is None else outline_dice(outline, second),
    )


@dataclass(frozen=True)
class OutlineLimits:
    """Limits of accepted outlines. The defaults are our choice.

    Attributes:
        min_largest_part: smallest share of the voxels predicted as liver in the largest component.
        volume_ml: smallest and largest volume; nine in ten livers of LiTS have 1160 to 2530 ml. The smallest volume
            does not apply to livers that are cut off by the scan.
        allow_cut_off: accept livers that reach the first or the last slice.
        min_right_mm: smallest distance of the liver's centroid from the middle of the body, to the patient's right.
        median_hu: smallest and largest median HU, from a fatty liver without contrast medium to the portal venous phase
            with a margin.
        min_flip_agreement: smallest Dice with the outline on the mirrored CT.
        min_network_agreement: smallest Dice of two networks.

    Raises:
        UsageError: if a number is out of range, or a smallest value is above the largest.
    """

    min_largest_part: float = 0.98
    volume_ml: tuple[float, float] = PLAUSIBLE_LIVER_ML
    allow_cut_off: bool = False
    min_right_mm: float = 0.0
    median_hu: tuple[float, float] = (40.0, 160.0)
    min_flip_agreement: float = 0.9
    min_network_agreement: float = 0.9

    def __post_init__(self) -> None:
        for name in ("min_largest_part", "min_flip_agreement", "min_network_agreement"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is {getattr(self, name)!r}; it must be a number, 0 to 1")
        for name in ("volume_ml", "median_hu"):
            low, high = getattr(self, name)
            if not -math.inf < low <= high < math.inf:
                raise UsageError(f"{name} is {low:g} to {high:g}; it must be two numbers, the lower first")
        if not math.isfinite(self.min_right_mm):
            raise UsageError(f"min_right_mm is {self.min_right_mm!r}; it must be a distance in mm")

    def failed_checks(self, measures: Measures) -> list[str]:
        """Return a phrase for each check that an outline fails; none if it is accepted.

        Measures that are None are not checked.
        """
        if not measures.volume_ml:
            return ["no liver found"]
        reasons = []
        if measures.largest_part < self.min_largest_part:
            reasons.append(
                f"{measures.largest_part:.1%} of the voxels called liver form one component, "
                f"{self.min_largest_part:.1%} are needed"
            )
        low, high = self.volume_ml
        if measures.cut_off and not self.allow_cut_off:
            reasons.append("the scan cuts the liver off")
        if measures.volume_ml > high or (measures.volume_ml < low and not measures.cut_off):
            reasons.append(f"volume {measures.volume_ml:.0f} ml, {low:g} to {high:g} are allowed")
        right = measures.right_of_midline_mm
        if right is not None and right < self.min_right_mm:
            side = f"{right:.0f} mm to the right" if right >= 0 else f"{-right:.0f} mm to the left"
            reasons.append(f"its centroid is {side} of the body's middle, {self.min_right_mm:g} mm to the right needed")
        median, (low, high) = measures.median_hu, self.median_hu
        if median is not None and not low <= median <= high:
            reasons.append(f"median {median:.0f} HU, {low:g} to {high:g} are allowed")
        for value, minimum, reference in (
            (measures.flip_agreement, self.min_flip_agreement, "the outline on the mirrored CT"),
            (measures.network_agreement, self.min_network_agreement, "the second network's"),
        ):
            if value is not None and value < minimum:
                reasons.append(f"Dice {value:.3f} with {reference}, {minimum:g} is needed")
        return reasons
