"""What the tags of one DICOM file say of the slice it holds.

DICOM's frame is LPS+, in mm.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom.config import disable_value_validation

from liverseg.errors import UnreadableError
from liverseg.imageio.formats import DICOM_ENDINGS

__all__ = [
    "Slice",
    "read_slice",
    "skip_validation",
    "slice_reader",
]

_one_at_a_time = threading.RLock()
"""The switch is of the whole process: of two threads, the first to leave would switch it on again for the other."""


@contextmanager
def skip_validation() -> Iterator[None]:
    """No validation in the block; another thread's block waits for its end."""
    with _one_at_a_time, disable_value_validation():
        yield


_UID, _MODALITY, _DESCRIPTION, _INSTANCE = "0020|000e", "0008|0060", "0008|103e", "0008|0018"
_POSITION, _ORIENTATION, _PIXEL_SPACING = "0020|0032", "0020|0037", "0028|0030"
_THICKNESS, _TILT, _BITS = "0018|0050", "0018|1120", "0028|0100"

_START, _LONGEST_START = 4096, 1 << 20
"""Bytes in which a file says what it is and how it is packed: as many are read, and as many at most. 400 are usual."""
_LONG = (b"OB", b"OW", b"UN", b"UT", b"SQ")
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_UNPACKED = (None, b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.2")
"""Transfer syntaxes of pixels that stand in the file as they are; the first is that of files that name none."""
_CLASS_IS = b"\2\0\2\0UI\x1a\0"
_IMAGE_CLASSES = (_CLASS_IS + b"1.2.840.10008.5.1.4.1.1.2\0", _CLASS_IS + b"1.2.840.10008.5.1.4.1.1.7\0")
"""CT image or secondary capture by (0002,0002): unreadable ones are damaged. Others, DICOMDIRs too, refer to slices."""

_CLASS_TAGS = (b"\2\0\2\0UI", b"\x08\0\x16\0")
"""Where a file says of what class it is, (0002,0002) or (0008,0016): one that does not get there is cut off."""


@dataclass(frozen=True)
class Slice:
    """What the tags of one file say; lengths in mm, LPS+, NaN where a tag is missing or unreadable."""

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
    """A file's tags, or None for what is no DICOM image: notes, reports, directories.

    One whose tags are deflated as a whole is not read: it would be inflated in memory, to whatever size.

    Raises:
        UnreadableError: if it calls itself a CT slice, or DICOM and not of what class, and cannot be read, or if it
            lacks pixels.
    """
    start, packed_as, ends = _first_bytes(path)
    calls_itself_slice = start[128:132] == b"DICM" and any(name in start for name in _IMAGE_CLASSES)
    if not ends or _DEFLATED in start:
        if calls_itself_slice:
            raise UnreadableError(f"{path}: a DICOM slice whose tags are deflated, or endless; export it uncompressed")
        return None
    reader, cut = slice_reader(path), f"{path}: a DICOM slice that cannot be read; is it truncated? copy it again"
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        if calls_itself_slice or (_calls_itself_dicom(path, start) and not any(tag in start for tag in _CLASS_TAGS)):
            raise UnreadableError(cut) from error
        return None
    if packed_as in _UNPACKED and _is_short(reader, path):
        raise UnreadableError(cut)
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


def _calls_itself_dicom(path: Path, start: bytes) -> bool:
    return start[128:132] == b"DICM" or path.suffix.lower() in DICOM_ENDINGS


def _first_bytes(path: Path) -> tuple[bytes, bytes | None, bool]:
    """A file's first bytes, what it says of how it is packed, and whether what it says of itself ends within them."""
    try:
        with path.open("rb") as file:
            start = file.read(_START)
            packed_as, ends = _file_tags(start)
            if not ends:
                start += file.read(_LONGEST_START)
                packed_as, ends = _file_tags(start)
    except OSError as error:
        raise UnreadableError(f"{path}: cannot be read ({error.strerror or error})") from error
    return start, packed_as, ends or len(start) < _LONGEST_START


def _file_tags(start: bytes) -> tuple[bytes | None, bool]:
    """Transfer syntax by the tags about the file, group 2, and whether they end within its first bytes."""
    if start[128:132] != b"DICM":
        return None, True
    place, packed_as = 132, None
    while place + 12 <= len(start):
        if start[place : place + 2] != b"\2\0":
            return packed_as, True
        long = start[place + 4 : place + 6] in _LONG
        begin = place + (12 if long else 8)
        end = begin + int.from_bytes(start[place + 8 : begin] if long else start[place + 6 : begin], "little")
        if start[place + 2 : place + 4] == b"\x10\0":
            packed_as = start[begin:end].rstrip(b"\0 ")
        place = end
    return packed_as, False


def _is_short(reader: sitk.ImageFileReader, path: Path) -> bool:
    """Whether a file is smaller than the pixels it tells of; GDCM gives what was in memory for those not there."""
    bits = _numbers(reader, _BITS, 1)[0]
    return math.prod(reader.GetSize()) * (8 if np.isnan(bits) else bits) / 8 > path.stat().st_size


def slice_reader(path: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    return reader


def _text(reader: sitk.ImageFileReader, tag: str) -> str:
    raw = reader.GetMetaData(tag) if reader.HasMetaDataKey(tag) else ""
    try:
        raw.encode("utf-8")
    except UnicodeEncodeError:  # bytes that are no UTF-8 cannot be printed; most are Latin-1
        raw = raw.encode("utf-8", "surrogateescape").decode("latin-1")
    return " ".join("".join(one if one.isprintable() else " " for one in raw).split())


def _numbers(reader: sitk.ImageFileReader, tag: str, count: int) -> np.ndarray:
    try:
        numbers = np.array([float(part) for part in _text(reader, tag).split("\\")])
    except ValueError:
        numbers = np.empty(0)
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else np.full(count, np.nan)
