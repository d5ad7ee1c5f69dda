"""What the tags of one DICOM file say of the slice it holds.

DICOM's frame is LPS+, in mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from liverseg.errors import UnreadableError

__all__ = ["Slice", "read_slice", "slice_reader"]

_UID, _MODALITY, _DESCRIPTION, _INSTANCE = "0020|000e", "0008|0060", "0008|103e", "0008|0018"
_POSITION, _ORIENTATION, _PIXEL_SPACING = "0020|0032", "0020|0037", "0028|0030"
_THICKNESS, _TILT = "0018|0050", "0018|1120"

_CLASS_IS = b"\2\0\2\0UI\x1a\0"
_IMAGE_CLASSES = (_CLASS_IS + b"1.2.840.10008.5.1.4.1.1.2\0", _CLASS_IS + b"1.2.840.10008.5.1.4.1.1.7\0")
"""CT image or secondary capture by (0002,0002): unreadable ones are damaged. Others, DICOMDIRs too, refer to slices."""


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
    """A file's tags, or None for what is no DICOM image."""
    reader = slice_reader(path)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        try:
            with path.open("rb") as file:
                start = file.read(1024)
        except OSError as no_file:
            raise UnreadableError(f"{path}: cannot be read ({no_file.strerror or no_file})") from no_file
        if start[128:132] == b"DICM" and any(name in start for name in _IMAGE_CLASSES):
            raise UnreadableError(
                f"{path}: a DICOM slice that cannot be read; is it truncated? copy it again"
            ) from error
        return None
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
