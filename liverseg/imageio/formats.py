"""Recognise files that can hold a CT, by their names and first bytes: NIfTI files, zips, DICOM files."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from liverseg.imageio.volume import case_name, is_nifti
from liverseg.utils.files import describe_special

__all__ = [
    "START_BYTES",
    "describe_unread",
    "has_dicom_marker",
    "has_dicom_prefix",
    "is_dicom",
    "is_volume_or_zip",
    "source_name",
]

_ZIP = ".zip"
_DICOM_ENDINGS = (".dcm", ".ima")
_PREAMBLE_BYTES, _DICOM_PREFIX = 128, b"DICM"
"""DICOM PS3.10, section 7.1: the prefix follows a preamble of any content."""

START_BYTES = 1024
"""Bytes of a file that show what it is."""
_FIRST_GROUPS = (0x0002, 0x0008)
"""Group of a data set's first tag, PS3.10 section 7.1 and PS3.6: file meta information, or identification."""
_SHORT_VRS = (
    *("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FL", "FD", "IS", "LO", "LT"),
    *("PN", "SH", "SL", "SS", "ST", "TM", "UI", "UL", "US"),
)
_LONG_VRS = ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")
"""Value representations of PS3.5, table 6.2-1: lengths of the first have two bytes, of the others four after a gap."""
_UNDEFINED_LENGTH = 0xFFFFFFFF
_MAX_FIRST_LENGTH = 1 << 16
"""Longest value of a first tag. Our choice: those of groups 2 and 8 are codes, identifiers and dates."""

_OTHER_FORMATS = {
    (".nrrd", ".nhdr"): "NRRD",
    (".mha", ".mhd"): "MetaImage",
    (".mgz", ".mgh"): "FreeSurfer",
    (".mnc",): "MINC",
    (".vti", ".vtk"): "VTK",
    (".gipl",): "GIPL",
    (".npy", ".npz"): "NumPy",
    (".h5", ".hdf5"): "HDF5",
    (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"): "a picture",
}
_ARCHIVES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".7z", ".rar", ".bz2", ".xz", ".zst")
_GZIP, _ZIP_START = b"\x1f\x8b", b"PK\x03\x04"
_NIFTI_SIZES = (b"\x5c\x01\0\0", b"\0\0\x01\x5c", b"\x1c\x02\0\0", b"\0\0\x02\x1c")
"""Length of a NIfTI header, 348 or 540, with which it begins, in both byte orders."""
_NIFTI_MAGIC = re.compile(rb"n[i+][12]\0")


def is_volume_or_zip(path: Path) -> bool:
    """Return whether a file's name is that of a NIfTI volume or a zip."""
    return is_nifti(path) or path.name.lower().endswith(_ZIP)


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM, by its ending or its first bytes, see `has_dicom_marker`.

    False for DICOMDIR, the index of a disc, for files that cannot be read, and for all but plain files: reading a pipe
    could block forever.
    """
    if path.name.upper() == "DICOMDIR":
        return False
    with suppress(OSError):
        if not path.is_file():
            return False
        return has_dicom_marker(path) or has_dicom_marker(path, _read_start(path))
    return False


def describe_unread(path: Path) -> str | None:
    """Return why a file is no CT that is read, with what to do; None for a NIfTI file, a zip or a DICOM file.

    Args:
        path: a file of any kind, or a link.
    """
    if is_volume_or_zip(path):
        return None
    if path.name.upper() == "DICOMDIR":
        return "the index of a DICOM disc, which holds no image; DICOM files are read without it"
    try:
        if not path.is_file():
            return describe_special(path) or "a link to a file that does not exist"
        if has_dicom_marker(path):
            return None
        start = _read_start(path)
    except OSError as error:
        return f"cannot be read ({error.strerror or error}); check its permissions"
    return None if has_dicom_marker(path, start) else _describe_other(path, start)


def has_dicom_marker(path: Path, start: bytes = b"") -> bool:
    """Return whether a file's ending is that of DICOM, or its first bytes hold the DICOM prefix or begin a data set.

    Args:
        path: the file, whose name alone is used.
        start: its first bytes, 132 or more.
    """
    return path.suffix.lower() in _DICOM_ENDINGS or has_dicom_prefix(start) or _begins_data_set(start)


def has_dicom_prefix(start: bytes) -> bool:
    """Return whether a file's first bytes hold the DICOM prefix."""
    return start[_PREAMBLE_BYTES:].startswith(_DICOM_PREFIX)


def source_name(path: Path) -> str:
    """Return the name of a file or folder without the ending of a volume or zip."""
    return path.name[: -len(_ZIP)] if path.name.lower().endswith(_ZIP) else case_name(path)


def _read_start(path: Path) -> bytes:
    with path.open("rb", buffering=0) as file:
        return file.read(START_BYTES)


def _begins_data_set(start: bytes) -> bool:
    """Return whether bytes begin with a DICOM data set that lacks the preamble, as old scanners and exports write.

    The first tag must be of group 2 or 8 with a length that fits its value representation, and the second one, if it
    is among the bytes, must come after it, as PS3.5 section 7.1 demands.
    """
    return any(_follows_order(start, order) for order in ("little", "big"))


def _follows_order(start: bytes, order: str) -> bool:
    first = _parse_tag(start, 0, order)
    if first is None or first[0] >> 16 not in _FIRST_GROUPS or first[1] > _MAX_FIRST_LENGTH:
        return False
    if first[1] > len(start):
        return True  # the value is longer than the bytes at hand
    second = _parse_tag(start, first[1], order)
    return len(start) < first[1] + 8 or (second is not None and second[0] > first[0])


def _parse_tag(start: bytes, place: int, order: str) -> tuple[int, int] | None:
    """Return a tag's number and the place behind its value; None if there is no plausible tag."""
    if len(start) < place + 8:
        return None
    number = _integer(start, place, 2, order) << 16 | _integer(start, place + 2, 2, order)
    representation = start[place + 4 : place + 6].decode("latin-1")
    if representation in _SHORT_VRS:
        return number, place + 8 + _integer(start, place + 6, 2, order)
    if representation in _LONG_VRS:
        length, begin = _integer(start, place + 8, 4, order), place + 12
    elif order == "big":
        return None  # implicit representations are little-endian
    else:
        length, begin = _integer(start, place + 4, 4, order), place + 8
    if length == _UNDEFINED_LENGTH:
        return number, begin
    return None if length % 2 else (number, begin + length)


def _integer(start: bytes, place: int, size: int, order: str) -> int:
    return int.from_bytes(start[place : place + size], "big" if order == "big" else "little")


def _describe_other(path: Path, start: bytes) -> str:
    """Describe a file that is no CT, and what to do if it is one."""
    name = path.name.lower()
    if not start:
        return "an empty file"
    if name.endswith((".hdr", ".img", ".hdr.gz", ".img.gz")):
        return "half of a NIfTI or Analyze pair; convert the pair to one .nii.gz"
    for endings, format_name in _OTHER_FORMATS.items():
        if name.endswith(endings):
            return f"{format_name}, which is not read; convert a CT to .nii.gz"
    if name.endswith(_ARCHIVES):
        return "an archive other than zip; unpack it"
    if start.startswith(_GZIP):
        return "compressed by gzip; call a NIfTI file .nii.gz, and unpack another one"
    if start.startswith(_ZIP_START):
        return "a zip under another name; call it .zip if it holds a study"
    if start.startswith(_NIFTI_SIZES) and _NIFTI_MAGIC.search(start):
        return "NIfTI under another name; call it .nii"
    return "not a CT: neither NIfTI, zip nor DICOM"
