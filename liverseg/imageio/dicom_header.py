"""Read the tags of a DICOM file: the geometry of the slice it holds, or named tags.

DICOM's frame is LPS+, in mm.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.config import disable_value_validation

from liverseg.errors import UnreadableError
from liverseg.imageio.formats import has_dicom_marker, has_dicom_prefix

__all__ = [
    "Slice",
    "read_slice",
    "read_tags",
    "skip_validation",
    "slice_reader",
]

_validation_lock = threading.RLock()
"""pydicom's switch is global: of two threads, the first to leave would enable validation for the other."""


@contextmanager
def skip_validation() -> Iterator[None]:
    """Disable pydicom's validation of values within the block; blocks of other threads wait for its end."""
    with _validation_lock, disable_value_validation():
        yield


def read_tags(path: Path, keywords: Sequence[str]) -> pydicom.Dataset:
    """Read some tags of a DICOM file without its pixels and without validation, which would log patients' data.

    pydicom converts values when they are used, so use them within `skip_validation` too.

    Args:
        path: the file; it may lack the preamble.
        keywords: of the tags.

    Raises:
        UnreadableError: if it cannot be read.
    """
    with skip_validation():
        try:
            return pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(keywords))
        except Exception as error:  # pydicom raises many kinds for damaged files
            raise UnreadableError(f"{path}: its header cannot be read; copy or export it again") from error


_UID, _MODALITY, _DESCRIPTION, _INSTANCE = "0020|000e", "0008|0060", "0008|103e", "0008|0018"
_POSITION, _ORIENTATION, _PIXEL_SPACING = "0020|0032", "0020|0037", "0028|0030"
_THICKNESS, _TILT, _BITS = "0018|0050", "0018|1120", "0028|0100"

_START_BYTES, _MAX_START_BYTES = 4096, 1 << 20
"""Bytes read first and at most to find a file's class and transfer syntax. 400 are usual."""
_LONG_VALUES = (b"OB", b"OW", b"UN", b"UT", b"SQ")
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_UNCOMPRESSED = (None, b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.2")
"""Transfer syntaxes of uncompressed pixels; None is that of files that state none."""
_CLASS_IS = b"\2\0\2\0UI\x1a\0"
_IMAGE_CLASSES = (_CLASS_IS + b"1.2.840.10008.5.1.4.1.1.2\0", _CLASS_IS + b"1.2.840.10008.5.1.4.1.1.7\0")
"""CT image and secondary capture, as (0002,0002): if such a file is unreadable, it is damaged. Files of other classes,
DICOMDIRs among them, only refer to slices."""

_CLASS_TAGS = (b"\2\0\2\0UI", b"\x08\0\x16\0")
"""Tags that state the class, (0002,0002) and (0008,0016): a file without either is truncated."""


@dataclass(frozen=True)
class Slice:
    """The tags of a file with one slice; lengths in mm, LPS+, NaN for tags that are missing or unreadable."""

    path: Path
    uid: str
    instance: str
    description: str
    modality: str
    size: tuple[int, ...]
    channels: int
    position: np.ndarray
    orientation: np.ndarray
    pixel_spacing: np.ndarray
    thickness: float
    tilt: float


def read_slice(path: Path) -> Slice | None:
    """Read a file's tags; None for files that are not DICOM images: notes, reports, directories.

    A file that is deflated with its tags is not read: it would be inflated in memory, to any size.

    Raises:
        UnreadableError: if it states that it is a CT slice, or that it is DICOM without stating a class, and cannot be
            read, or if pixels are missing.
    """
    start, transfer_syntax, complete = _read_start(path)
    is_slice = has_dicom_prefix(start) and any(name in start for name in _IMAGE_CLASSES)
    if not complete or _DEFLATED in start:
        if is_slice:
            raise UnreadableError(f"{path}: a DICOM slice whose tags are deflated, or endless; export it uncompressed")
        return None
    reader, truncated = slice_reader(path), f"{path}: a DICOM slice that cannot be read; is it truncated? copy it again"
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        if is_slice or (has_dicom_marker(path, start) and not any(tag in start for tag in _CLASS_TAGS)):
            raise UnreadableError(truncated) from error
        return None
    if transfer_syntax in _UNCOMPRESSED and _lacks_pixels(reader, path):
        raise UnreadableError(truncated)
    return Slice(
        path=path,
        uid=_text(reader, _UID),
        instance=_text(reader, _INSTANCE),
        description=_text(reader, _DESCRIPTION),
        modality=_text(reader, _MODALITY),
        size=tuple(reader.GetSize()),
        channels=reader.GetNumberOfComponents(),
        position=_numbers(reader, _POSITION, 3),
        orientation=_numbers(reader, _ORIENTATION, 6),
        pixel_spacing=_numbers(reader, _PIXEL_SPACING, 2),
        thickness=float(_numbers(reader, _THICKNESS, 1)[0]),
        tilt=float(_numbers(reader, _TILT, 1)[0]),
    )


def _read_start(path: Path) -> tuple[bytes, bytes | None, bool]:
    """Return a file's first bytes, its transfer syntax, and whether its file meta information ends within them."""
    try:
        with path.open("rb") as file:
            start = file.read(_START_BYTES)
            transfer_syntax, complete = _parse_meta_information(start)
            if not complete:
                start += file.read(_MAX_START_BYTES)
                transfer_syntax, complete = _parse_meta_information(start)
    except OSError as error:
        raise UnreadableError(f"{path}: cannot be read ({error.strerror or error})") from error
    return start, transfer_syntax, complete or len(start) < _MAX_START_BYTES


def _parse_meta_information(start: bytes) -> tuple[bytes | None, bool]:
    """Return the transfer syntax in the tags of group 2, and whether these end within a file's first bytes."""
    if not has_dicom_prefix(start):
        return None, True
    place, transfer_syntax = 132, None
    while place + 12 <= len(start):
        if start[place : place + 2] != b"\2\0":
            return transfer_syntax, True
        long = start[place + 4 : place + 6] in _LONG_VALUES
        begin = place + (12 if long else 8)
        end = begin + int.from_bytes(start[place + 8 : begin] if long else start[place + 6 : begin], "little")
        if start[place + 2 : place + 4] == b"\x10\0":
            transfer_syntax = start[begin:end].rstrip(b"\0 ")
        place = end
    return transfer_syntax, False


def _lacks_pixels(reader: sitk.ImageFileReader, path: Path) -> bool:
    """Return whether a file is smaller than its pixels; GDCM fills missing ones with whatever is in memory."""
    bits = _numbers(reader, _BITS, 1)[0]
    return math.prod(reader.GetSize()) * (8 if np.isnan(bits) else bits) / 8 > path.stat().st_size


def slice_reader(path: Path) -> sitk.ImageFileReader:
    """Return ITK's reader of a DICOM file."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    return reader


def _text(reader: sitk.ImageFileReader, tag: str) -> str:
    raw = reader.GetMetaData(tag) if reader.HasMetaDataKey(tag) else ""
    try:
        raw.encode("utf-8")
    except UnicodeEncodeError:  # bytes that are not UTF-8 cannot be printed; most are Latin-1
        raw = raw.encode("utf-8", "surrogateescape").decode("latin-1")
    return " ".join("".join(char if char.isprintable() else " " for char in raw).split())


def _numbers(reader: sitk.ImageFileReader, tag: str, count: int) -> np.ndarray:
    try:
        numbers = np.array([float(part) for part in _text(reader, tag).split("\\")])
    except ValueError:
        numbers = np.empty(0)
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else np.full(count, np.nan)
