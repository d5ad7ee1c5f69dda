"""A NIfTI file read once, from its first byte to its last, with what its header says before anybody mends it.

`liverseg.volumes.read_volume` stops at the last voxel, so it never sees a damaged end of a gzip stream, and takes a
header that nibabel has put right. Here the stream is decompressed to its end, straight into the voxels' memory.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip_lib, isal_zlib
from nibabel.orientations import io_orientation

from liverseg.datalists.checks.findings import Defect
from liverseg.errors import LiversegError
from liverseg.files import is_file
from liverseg.volumes import is_nifti, slice_axis

__all__ = ["Grid", "ReadFile", "pieces", "read_whole"]

_PIECE = 1 << 16  # bytes read at a time ...
_MOST = 1 << 18  # ... and decompressed at a time, few enough to stay in the processor's cache
_LONGEST_HEADER = 540  # NIfTI-2
_GZIP = 31  # zlib's and ISA-L's word for a gzip stream with the largest window

_silent = logging.getLogger(f"{__name__}.silent")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


@dataclass(frozen=True)
class Grid:
    """Where a file's header puts its voxels.

    Attributes:
        shape: (I, J, K).
        affine: 4×4, voxel index to RAS+ mm; None if it is singular or not finite.
        spacing: the three pixdim in mm as they stand in the file, be they zero, negative or NaN.
        codes: qform and sform code; (0, 0) says that nobody set an orientation.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray | None
    spacing: tuple[float, ...]
    codes: tuple[int, int]

    @property
    def slice_axis(self) -> int:
        """The array axis that runs closest to feet-head; the last where the affine does not tell."""
        return 2 if self.affine is None else slice_axis(self.affine)


@dataclass(frozen=True)
class ReadFile:
    """One file's content.

    Attributes:
        grid: from its header.
        array: voxels with the header's scaling applied, shape (I, J, K), native byte order, first axis fastest; whole
            numbers stay integers where the scaling is whole.
        header: as nibabel understands it.
    """

    grid: Grid
    array: np.ndarray
    header: nib.Nifti1Header


def read_whole(path: Path) -> ReadFile:
    """Read a .nii or .nii.gz to its end.

    Raises:
        Defect: "missing", "unreadable", "truncated", "dimensions" or "not finite".
    """
    try:
        if not is_file(path):
            raise Defect("missing", "no such file; copy it there, or take it off the list")
    except LiversegError as error:
        raise Defect("unreadable", str(error).removeprefix(f"{path}: ")) from error
    if not is_nifti(path):
        raise Defect("unreadable", "not a NIfTI file name; .nii and .nii.gz are read")
    try:
        header, spacing, stored = _header_and_voxels(pieces(path))
        grid = _grid(header, spacing)
        array = _scaled(header, stored).reshape(grid.shape, order="F")
    except EOFError as error:
        raise Defect("truncated", f"{error}; copy or export it again") from error
    except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stub says instance where it is a class
        raise Defect("unreadable", f"its gzip stream is damaged ({error}); copy or export it again") from error
    except (OSError, MemoryError, ValueError, OverflowError, nib.spatialimages.HeaderDataError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Defect("unreadable", f"cannot be read as NIfTI ({reason}); copy or export it again") from error
    if array.dtype.kind == "f":
        bad = array.size - int(np.count_nonzero(np.isfinite(array)))
        if bad:
            raise Defect("not finite", f"{bad} voxels are NaN or infinite; replace them, air is -1024")
    return ReadFile(grid, array, header)


def pieces(path: Path) -> Iterator[bytes]:
    """A file's bytes in pieces, decompressed if its name ends in .gz.

    Raises:
        EOFError: if the gzip stream ends early.
        OSError, IsalError: if it cannot be read or is damaged, its check sum included.
    """
    with path.open("rb", buffering=0) as file:
        if not path.name.lower().endswith(".gz"):
            while piece := file.read(_PIECE):
                yield piece
            return
        stream = isal_zlib.decompressobj(_GZIP)
        while piece := file.read(_PIECE):
            while piece:
                if stream.eof:  # a second stream may follow the first, or zeros that fill a block
                    piece = piece.lstrip(b"\0")
                    if not piece:
                        break
                    stream = isal_zlib.decompressobj(_GZIP)
                yield stream.decompress(piece, _MOST)
                piece = stream.unconsumed_tail or stream.unused_data
        yield stream.flush()
        if not stream.eof:
            raise EOFError(f"its gzip stream ends early, after {file.tell()} bytes")


def _header_and_voxels(source: Iterator[bytes]) -> tuple[nib.Nifti1Header, tuple[float, ...], np.ndarray]:
    """Header, spacing as stored, and the voxels as stored, one axis long."""
    start = bytearray()
    for piece in source:
        start += piece
        if len(start) >= _LONGEST_HEADER:
            break
    for kind in (nib.Nifti1Header, nib.Nifti2Header):
        if kind.may_contain_header(bytes(start)):
            size = kind.template_dtype.itemsize
            break
    else:
        if len(start) < nib.Nifti1Header.template_dtype.itemsize:
            raise EOFError(f"{len(start)} bytes are less than a NIfTI header")
        raise ValueError("its first bytes are no NIfTI header")
    header = kind(bytes(start[:size]), check=False)
    spacing = tuple(float(length) for length in header["pixdim"][1:4])[: int(header["dim"][0])]
    header.check_fix(logger=_silent)  # what nibabel puts right when it loads a file
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        raise ValueError(f"voxels of type {dtype}; one number a voxel is needed")
    size = math.prod(int(n) for n in header.get_data_shape()) * dtype.itemsize
    voxels = np.empty(max(size, 0), np.uint8)
    offset, place = int(header.get_data_offset()), 0
    ahead = bytes(start)
    while True:
        part = ahead[max(0, offset - place) :]
        begin = max(0, place - offset)
        if part and begin < size:
            part = part[: size - begin]
            voxels[begin : begin + len(part)] = np.frombuffer(part, np.uint8)
        place += len(ahead)
        try:
            ahead = next(source)
        except StopIteration:
            break
    if place < offset + size:
        raise EOFError(f"it holds {max(0, place - offset)} of {size} bytes of voxels")
    return header, spacing, voxels.view(dtype)


def _grid(header: nib.Nifti1Header, spacing: tuple[float, ...]) -> Grid:
    shape = header.get_data_shape()
    full = tuple(int(n) for n in shape)
    while len(full) > 3 and full[-1] == 1:
        full = full[:-1]
    if len(full) == 2:
        full = (*full, 1)
    shown = "×".join(map(str, shape))
    if len(full) != 3:
        raise Defect("dimensions", f"{len(shape)} dimensions, shape {shown}; 3 are needed: one file a phase")
    if min(full) < 1:
        raise Defect("dimensions", f"an empty volume, shape {shown}; export it again")
    affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    sound = np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) >= 1e-9
    sound = sound and np.isfinite(io_orientation(affine)).all()  # an axis next to no length has no direction
    return Grid(full, affine if sound else None, spacing, (int(header["qform_code"]), int(header["sform_code"])))


def _scaled(header: nib.Nifti1Header, stored: np.ndarray) -> np.ndarray:
    array = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    slope, inter = header.get_slope_inter()
    slope, inter = 1.0 if slope is None else float(slope), 0.0 if inter is None else float(inter)
    if (slope, inter) != (1.0, 0.0):
        whole = array.dtype.kind in "iu" and array.dtype.itemsize <= 2 and slope.is_integer() and inter.is_integer()
        if whole and max(abs(slope), abs(inter)) < 2**14:
            array = array.astype(np.int32) * np.int32(slope) + np.int32(inter)
        else:
            array = array.astype(np.float32) * np.float32(slope) + np.float32(inter)
    return array.astype(np.float32) if array.dtype == np.float64 else array
