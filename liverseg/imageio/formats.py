"""Recognise files that can hold a CT, by their names and first bytes: NIfTI files, zips, DICOM files."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from liverseg.imageio.volume import case_name, is_nifti

__all__ = ["has_dicom_marker", "has_dicom_prefix", "is_dicom", "is_volume_or_zip", "source_name"]

_ZIP = ".zip"
_DICOM_ENDINGS = (".dcm", ".ima")
_PREAMBLE_BYTES, _DICOM_PREFIX = 128, b"DICM"
"""DICOM PS3.10, section 7.1: the prefix follows a preamble of any content."""


def is_volume_or_zip(path: Path) -> bool:
    """Return whether a file's name is that of a NIfTI volume or a zip."""
    return is_nifti(path) or path.name.lower().endswith(_ZIP)


def is_dicom(path: Path) -> bool:
    """Return whether a file is marked as DICOM, by its ending or its first bytes.

    False for DICOMDIR, the index of a disc, for files that cannot be read, and for all but plain files: reading a pipe
    could block forever.
    """
    if path.name.upper() == "DICOMDIR":
        return False
    with suppress(OSError):
        if not path.is_file():
            return False
        if has_dicom_marker(path):
            return True
        with path.open("rb") as file:
            return has_dicom_marker(path, file.read(_PREAMBLE_BYTES + len(_DICOM_PREFIX)))
    return False


def has_dicom_marker(path: Path, start: bytes = b"") -> bool:
    """Return whether a file's ending is that of DICOM or its first bytes hold the DICOM prefix.

    Args:
        path: the file, whose name alone is used.
        start: its first bytes, 132 or more.
    """
    return path.suffix.lower() in _DICOM_ENDINGS or has_dicom_prefix(start)


def has_dicom_prefix(start: bytes) -> bool:
    """Return whether a file's first bytes hold the DICOM prefix."""
    return start[_PREAMBLE_BYTES:].startswith(_DICOM_PREFIX)


def source_name(path: Path) -> str:
    """Return the name of a file or folder without the ending of a volume or zip."""
    return path.name[: -len(_ZIP)] if path.name.lower().endswith(_ZIP) else case_name(path)
