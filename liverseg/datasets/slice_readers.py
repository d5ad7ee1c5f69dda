"""Slices of a volume, read one by one: from a file of compressed slices, or straight from NIfTI.

A file of slices is a Blosc chunk for each slice, one behind the other, then their places and check sums as JSON. LZ4
behind a byte shuffle was the fastest to read of what was tried (`benchmarks/slab_access.py`): half the size of the
voxels, and several times as fast as zarr or a stronger codec. Memory does not grow with the number of files, as it
seems to when they are mapped, and no file is held open.

Of a NIfTI file nibabel reads only what is asked for. In a .nii.gz it gets there by an index of places where
decompression can start, which `indexed_gzip` makes on the way; a slice then costs a few megabytes of decompression
instead of all before it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import indexed_gzip  # noqa: F401  # nibabel uses it for .nii.gz where it is installed; without it this would be slow
import nibabel as nib
import numpy as np
from isal import isal_zlib
from nibabel.orientations import apply_orientation
from numcodecs import Blosc, blosc

from liverseg.errors import LiversegError
from liverseg.imageio.grid import axial_orientation
from liverseg.imageio.nifti import READ_ERRORS, as_integers
from liverseg.imageio.volume import read_grid
from liverseg.utils.files import atomic_write

__all__ = [
    "NiftiSlices",
    "SliceFile",
    "write_slices",
]

_MAGIC = b"LSSLICES"
_TAIL = 8 + len(_MAGIC)  # length of the JSON before it, little-endian, and the word that says what this is
blosc.use_threads = False  # several files are worked on at a time instead
_DAMAGED = "; delete it and run `liverseg prepare` again"


class SliceFile:
    """Slices of one array on disk, read by their numbers.

    Args:
        path: written by `write_slices`.

    Raises:
        LiversegError: if the file is missing, truncated or not of this kind.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        try:
            head = _read_head(self.path)
            self.shape: tuple[int, int, int] = tuple(head["shape"])
            self.dtype = np.dtype(head["dtype"])
            self.facts: dict[str, Any] = head["facts"]
            self._starts: list[int] = head["starts"]
            self._sums: list[int] = head["sums"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LiversegError(f"{self.path}: no file of slices, or a damaged one{_DAMAGED}") from error

    @property
    def nbytes(self) -> int:
        """Bytes of all slices, decompressed."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
        """Slices by their numbers, in any order and as often as asked for, shape (numbers, row, column).

        Raises:
            LiversegError: if a slice cannot be read or is not what was written.
        """
        out = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        try:
            with self.path.open("rb", buffering=0) as file:
                for number, target in zip(numbers, out, strict=True):
                    blosc.decompress(self._chunk(file, int(number)), target)
        except OSError as error:
            raise LiversegError(f"{self.path}: cannot be read ({error.strerror or error})") from error
        return out

    def verify(self) -> None:
        """Read every slice.

        Raises:
            LiversegError: as from `read`.
        """
        for number in range(self.shape[0]):
            self.read([number])

    def _chunk(self, file: BinaryIO, number: int) -> bytes:
        start, end = self._starts[number], self._starts[number + 1]
        file.seek(start)
        chunk = file.read(end - start)
        # before it is decompressed, which nobody should do with bytes that somebody else may have written
        if isal_zlib.crc32(chunk) != self._sums[number]:
            raise LiversegError(f"{self.path}: slice {number} is not what was written, by its check sum{_DAMAGED}")
        return chunk


def write_slices(path: str | os.PathLike, stack: np.ndarray, facts: Mapping[str, Any] | None = None) -> None:
    """Write an array slice by slice, whole or not at all.

    Args:
        path: target; its folder must exist.
        stack: (slice, row, column) of any number type; it may be a view.
        facts: what to keep with it, as JSON holds it.

    Raises:
        OutputError: if it cannot be written.
    """
    starts, sums = [0], []
    codec = Blosc("lz4", clevel=1, shuffle=Blosc.SHUFFLE if stack.dtype.itemsize > 1 else Blosc.NOSHUFFLE)
    advice = "choose another folder for it"
    with atomic_write(path, "the cache", advice) as temporary, temporary.open("wb") as file:
        for view in stack:
            chunk = codec.encode(np.ascontiguousarray(view))
            sums.append(isal_zlib.crc32(chunk))
            starts.append(starts[-1] + file.write(chunk))
        head = {"shape": stack.shape, "dtype": stack.dtype.str, "starts": starts, "sums": sums, "facts": facts or {}}
        told = json.dumps(head).encode()
        file.write(told + len(told).to_bytes(8, "little") + _MAGIC)


def _read_head(path: Path) -> dict[str, Any]:
    """The JSON at the end of a file.

    Raises:
        ValueError: if there is none.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL))
        tail = file.read()
        length = int.from_bytes(tail[:8], "little")
        if tail[8:] != _MAGIC or length > size - _TAIL:
            raise ValueError("no file of slices")
        file.seek(size - _TAIL - length)
        head: dict[str, Any] = json.loads(file.read(length))
        return head


class NiftiSlices:
    """Axial slices of a NIfTI file, read by their numbers as from a `SliceFile`.

    Args:
        path: .nii or .nii.gz, 3-D.
        dtype: whole numbers to round to; values beyond its range become its limits.

    Raises:
        LiversegError: from `read_grid`.
    """

    def __init__(self, path: Path, dtype: np.dtype | type) -> None:
        self.path = path
        self.dtype = np.dtype(dtype)
        grid = read_grid(path)
        self._own_shape = grid.shape
        self._orientation = axial_orientation(grid.affine)
        self._axis = grid.slice_axis
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
        return as_integers(slice_, self.dtype)
