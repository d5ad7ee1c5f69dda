"""What a network outlined as liver: cleaned, measured, and checked against what a liver can be.

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
from liverseg.inference.components import components_touching, largest_part
from liverseg.inference.plausibility import PLAUSIBLE_LIVER_ML

__all__ = ["Limits", "LiverOutline", "Measures", "agreement", "measure", "one_liver"]


@dataclass(frozen=True)
class LiverOutline:
    """One liver, lesions included, kept for the box around it.

    Attributes:
        inside: true in the liver, shape of the box.
        box: where it lies in the volume; empty where no liver was found.
        shape: of the volume, (slice, row, column).
        largest_part: share of the voxels that the network called liver or lesion which lie in the largest component,
            0 to 1; 0 where it found none.
    """

    inside: np.ndarray
    box: Box
    shape: tuple[int, int, int]
    largest_part: float

    @property
    def voxels(self) -> int:
        """Voxels of the liver."""
        return int(np.count_nonzero(self.inside))

    def on_slice(self, index: int) -> np.ndarray:
        """The liver on one axial slice of the volume, shape (row, column)."""
        slices, rows, columns = self.box
        mask = np.zeros(self.shape[1:], bool)
        if slices.start <= index < slices.stop:
            mask[rows, columns] = self.inside[index - slices.start]
        return mask


def one_liver(found: np.ndarray) -> LiverOutline:
    """Keep the largest component, 26 neighbours, and fill the holes that it encloses on all sides.

    A hole in a liver is a lesion or vessel that the network did not call liver; both belong to it.

    Args:
        found: true where the network sees liver or lesion, of all of a volume.
    """
    depth, rows, columns = found.shape
    shape = (depth, rows, columns)
    box = bounding_box(found)
    if box is None:
        nothing = slice(0, 0)
        return LiverOutline(np.zeros((0, 0, 0), bool), (nothing, nothing, nothing), shape, 0.0)
    part = largest_part(found[box])
    share = np.count_nonzero(part) / np.count_nonzero(found[box])
    own = bounding_box(part) or full_box(part.shape)
    outside = np.pad(~part[own], 1, constant_values=True)
    seed = np.zeros_like(outside)
    seed[0, 0, 0] = True
    filled = ~components_touching(outside, seed)[1:-1, 1:-1, 1:-1]
    return LiverOutline(filled, to_global(own, box), shape, share)


def agreement(one: LiverOutline, other: LiverOutline) -> float:
    """Dice of two outlines of one volume: 1 where both are empty, 0 where one is."""
    hit = np.count_nonzero(one.inside & crop_to_box(other.inside, other.box, one.box))
    return float(dice(hit, one.voxels, other.voxels))


@dataclass(frozen=True)
class Measures:
    """What is checked of an outline; None where it was not measured or cannot be.

    Attributes:
        volume_ml: of the liver with its lesions.
        largest_part: see `LiverOutline`.
        cut_off: the liver reaches the first or the last slice.
        right_of_midline_mm: how far the liver's centroid lies to the patient's right of the body's middle.
        median_hu: of the liver.
        flip_agreement: Dice with what the same network outlines on the mirrored CT.
        network_agreement: Dice with what a second network outlines.
    """

    volume_ml: float
    largest_part: float
    cut_off: bool
    right_of_midline_mm: float | None = None
    median_hu: float | None = None
    flip_agreement: float | None = None
    network_agreement: float | None = None

    def describe(self) -> str:
        """One line, without what was not measured."""
        if not self.volume_ml:
            return "no liver"
        told = [f"liver {self.volume_ml:.0f} ml", f"largest part {self.largest_part:.1%}"]
        for value, text in (
            (self.right_of_midline_mm, "{:.0f} mm right of the midline"),
            (self.median_hu, "median {:.0f} HU"),
            (self.flip_agreement, "flips agree {:.3f}"),
            (self.network_agreement, "networks agree {:.3f}"),
        ):
            if value is not None:
                told.append(text.format(value))
        return ", ".join(told)


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
        outline: of the CT.
        hu: the CT, HU of any number type.
        spacing: mm between slices, rows and columns.
        voxel_ml: volume of a voxel.
        mirrored: what the network outlines on the mirrored CT, mirrored back.
        second: what another network outlines.
    """
    if not outline.voxels:
        return Measures(0.0, 0.0, False)
    slices, _, columns = outline.box
    of_columns = outline.inside.sum(axis=(0, 1))
    centroid = columns.start + float(of_columns @ np.arange(len(of_columns))) / outline.voxels
    return Measures(
        volume_ml=outline.voxels * voxel_ml,
        largest_part=outline.largest_part,
        cut_off=slices.start == 0 or slices.stop == outline.shape[0],
        right_of_midline_mm=(body_middle(hu[slices]) - centroid) * spacing[2],
        median_hu=float(np.median(hu[outline.box][outline.inside])),
        flip_agreement=None if mirrored is None else agreement(outline, mirrored),
        network_agreement=None if second is None else agreement(outline, second),
    )


@dataclass(frozen=True)
class Limits:
    """What an outline must keep to be accepted. The defaults are our choice.

    Attributes:
        min_largest_part: least share of the voxels called liver that form one component.
        volume_ml: least and largest volume; nine in ten livers of LiTS have 1160 to 2530 ml. Where the scan cuts the
            liver off, its volume is that of the part shown, and the least one does not count.
        allow_cut_off: also take livers that reach the first or the last slice.
        min_right_mm: how far to the patient's right of the body's middle the liver's centroid lies at least.
        median_hu: least and largest median HU, from a fatty liver without contrast medium to the portal venous phase
            with a margin.
        min_flip_agreement: least Dice with the outline on the mirrored CT.
        min_network_agreement: least Dice of two networks.

    Raises:
        UsageError: if a number is out of its range, or a least one above the largest.
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

    def failed(self, measures: Measures) -> list[str]:
        """Why an outline is refused, a phrase for each check that it fails; none where it is accepted.

        What was not measured is not checked.
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
        for value, least, what in (
            (measures.flip_agreement, self.min_flip_agreement, "the outline on the mirrored CT"),
            (measures.network_agreement, self.min_network_agreement, "the second network's"),
        ):
            if value is not None and value < least:
                reasons.append(f"Dice {value:.3f} with {what}, {least:g} is needed")
        return reasons
