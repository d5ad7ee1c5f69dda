"""A NIfTI file's bytes to its voxels and back: decompressed once, to the end, straight into their memory.

ISA-L decompresses two to three times as fast as zlib. Reading to the end finds what stopping at the last voxel misses:
a damaged end of the gzip stream, where its check sum stands.

What a header claims is not trusted: no memory is asked for that the file cannot fill, and a file that is far larger
than it says, or packed as no CT is, is refused. The limits are the constants below; a program may set others.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import logging
import math
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip_lib, isal_zlib

from liverseg.errors import UnreadableError

__all__ = [
    "MAX_BYTES",
    "MAX_RATIO",
    "MAX_TRAILING_BYTES",
    "READ_ERRORS",
    "SMALL_BYTES",
    "ReusableBuffer",
    "StoredVoxels",
    "as_integers",
    "describe_not_finite",
    "iter_chunks",
    "label_header",
    "read_header",
    "read_voxels",
    "write_planes",
]

READ_ERRORS: tuple[type[Exception], ...] = (  # type: ignore[assignment]  # isal's stub has IsalError an instance
    OSError,
    EOFError,
    MemoryError,
    ValueError,
    OverflowError,
    nib.spatialimages.HeaderDataError,
    igzip_lib.IsalError,
)
"""What `read_voxels` raises where a file is damaged, foreign or cannot be had."""

MAX_BYTES = 8 << 30
"""As much as the voxels of a file may be, as stored: 16 000 slices of 512×512 pixels of 16 bits, as for a zip."""
MAX_RATIO = 100
"""How many times its packed size a file's voxels may be. A CT packs to a half or a third, a padded one to a tenth."""
SMALL_BYTES = 2 << 30
"""Voxels of no more than this may have any ratio: a mask packs to a thousandth. LiTS has 987 slices at most, which are
1.93 GiB where a mask of them is kept in 64 bits."""
MAX_TRAILING_BYTES = 64 << 20
"""What may follow the voxels: padding, which some programs leave. All of it is read, for the check sum behind it."""

_PIECE = 1 << 16  # bytes read at a time ...
_MOST = 1 << 18  # ... and decompressed at a time, few enough to stay in the processor's cache
_LONGEST_HEADER = 540  # NIfTI-2
_COMPRESSION = 1  # of zlib's 1 to 9: label maps are nearly all zeros, and 6 takes four times as long for half the bytes
_DEFLATE_RATIO = 1032  # gzip packs 258 bytes into 2 bits at best: what is claimed beyond that cannot be there
_GZIP = 31  # zlib's and ISA-L's word for a gzip stream with the largest window

_silent = logging.getLogger(f"{__name__}.silent")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


@dataclass(frozen=True)
class StoredVoxels:
    """A file's header and voxels.

    Attributes:
        header: as nibabel understands it, after what it puts right when it loads a file.
        pixdim: the three voxel lengths in mm as they stand in the file, be they zero, negative or NaN.
        array: voxels as stored, one axis long, first axis fastest, in the file's own number type and byte order.
    """

    header: nib.Nifti1Header
    pixdim: tuple[float, ...]
    array: np.ndarray

    def scaled(self) -> np.ndarray:
        """The voxels with the header's scaling applied, in native byte order, one axis long.

        Whole numbers stay integers where the scaling is whole; else they become float32, as float64 does.
        """
        array = self.array.astype(self.array.dtype.newbyteorder("="), copy=False)
        slope, inter = self.header.get_slope_inter()
        slope, inter = 1.0 if slope is None else float(slope), 0.0 if inter is None else float(inter)
        if (slope, inter) != (1.0, 0.0):
            whole = array.dtype.kind in "iu" and array.dtype.itemsize <= 2 and slope.is_integer() and inter.is_integer()
            if whole and max(abs(slope), abs(inter)) < 2**14:
                ends = [int(end(initial=0)) * int(slope) + int(inter) for end in (array.min, array.max)]
                bounds = np.iinfo(np.int16)
                narrow = bounds.min <= min(ends) and max(ends) <= bounds.max
                array = array.astype(np.int16 if narrow else np.int32)
                # whole numbers wrap around: a product that does not fit is right again after the sum, which does
                array *= array.dtype.type(slope)
                array += array.dtype.type(inter)
            else:
                array = array.astype(np.float32) * np.float32(slope) + np.float32(inter)
        return array.astype(np.float32) if array.dtype == np.float64 else array


class ReusableBuffer(threading.local):
    """Memory that one file's voxels are read into after another's, for each thread its own.

    Asking the system for new memory takes a good part of the time of reading. What was read into it is overwritten by
    the next file the same thread reads.
    """

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def __call__(self, size: int) -> np.ndarray:
        """So many bytes, uninitialised."""
        if len(self._bytes) < size:
            self._bytes = np.empty(size, np.uint8)
        return self._bytes[:size]


def read_header(path: Path) -> nib.Nifti1Header:
    """The header alone, as nibabel understands it.

    Raises:
        Those of `READ_ERRORS`, as from `read_voxels`.
    """
    return _header(_first_bytes(iter_chunks(path)))[0]


def read_voxels(path: Path, memory: ReusableBuffer | None = None) -> StoredVoxels:
    """Read a .nii or .nii.gz to its end.

    Args:
        path: the file.
        memory: to read into; new memory by default.

    Raises:
        UnreadableError: if it goes beyond one of the limits.
        EOFError: if the gzip stream or the voxels end early.
        Others of `READ_ERRORS`: if it cannot be read, is damaged, its check sum included, or is no NIfTI of numbers.
    """
    source = iter_chunks(path)
    ahead = _first_bytes(source)
    header, pixdim = _header(ahead)
    dtype = header.get_data_dtype()
    size = max(0, math.prod(int(n) for n in header.get_data_shape()) * dtype.itemsize)
    place = -int(header.get_data_offset())  # of the next piece among the voxels
    _check_claim(path, -place, size)
    voxels = memory(size) if memory else np.empty(size, np.uint8)
    for piece in itertools.chain([ahead], source):
        begin = max(0, place)
        part = memoryview(piece)[max(0, -place) :][: max(0, size - begin)]
        voxels[begin : begin + len(part)] = part
        place += len(piece)
        if place > size + MAX_TRAILING_BYTES:
            raise UnreadableError(
                f"{path}: goes on for more than {MAX_TRAILING_BYTES >> 20} MiB after the {size} bytes of voxels its "
                "header tells of; is it a NIfTI file? export it again"
            )
    if place < size:
        raise EOFError(f"it holds {max(0, place)} of {size} bytes of voxels")
    return StoredVoxels(header, pixdim, voxels.view(dtype))


def _check_claim(path: Path, offset: int, size: int) -> None:
    """Refuse voxels that are too many, or that a file of its size cannot hold, before there is memory for them."""
    stored = path.stat().st_size
    packed = path.name.lower().endswith(".gz")
    if offset < 0:
        raise ValueError(f"its voxels begin {-offset} bytes before the file")
    if size > MAX_BYTES:
        raise UnreadableError(
            f"{path}: its header tells of {size} bytes of voxels, {MAX_BYTES} are allowed; crop it, or store it in 16 "
            "bits if it is a CT"
        )
    if offset + size > (_DEFLATE_RATIO * stored if packed else stored):
        held = f"at most {_DEFLATE_RATIO * stored}" if packed else max(0, stored - offset)
        raise EOFError(f"it holds {held} of {size} bytes of voxels")
    if packed and size > max(SMALL_BYTES, MAX_RATIO * stored):
        raise UnreadableError(
            f"{path}: its header tells of {size} bytes of voxels, more than {MAX_RATIO} times its packed size, as no "
            "CT has; if it is a mask, store it in 8 bits"
        )


def label_header(header: nib.Nifti1Header, dtype: np.dtype) -> nib.Nifti1Header:
    """The header of a label map on a volume's grid: sform, qform, their codes and the units as they stand.

    Its texts are not taken over: converters write into them what they know, some the patient's name.
    """
    own = header.copy()
    own.set_data_dtype(dtype)
    own.set_slope_inter(1, 0)
    own["cal_min"] = own["cal_max"] = 0
    for name in ("db_name", "aux_file", "intent_name"):
        if name in own:  # NIfTI-2 lacks the first
            own[name] = b""
    own["descrip"] = b"liverseg"
    return own


def write_planes(path: Path, header: nib.Nifti1Header, planes: Iterable[np.ndarray]) -> None:
    """Write a .nii or .nii.gz plane by plane; the same voxels give the same bytes.

    Args:
        path: the file; compressed by zlib if its name ends in .gz.
        header: its shape and data type are the file's.
        planes: as many as the third axis is long, each of the shape of the first two.
    """
    header = header.copy()
    header["magic"] = header.single_magic
    header.set_data_offset(header.single_vox_offset)
    dtype = header.get_data_dtype()  # in the header's byte order
    with contextlib.ExitStack() as stack:
        file: Any = stack.enter_context(path.open("wb"))
        if path.name.lower().endswith(".gz"):
            # ISA-L takes a tenth of the time, but one file in some hundreds came out packed otherwise: other bytes
            file = stack.enter_context(gzip.GzipFile("", "wb", compresslevel=_COMPRESSION, fileobj=file, mtime=0))
        start = io.BytesIO()
        header.write_to(start)
        file.write(start.getvalue().ljust(header.single_vox_offset, b"\0"))
        for plane in planes:
            file.write(plane.astype(dtype, copy=False).tobytes(order="F"))


def _first_bytes(source: Iterator[bytes]) -> bytes:
    """As many pieces as hold a header."""
    start = b""
    for piece in source:
        start += piece
        if len(start) >= _LONGEST_HEADER:
            break
    return start


def iter_chunks(path: Path) -> Iterator[bytes]:
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


def _header(start: bytes) -> tuple[nib.Nifti1Header, tuple[float, ...]]:
    """Header and the pixdim as stored, from a file's first bytes."""
    for kind in (nib.Nifti1Header, nib.Nifti2Header):
        if kind.may_contain_header(start):
            header = kind(start[: kind.template_dtype.itemsize], check=False)
            break
    else:
        if len(start) < nib.Nifti1Header.template_dtype.itemsize:
            raise EOFError(f"{len(start)} bytes are less than a NIfTI header")
        raise ValueError("its first bytes are no NIfTI header")
    pixdim = tuple(float(length) for length in header["pixdim"][1:4])[: int(header["dim"][0])]
    header.check_fix(logger=_silent)  # what nibabel puts right when it loads a file
    if header.get_data_dtype().kind not in "iuf":
        raise ValueError(f"voxels of type {header.get_data_dtype()}; one number a voxel is needed")
    return header, pixdim


def describe_not_finite(array: np.ndarray) -> str:
    """Describe how many voxels are NaN or infinite; empty if none are."""
    if array.dtype.kind != "f":
        return ""
    bad = array.size - int(np.count_nonzero(np.isfinite(array)))
    return f"{bad} voxels are NaN or infinite; replace them, air is -1024" if bad else ""


def as_integers(array: np.ndarray, dtype: np.dtype | type) -> np.ndarray:
    """An array rounded to a type of whole numbers, values beyond its range cut off; itself where it is of that type."""
    dtype = np.dtype(dtype)
    if array.dtype == dtype:
        return array
    limits = np.iinfo(dtype)
    return np.clip(np.rint(array), limits.min, limits.max).astype(dtype)
