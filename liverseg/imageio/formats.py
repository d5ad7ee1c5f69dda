"""What can hold a CT, told by names and first bytes: NIfTI files, zips, DICOM files."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from liverseg.imageio.volume import case_name, is_nifti

__all__ = ["DICOM_ENDINGS", "is_dicom", "is_volume_or_zip", "source_name"]

_ZIP = ".zip"
DICOM_ENDINGS = (".dcm", ".ima")
"""Of names of files that call themselves DICOM by them, in lower case."""


def is_volume_or_zip(path: Path) -> bool:
    """Whether a file's name is that of a NIfTI volume or a zip."""
    return is_nifti(path) or path.name.lower().endswith(_ZIP)


def is_dicom(path: Path) -> bool:
    """Whether a file calls itself DICOM, by its name's ending or its first bytes; the index of a disc is none.

    Nor is what is no plain file: whoever opened a pipe would wait for ever.
    """
    if path.name.upper() == "DICOMDIR":
        return False
    with suppress(OSError):
        if not path.is_file():
            return False
        if path.suffix.lower() in DICOM_ENDINGS:
            return True
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    return False


def source_name(path: Path) -> str:
    """A file's or folder's name without the ending of a volume or zip."""
    return path.name[: -len(_ZIP)] if path.name.lower().endswith(_ZIP) else case_name(path)
