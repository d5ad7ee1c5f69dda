"""Slices straight from a NIfTI file, without a copy of it anywhere.

nibabel reads only what is asked for. In a .nii.gz it gets there by an index of places where decompression can start,
which `indexed_gzip` makes on the way; a slice then costs a few megabytes of decompression instead of all before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import indexed_gzip  # noqa: F401  # nibabel uses it for .nii.gz where it is installed; without it this would be slow
import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation

from liverseg.errors import LiversegError
from liverseg.imageio.nifti import READ_ERRORS, as_whole_numbers
from liverseg.imageio.volume import axial_orientation, read_volume_header, slice_axis

__all__ = ["NiftiSlices"]


class NiftiSlices:
    """Axial slices of a NIfTI file, read by their numbers as from a `SliceFile`.

    Args:
        path: .nii or .nii.gz, 3-D.
        dtype: whole numbers to round to; values beyond its range become its limits.

    Raises:
        LiversegError: from `read_volume_header`.
    """

    def __init__(self, path: Path, dtype: np.dtype | type) -> None:
        self.path = path
        self.dtype = np.dtype(dtype)
        self._own_shape, affine = read_volume_header(path)
        self._orientation = axial_orientation(affine)
        self._axis = slice_axis(affine)
        order = np.argsort(self._orientation[:, 0])
        self.shape = tuple(self._own_shape[int(axis)] for axis in order)
        image: Any = nib.load(path)
        self._voxels = image.dataobj

    def read(self, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
        """Slices by their numbers, in any order and as often as asked for, shape (numbers, row, column).

        Raises:
            LiversegError: if they cannot be read.
        """
        once = {int(number): self._read_one(int(number)) for number in dict.fromkeys(map(int, numbers))}
        return np.stack([once[int(number)] for number in numbers])

    def _read_one(self, number: int) -> np.ndarray:
        flipped = self._orientation[self._axis, 1] < 0
        own = self.shape[0] - 1 - number if flipped else number
        try:
            if len(self._voxels.shape) == 3:
                part = self._voxels[(slice(None),) * self._axis + (slice(own, own + 1),)]
            else:  # a 2-D file, or axes of length one behind the third
                part = np.asanyarray(self._voxels).reshape(self._own_shape, order="F").take([own], self._axis)
        except READ_ERRORS as error:
            raise LiversegError(f"{self.path}: slice {own} cannot be read ({error}); is the file truncated?") from error
        slice_ = apply_orientation(part, self._orientation)[0]
        return as_whole_numbers(slice_, self.dtype)
