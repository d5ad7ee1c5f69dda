"""What a network says of a volume, kept for the box that holds all it looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from liverseg.imageio.boxes import Box, box_shape, embed, full_box, to_local
from liverseg.labels import LESION

__all__ = ["SlabPrediction", "join_predictions"]


@dataclass(frozen=True)
class SlabPrediction:
    """Labels and lesion types of a volume, without a float volume of every class; outside the box is background.

    Attributes:
        inside: label map of the box, uint8, shape (slice, row, column) in axial order.
        type_probabilities: float32, shape (lesion voxels, lesion types): probability of each type given that the voxel
            is lesion, one row for each voxel that `inside` calls lesion, in C order.
        box: where `inside` lies in the volume; by default it is all of it.
        shape: of the volume, (slice, row, column).
        warnings: what a reader of the result should know, one sentence each.
        liver: true in the liver of a mask from elsewhere, shape of `inside`; None where the network found the liver.
        lesion_probabilities: float32, shape (lesion voxels,): probability that the voxel is lesion, of whatever type,
            in the order of the rows above; None where it was not kept.

    Raises:
        ValueError: if there is not one row of probabilities a lesion voxel, or `inside` is not of the box's shape.
    """

    inside: np.ndarray
    type_probabilities: np.ndarray
    box: Box = None  # type: ignore[assignment]  # filled in below
    shape: tuple[int, int, int] = None  # type: ignore[assignment]
    warnings: tuple[str, ...] = ()
    liver: np.ndarray | None = None
    lesion_probabilities: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.box is None:
            object.__setattr__(self, "box", full_box(self.inside.shape))
            object.__setattr__(self, "shape", tuple(self.inside.shape))
        if box_shape(self.box) != self.inside.shape:
            raise ValueError(f"labels of shape {self.inside.shape} for a box of {box_shape(self.box)}")
        voxels = int(np.count_nonzero(self.inside >= LESION))
        if len(self.type_probabilities) != voxels:
            raise ValueError(f"{len(self.type_probabilities)} rows of probabilities for {voxels} lesion voxels")
        if self.lesion_probabilities is not None and len(self.lesion_probabilities) != voxels:
            raise ValueError(f"{len(self.lesion_probabilities)} probabilities of lesion for {voxels} lesion voxels")

    @property
    def labels(self) -> np.ndarray:
        """The label map of the whole volume, a new array each time."""
        return embed(self.inside, self.box, self.shape)

    def relabelled(self, inside: np.ndarray) -> SlabPrediction:
        """The same with another label map of the box, in which no voxel has become lesion; rows go with their voxels.

        Args:
            inside: uint8, shape as `self.inside`.
        """
        still_lesion = inside[self.inside >= LESION] >= LESION
        return replace(
            self,
            inside=inside,
            type_probabilities=self.type_probabilities[still_lesion],
            lesion_probabilities=_rows(self.lesion_probabilities, still_lesion),
        )

    def on_slices(self, slices: slice) -> SlabPrediction:
        """The same of some of its slices, given by their place in the volume."""
        start, stop = slices.start - self.box[0].start, slices.stop - self.box[0].start
        first, lesions = (
            int(np.count_nonzero(self.inside[some] >= LESION)) for some in (slice(start), slice(start, stop))
        )
        return replace(
            self,
            inside=self.inside[start:stop],
            type_probabilities=self.type_probabilities[first : first + lesions],
            lesion_probabilities=_rows(self.lesion_probabilities, slice(first, first + lesions)),
            box=(slices, *self.box[1:]),
            liver=None if self.liver is None else self.liver[start:stop],
        )


def join_predictions(parts: Sequence[SlabPrediction]) -> SlabPrediction:
    """Predictions of boxes that follow each other along the slices, as one of the box that holds them all.

    Boxes may differ in rows and columns; what is in none of them is background.
    """
    if len(parts) == 1:
        return parts[0]
    boxes = [part.box for part in parts]
    first, second, third = (
        slice(min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes)) for axis in range(3)
    )
    whole = (first, second, third)
    inside = np.zeros(box_shape(whole), np.uint8)
    for part in parts:
        inside[to_local(part.box, whole)] = part.inside
    # C order begins with the slice, so that each part's rows stay together and in their own order
    rows = np.concatenate([part.type_probabilities for part in parts])
    kept = [part.lesion_probabilities for part in parts if part.lesion_probabilities is not None]
    lesion = np.concatenate(kept) if len(kept) == len(parts) else None
    return SlabPrediction(inside, rows, whole, parts[0].shape, lesion_probabilities=lesion)


def _rows(probabilities: np.ndarray | None, which: np.ndarray | slice) -> np.ndarray | None:
    return None if probabilities is None else probabilities[which]
