"""What a cohort's masks hold: each is read once, before it is known how it is to be read and whether it stays."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from liverseg.datalists.importers.cohort_images import Grid
from liverseg.datalists.importers.cohort_masks import is_png, read_picture
from liverseg.errors import LiversegError
from liverseg.imageio.volume import grids_apart, is_nifti, read_volume

__all__ = ["MaskFacts", "mask_facts"]


@dataclass(frozen=True)
class MaskFacts:
    """What one mask holds, and where.

    Attributes:
        values: what it holds, 0 always among them; None for a DICOM SEG, whose segments have names.
        grid: its own; None where it is no NIfTI.
        on_slice: of a NIfTI what it holds on each slice asked for, as `values`.
    """

    values: set[int] | None
    grid: Grid | None = None
    on_slice: dict[int, set[int]] = field(default_factory=dict)

    def lies_on(self, image: Grid) -> bool:
        """Whether its voxels are the image's, in the same order."""
        if self.grid is None or self.grid.shape != image.shape:
            return False
        return not grids_apart(image.affine, self.grid.affine, image.shape)


def mask_facts(path: Path, slices: Collection[int] = ()) -> MaskFacts:
    """Read a NIfTI or PNG mask to its end; a DICOM SEG is read later, when something is made of it.

    Args:
        path: the mask.
        slices: those to tell the values of, from 0 along the file's own slice axis; those it lacks are left out.

    Raises:
        LiversegError: if it cannot be read, is of another kind or holds values that are not whole or below 0.
    """
    if is_png(path.name):
        return MaskFacts(_held(path, read_picture(path)))
    if not is_nifti(path):
        return MaskFacts(None)
    volume = read_volume(path)
    values = _held(path, volume.array)
    grid = Grid(volume.array.shape, volume.affine, dicom=False)
    there = [number for number in slices if number < grid.depth]
    return MaskFacts(values, grid, {number: _held(path, volume.array[grid.plane(number)]) for number in there})


def _held(path: Path, array: np.ndarray) -> set[int]:
    voxels = array.ravel(order="K")
    # a mask is a few long runs: one voxel of each is sorted instead of all, and threads do not wait for each other
    others = voxels[1:][voxels[1:] != voxels[:-1]]
    found = np.unique(np.append(voxels[:1], others))
    found = found[found != 0]
    if (found < 0).any() or (found != np.round(found)).any():
        shown = ", ".join(f"{value:g}" for value in found[:5])
        raise LiversegError(f"{path}: mask values {shown}; whole numbers from 0 are needed")
    return {0, *(int(value) for value in found)}
