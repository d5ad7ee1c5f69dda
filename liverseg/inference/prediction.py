"""The network's prediction for a volume, kept for the box that holds all labelled voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from liverseg.imageio.boxes import Box, box_shape, embed, full_box, to_local
from liverseg.labels import LESION

__all__ = ["SlabPrediction", "join_predictions"]


@dataclass(frozen=True)
class SlabPrediction:
    """Labels and lesion types of a volume, without a float volume for each class; outside the box is background.

    Attributes:
        inside: label map of the box, uint8, shape (slice, row, column) in axial order.
        type_probabilities: float32, shape (lesion voxels, lesion types): probability of each type given that the voxel
            is lesion, one row for each voxel that `inside` calls lesion, in C order.
        box: position of `inside` in the volume; by default all of it.
        shape: of the volume, (slice, row, column).
        warnings: caveats for readers of the result, one sentence each.
        liver: true in the liver of a given mask, shape of `inside`; None if the network found the liver.
        lesion_probabilities: float32, shape (lesion voxels,): probability that the voxel is lesion of any type, in the
            order of `type_probabilities`; None if it was not kept.
        typed_regions: whether the network gave each connected lesion of a slice one type, so that two types side by
            side are two lesions.

    Raises:
        ValueError: if there is not one row of probabilities for each lesion voxel, or `inside` does not have the box's
            shape.
    """

    inside: np.ndarray
    type_probabilities: np.ndarray
    box: Box = None  # type: ignore[assignment]  # filled in below
    shape: tuple[int, int, int] = None  # type: ignore[assignment]
    warnings: tuple[str, ...] = ()
    liver: np.ndarray | None = None
    lesion_probabilities: np.ndarray | None = None
    typed_regions: bool = False

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

    @classmethod
    def empty(cls, shape: Sequence[int], warnings: tuple[str, ...] = ()) -> SlabPrediction:
        """Return a prediction without a liver.

        Args:
            shape: of the volume, (slice, row, column).
            warnings: as the attribute.
        """
        depth, rows, columns = (int(length) for length in shape)
        box = (slice(0, 0), slice(0, 0), slice(0, 0))
        inside, probabilities = np.zeros((0, 0, 0), np.uint8), np.zeros((0, 1), np.float32)
        return cls(inside, probabilities, box, (depth, rows, columns), warnings)

    @property
    def labels(self) -> np.ndarray:
        """The label map of the volume, a new array each time."""
        return embed(self.inside, self.box, self.shape)

    def relabelled(self, inside: np.ndarray) -> SlabPrediction:
        """Return the prediction with another label map of the box, in which no voxel has become lesion.

        Args:
            inside: uint8, shape as `self.inside`. The probabilities of voxels that are no longer lesion are dropped.
        """
        still_lesion = inside[self.inside >= LESION] >= LESION
        return replace(
            self,
            inside=inside,
            type_probabilities=self.type_probabilities[still_lesion],
            lesion_probabilities=_select(self.lesion_probabilities, still_lesion),
        )

    def on_slices(self, slices: slice) -> SlabPrediction:
        """Return the prediction for some of the slices.

        Args:
            slices: indices in the volume.
        """
        start, stop = slices.start - self.box[0].start, slices.stop - self.box[0].start
        first = int(np.count_nonzero(self.inside[:start] >= LESION))
        rows = slice(first, first + int(np.count_nonzero(self.inside[start:stop] >= LESION)))
        return replace(
            self,
            inside=self.inside[start:stop],
            type_probabilities=self.type_probabilities[rows],
            lesion_probabilities=_select(self.lesion_probabilities, rows),
            box=(slices, *self.box[1:]),
            liver=None if self.liver is None else self.liver[start:stop],
        )


def join_predictions(parts: Sequence[SlabPrediction]) -> SlabPrediction:
    """Join predictions of boxes that follow each other along the slices.

    Boxes may differ in rows and columns.

    Returns:
        The prediction for the box that holds them all; voxels in none of them are background.
    """
    if len(parts) == 1:
        return parts[0]
    boxes = [part.box for part in parts]
    slices, rows, columns = (
        slice(min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes)) for axis in range(3)
    )
    joint = (slices, rows, columns)
    inside = np.zeros(box_shape(joint), np.uint8)
    for part in parts:
        inside[to_local(part.box, joint)] = part.inside
    # C order starts with the slice, so that each part's rows stay together and in their own order
    types = np.concatenate([part.type_probabilities for part in parts])
    kept = [part.lesion_probabilities for part in parts if part.lesion_probabilities is not None]
    lesion = np.concatenate(kept) if len(kept) == len(parts) else None
    return SlabPrediction(
        inside,
        types,
        joint,
        parts[0].shape,
        lesion_probabilities=lesion,
        typed_regions=parts[0].typed_regions,
    )


def _select(probabilities: np.ndarray | None, rows: np.ndarray | slice) -> np.ndarray | None:
    return None if probabilities is None else probabilities[rows]
