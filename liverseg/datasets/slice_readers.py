"""Random access to single slices of a volume: from a file of compressed slices, or directly from NIfTI."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import indexed_gzip  # noqa: F401  # nibabel uses it for .nii.gz if it is installed; see NiftiSlices
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

__all__ = ["NiftiSlices", "SliceFile", "write_slices"]

_MAGIC = b"LSSLICES"
_TAIL = 8 + len(_MAGIC)  # length of the JSON before it, little-endian, and the magic bytes
blosc.use_threads = False  # several files are processed in parallel instead
_HOW_TO_REPAIR = "; delete it and run `liverseg prepare` again"


class SliceFile:
    """Slices of an array in a file of `write_slices`, read by their numbers.

    The file has a Blosc chunk for each slice, then their positions and checksums as JSON. LZ4 after a byte shuffle was
    the fastest to read in `benchmarks/slab_access.py`: half the size of the voxels, and several times as fast as zarr
    or a stronger codec. Memory does not grow with the number of files, as it seems to with memory mapping, and no file
    is kept open.

    Args:
        path: file of `write_slices`.

    Raises:
        LiversegError: if the file is missing, truncated or of another format.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        try:
            index = _read_index(self.path)
            self.shape: tuple[int, int, int] = tuple(index["shape"])
            self.dtype = np.dtype(index["dtype"])
            self.facts: dict[str, Any] = index["facts"]
            self._starts: list[int] = index["starts"]
            self._checksums: list[int] = index["sums"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LiversegError(f"{self.path}: not a slice file, or damaged{_HOW_TO_REPAIR}") from error

    @property
    def nbytes(self) -> int:
        """Size of all slices in bytes, uncompressed."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return slices by their numbers, in any order and with repetitions, shape (numbers, row, column).

        Raises:
            LiversegError: if a slice cannot be read or its checksum differs.
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
            LiversegError: as `read`.
        """
        for number in range(self.shape[0]):
            self.read([number])

    def _chunk(self, file: BinaryIO, number: int) -> bytes:
        start, end = self._starts[number], self._starts[number + 1]
        file.seek(start)
        chunk = file.read(end - start)
        # checked before decompression, which damaged bytes could crash
        if isal_zlib.crc32(chunk) != self._checksums[number]:
            raise LiversegError(f"{self.path}: the checksum of slice {number} differs{_HOW_TO_REPAIR}")
        return chunk


def write_slices(path: str | os.PathLike, stack: np.ndarray, facts: Mapping[str, Any] | None = None) -> None:
    """Write an array to a slice file, atomically.

    Args:
        path: target; its folder must exist.
        stack: (slice, row, column) of any dtype; may be a view.
        facts: JSON values to store with it.

    Raises:
        OutputError: if the file cannot be written.
    """
    starts, checksums = [0], []
    codec = Blosc("lz4", clevel=1, shuffle=Blosc.SHUFFLE if stack.dtype.itemsize > 1 else Blosc.NOSHUFFLE)
    advice = "choose another folder for it"
    with atomic_write(path, "the cache", advice) as temporary, temporary.open("wb") as file:
        for view in stack:
            chunk = codec.encode(np.ascontiguousarray(view))
            checksums.append(isal_zlib.crc32(chunk))
            starts.append(starts[-1] + file.write(chunk))
        index = {
            "shape": stack.shape, "dtype": stack.dtype.str, "starts": starts, "sums": checksums, "facts": facts or {},
        }  # fmt: skip
        encoded = json.dumps(index).encode()
        file.write(encoded + len(encoded).to_bytes(8, "little") + _MAGIC)


def _read_index(path: Path) -> dict[str, Any]:
    """Return the JSON at the end of a slice file.

    Raises:
        ValueError: if the file is of another format.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL))
        tail = file.read()
        length = int.from_bytes(tail[:8], "little")
        if tail[8:] != _MAGIC or length > size - _TAIL:
            raise ValueError("not a slice file")
        file.seek(size - _TAIL - length)
        index: dict[str, Any] = json.loads(file.read(length))
        return index


class NiftiSlices:
    """Axial slices of a NIfTI file, read by their numbers as from a `SliceFile`.

    nibabel reads only the requested slice. For a .nii.gz, `indexed_gzip` builds an index of positions where
    decompression can start, so a slice needs a few megabytes of decompression instead of everything before it.

    Args:
        path: .nii or .nii.gz, 3-D.
        dtype: integer type to round to; values beyond its range are clipped.

    Raises:
        LiversegError: as `read_grid`.
    """

    def __init__(self, path: Path, dtype: np.dtype | type) -> None:
        self.path = path
        self.dtype = np.dtype(dtype)
        grid = read_grid(path)
        self._file_shape = grid.shape
        self._orientation = axial_orientation(grid.affine)
        self._axis = grid.slice_axis
        order = np.argsort(self._orientation[:, 0])
        self.shape = tuple(self._file_shape[int(axis)] for axis in order)
        image: Any = nib.load(path)
        self._voxels = image.dataobj

    def read(self, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return slices by their numbers, in any order and with repetitions, shape (numbers, row, column).

        Raises:
            LiversegError: if a slice cannot be read.
        """
        slices = {number: self._read_slice(number) for number in dict.fromkeys(map(int, numbers))}
        return np.stack([slices[int(number)] for number in numbers])

    def _read_slice(self, number: int) -> np.ndarray:
        flipped = self._orientation[self._axis, 1] < 0
        index = self.shape[0] - 1 - number if flipped else number
        try:
            if len(self._voxels.shape) == 3:
                slab = self._voxels[(slice(None),) * self._axis + (slice(index, index + 1),)]
            else:  # a 2-D file, or axes of length one after the third
                slab = np.asanyarray(self._voxels).reshape(self._file_shape, order="F").take([index], self._axis)
        except READ_ERRORS as error:
            raise LiversegError(
                f"{self.path}: slice {index} cannot be read ({error}); is the file truncated?"
            ) from error
        return as_integers(apply_orientation(slab, self._orientation)[0], self.dtype)
