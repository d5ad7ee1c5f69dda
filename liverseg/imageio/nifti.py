"""Read and write the bytes of NIfTI files: decompressed once, to the end, straight into the memory of the voxels.

ISA-L decompresses two to three times as fast as zlib. Reading to the end finds damage that stopping at the last voxel
misses: the check sum is at the end of the gzip stream.

Headers are not trusted. No memory is allocated that the file cannot fill, and a file is refused that is far larger than
its header says, or compressed more than any CT. The limits are the constants below; a program may set others.
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
from liverseg.imageio.limits import MAX_BYTES, MAX_RATIO
from liverseg.utils.files import atomic_write

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
    "write_nifti",
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
"""Errors of `read_voxels` for a file that is damaged, of another format or unreadable."""

SMALL_BYTES = 2 << 30
"""Voxels of at most this size may have any compression ratio: a mask compresses to a thousandth. The longest volume of
LiTS has 987 slices, which are 1.93 GiB as a mask of 64 bits."""
MAX_TRAILING_BYTES = 64 << 20
"""Bytes after the voxels: some programs write padding. All of it is read, for the check sum behind it."""

_READ_BYTES = 1 << 16  # at a time ...
_DECOMPRESSED_BYTES = 1 << 18  # ... few enough to stay in the processor's cache
_MAX_HEADER_BYTES = 540  # NIfTI-2
_COMPRESSION_LEVEL = 1  # zlib's 1 to 9: label maps are mostly zeros; 6 takes four times as long for half the bytes
_MAX_DEFLATE_RATIO = 1032  # gzip stores 258 bytes in 2 bits at best: a file cannot hold more than that
_FORM_FIELDS = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
_HEADERS = (nib.Nifti1Header, nib.Nifti2Header)
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 31  # wbits of zlib and ISA-L for a gzip stream with the largest window

_silent = logging.getLogger(f"{__name__}.silent")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


@dataclass(frozen=True)
class StoredVoxels:
    """The header and voxels of a file.

    Attributes:
        header: as nibabel understands it, with the corrections it makes when it loads a file.
        pixdim: the three voxel lengths in mm as stored in the file; they may be zero, negative or NaN.
        array: voxels as stored, 1-D, first axis fastest, in the file's own data type and byte order.
    """

    header: nib.Nifti1Header
    pixdim: tuple[float, ...]
    array: np.ndarray

    def scaled(self) -> np.ndarray:
        """Return the voxels with the header's scaling applied, in native byte order, 1-D.

        Integers stay integers if slope and intercept are integral. All others, and float64, become float32.
        """
        array = self.array.astype(self.array.dtype.newbyteorder("="), copy=False)
        slope, inter = self.header.get_slope_inter()
        slope, inter = 1.0 if slope is None else float(slope), 0.0 if inter is None else float(inter)
        if (slope, inter) != (1.0, 0.0):
            small = array.dtype.kind in "iu" and array.dtype.itemsize <= 2
            if small and slope.is_integer() and inter.is_integer() and max(abs(slope), abs(inter)) < 2**14:
                ends = [int(end(initial=0)) * int(slope) + int(inter) for end in (array.min, array.max)]
                bounds = np.iinfo(np.int16)
                narrow = bounds.min <= min(ends) and max(ends) <= bounds.max
                array = array.astype(np.int16 if narrow else np.int32)
                # integers wrap around: a product that overflows is right again after the sum, which fits
                array *= array.dtype.type(slope)
                array += array.dtype.type(inter)
            else:
                array = array.astype(np.float32) * np.float32(slope) + np.float32(inter)
        return array.astype(np.float32) if array.dtype == np.float64 else array


class ReusableBuffer(threading.local):
    """Memory for the voxels of one file after another, separate for each thread.

    Allocating new memory takes a good part of the time of reading. The next file that the same thread reads overwrites
    the voxels of the last one.
    """

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def __call__(self, size: int) -> np.ndarray:
        """Return an uninitialised array of `size` bytes."""
        if len(self._bytes) < size:
            self._bytes = np.empty(size, np.uint8)
        return self._bytes[:size]


def read_header(path: Path) -> tuple[nib.Nifti1Header, tuple[float, ...]]:
    """Read the header alone: as nibabel understands it, and the pixdim as stored, see `StoredVoxels`.

    Raises:
        UnreadableError: if its name does not say whether it is compressed.
        Those of `READ_ERRORS`, as from `read_voxels`.
    """
    return _parse_header(_first_bytes(iter_chunks(path)))


def read_voxels(path: Path, memory: ReusableBuffer | None = None) -> StoredVoxels:
    """Read a .nii or .nii.gz to its end.

    Args:
        path: the file.
        memory: buffer to read into; new memory by default.

    Raises:
        UnreadableError: if it exceeds a limit, or from `iter_chunks`.
        EOFError: if the gzip stream or the voxels end early.
        Others of `READ_ERRORS`: if it cannot be read, is damaged (its check sum included), or is not a NIfTI file of
            one number per voxel.
    """
    source = iter_chunks(path)
    start = _first_bytes(source)
    header, pixdim = _parse_header(start)
    dtype = header.get_data_dtype()
    size = max(0, math.prod(int(n) for n in header.get_data_shape()) * dtype.itemsize)
    place = -int(header.get_data_offset())  # of the next chunk among the voxels
    _check_stated_size(path, -place, size)
    voxels = memory(size) if memory else np.empty(size, np.uint8)
    for chunk in itertools.chain([start], source):
        begin = max(0, place)
        part = memoryview(chunk)[max(0, -place) :][: max(0, size - begin)]
        voxels[begin : begin + len(part)] = part
        place += len(chunk)
        if place > size + MAX_TRAILING_BYTES:
            raise UnreadableError(
                f"{path}: more than {MAX_TRAILING_BYTES >> 20} MiB follow the {size} bytes of voxels that its header "
                "states; is it a NIfTI file? export it again"
            )
    if place < size:
        raise EOFError(f"it holds {max(0, place)} of {size} bytes of voxels")
    return StoredVoxels(header, pixdim, voxels.view(dtype))


def _check_stated_size(path: Path, offset: int, size: int) -> None:
    """Refuse too many voxels, or more than a file of its size can hold, before memory is allocated for them."""
    stored = path.stat().st_size
    compressed = path.name.lower().endswith(".gz")
    if size > MAX_BYTES:
        raise UnreadableError(
            f"{path}: its header states {size} bytes of voxels, {MAX_BYTES} are allowed; crop it, or store it in 16 "
            "bits if it is a CT"
        )
    if offset + size > (_MAX_DEFLATE_RATIO * stored if compressed else stored):
        held = f"at most {_MAX_DEFLATE_RATIO * stored}" if compressed else max(0, stored - offset)
        raise EOFError(f"it holds {held} of {size} bytes of voxels")
    if compressed and size > max(SMALL_BYTES, MAX_RATIO * stored):
        raise UnreadableError(
            f"{path}: its header states {size} bytes of voxels, more than {MAX_RATIO} times its compressed size, as in "
            "no CT; if it is a mask, store it in 8 bits"
        )


def label_header(header: nib.Nifti1Header, dtype: np.dtype) -> nib.Nifti1Header:
    """Return the header of a label map on a volume's grid, with the volume's sform, qform, their codes and units.

    It is NIfTI-1 if the volume's sides allow: SimpleITK does not read NIfTI-2. Texts and header extensions are not
    copied: some converters write the patient's name into them. Neither is the intent, by which ITK looks for vectors.
    """
    new = _as_nifti1(header)
    new.extensions = type(new.extensions)()  # a new list: nibabel's copy shares that of the original
    for name in ("intent_code", "intent_p1", "intent_p2", "intent_p3"):
        new[name] = 0
    new.set_data_dtype(dtype)
    new.set_slope_inter(1, 0)
    new["cal_min"] = new["cal_max"] = 0
    for name in ("db_name", "aux_file", "intent_name"):
        if name in new:  # NIfTI-2 lacks the first
            new[name] = b""
    new["descrip"] = b"liverseg"
    return new


def _as_nifti1(header: nib.Nifti1Header) -> nib.Nifti1Header:
    """Return a copy of a header, as NIfTI-1 if its sides fit."""
    if not isinstance(header, nib.Nifti2Header) or max(header.get_data_shape()) > np.iinfo(np.int16).max:
        return header.copy()
    new = nib.Nifti1Header(endianness=header.endianness)
    new.set_data_shape(header.get_data_shape())
    for name in (*_FORM_FIELDS, "pixdim", "xyzt_units", "dim_info"):
        new[name] = header[name]
    return new


def write_planes(path: Path, header: nib.Nifti1Header, planes: Iterable[np.ndarray]) -> None:
    """Write a .nii or .nii.gz plane by plane; the same voxels give the same bytes.

    Args:
        path: the file; compressed by zlib if its name ends in .gz.
        header: with the shape and data type of the file.
        planes: one for each index of the third axis, with the shape of the first two.
    """
    header = header.copy()
    header["magic"] = header.single_magic
    header.set_data_offset(header.single_vox_offset)
    dtype = header.get_data_dtype()  # in the header's byte order
    with contextlib.ExitStack() as stack:
        file: Any = stack.enter_context(path.open("wb"))
        if path.name.lower().endswith(".gz"):
            # ISA-L takes a tenth of the time, but compressed one file in some hundreds to other bytes
            file = stack.enter_context(gzip.GzipFile("", "wb", compresslevel=_COMPRESSION_LEVEL, fileobj=file, mtime=0))
        start = io.BytesIO()
        header.write_to(start)
        file.write(start.getvalue().ljust(header.single_vox_offset, b"\0"))
        for plane in planes:
            file.write(plane.astype(dtype, copy=False).tobytes(order="F"))


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    """Write a volume, shape (I, J, K) with its affine to RAS+ mm, atomically; create the folder if needed.

    Raises:
        OutputError: if it cannot be written.
    """
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    with atomic_write(path, make_folder=True) as temporary:
        nib.save(image, temporary)


def _first_bytes(source: Iterator[bytes]) -> bytes:
    """Return enough chunks to hold a header, joined."""
    start = b""
    for chunk in source:
        start += chunk
        if len(start) >= _MAX_HEADER_BYTES:
            break
    return start


def iter_chunks(path: Path) -> Iterator[bytes]:
    """Yield a file's bytes in chunks, decompressed if its name ends in .gz.

    Raises:
        UnreadableError: if it is compressed and its name does not end in .gz, or the other way round, or if bytes that
            are no gzip stream follow the compressed ones.
        EOFError: if the gzip stream ends early.
        OSError, IsalError: if it cannot be read or is damaged, its check sum included.
    """
    with path.open("rb", buffering=0) as file:
        start = file.read(_READ_BYTES)
        file.seek(0)
        _check_compression(path, start)
        if not path.name.lower().endswith(".gz"):
            while chunk := file.read(_READ_BYTES):
                yield chunk
            return
        stream = isal_zlib.decompressobj(_GZIP_WINDOW)
        while chunk := file.read(_READ_BYTES):
            while chunk:
                if stream.eof:  # a second stream may follow, or zeros that fill a block
                    chunk = chunk.lstrip(b"\0")
                    if not chunk:
                        break
                    if not chunk.startswith(_GZIP_MAGIC[: len(chunk)]):
                        raise UnreadableError(
                            f"{path}: the gzip stream ends before the file does, and other bytes follow; copy it "
                            "again, or unpack it and compress the result"
                        )
                    stream = isal_zlib.decompressobj(_GZIP_WINDOW)
                yield stream.decompress(chunk, _DECOMPRESSED_BYTES)
                chunk = stream.unconsumed_tail or stream.unused_data
        yield stream.flush()
        if not stream.eof:
            raise EOFError(f"its gzip stream ends early, after {file.tell()} bytes")


def _check_compression(path: Path, start: bytes) -> None:
    """Refuse a name that says the opposite of a file's first bytes about its compression."""
    named, compressed = path.name.lower().endswith(".gz"), start.startswith(_GZIP_MAGIC)
    if compressed and not named:
        raise UnreadableError(f"{path}: compressed, though its name does not end in .gz; rename it to {path.name}.gz")
    if named and not compressed and any(kind.may_contain_header(start) for kind in _HEADERS):
        plain = path.name[: -len(".gz")]
        raise UnreadableError(f"{path}: not compressed, though its name ends in .gz; rename it to {plain}")


def _parse_header(start: bytes) -> tuple[nib.Nifti1Header, tuple[float, ...]]:
    """Return the header in a file's first bytes, and the pixdim as stored.

    Raises:
        ValueError: also for places of the voxels at which programs disagree. nibabel moves voxels that would begin
            within the header behind it, and ITK reads them there.
    """
    for kind in _HEADERS:
        if kind.may_contain_header(start):
            header = kind(start[: kind.template_dtype.itemsize], check=False)
            break
    else:
        if len(start) < nib.Nifti1Header.template_dtype.itemsize:
            raise EOFError(f"{len(start)} bytes are less than a NIfTI header")
        raise ValueError("its first bytes are not a NIfTI header")
    offset = float(header["vox_offset"])
    if offset < header.single_vox_offset:
        raise ValueError(
            f"its voxels begin at byte {offset:g}, within the {header.single_vox_offset} bytes of its header"
        )
    qfac = float(header["pixdim"][0])
    if qfac < 0 and qfac != -1 and int(header["sform_code"]) <= 0:  # nibabel takes it for 1, ITK for -1
        raise ValueError(f"its qfac, pixdim[0], is {qfac:g}; 1 or -1 is needed to order its slices")
    pixdim = tuple(float(length) for length in header["pixdim"][1:4])[: int(header["dim"][0])]
    header.check_fix(logger=_silent)  # the corrections nibabel makes when it loads a file
    if header.get_data_dtype().kind not in "iuf":
        raise ValueError(f"voxels of type {header.get_data_dtype()}; one number per voxel is needed")
    return header, pixdim


def describe_not_finite(array: np.ndarray) -> str:
    """Describe how many voxels are NaN or infinite; empty if none are."""
    if array.dtype.kind != "f":
        return ""
    bad = array.size - int(np.count_nonzero(np.isfinite(array)))
    return f"{bad} voxels are NaN or infinite; replace them, air is -1024" if bad else ""


def as_integers(array: np.ndarray, dtype: np.dtype | type) -> np.ndarray:
    """Return an array rounded and clipped to an integer type; unchanged if it has the type."""
    dtype = np.dtype(dtype)
    if array.dtype == dtype:
        return array
    limits = np.iinfo(dtype)
    return np.clip(np.rint(array), limits.min, limits.max).astype(dtype)
