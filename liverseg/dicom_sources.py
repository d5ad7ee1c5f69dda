"""Where a CT series comes from: a folder or a zip of a study, the one series in it to be read, its volume.

Series are found by `liverseg.dicom`; here is decided which of them is the axial CT that is meant.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path, PurePosixPath

import nibabel as nib
import numpy as np
import pydicom
from pydicom.config import disable_value_validation

from liverseg.dicom import DicomSeries, find_series, read_series
from liverseg.errors import LiversegError
from liverseg.files import is_dir, is_file
from liverseg.volumes import Volume

__all__ = ["choose_series", "read_dicom_volume", "unpacked"]

MAX_FILES = 20_000
"""As many members as a zip may have: several times the slices of a study of many phases."""
MAX_BYTES = 8 << 30
"""As much as a zip may hold unpacked: a study of 16 000 slices of 512×512."""
MAX_RATIO = 100
"""How many times its packed size a zip may hold. A CT packs to a third or so, one that is mostly padding to a tenth."""
SMALL_BYTES = 128 << 20
"""A zip that holds no more than this may have any ratio: masks pack to a thousandth and do no harm."""

_BLOCK = 1 << 20
_ENCRYPTED = 0x1
_DRIVE = re.compile(r"^[A-Za-z]:")
_DAMAGED = (zipfile.BadZipFile, zlib.error, LZMAError, EOFError, NotImplementedError, RuntimeError, ValueError)
"""What zipfile raises for a zip that is damaged, or packed in a way it does not know."""

_AXIAL_DEGREES = 25.0
"""How far a series' normal may lean from feet-head and still be axial. Our choice: how a patient lies, and how slices
are angled along an organ, stay well below, and the networks saw straight slices; oblique reformations begin near 30
degrees, coronal and sagittal ones are at 90."""
_LISTED = 10
"""As many series as a message names."""


@contextmanager
def unpacked(source: str | os.PathLike) -> Iterator[Path]:
    """The folder a study is in: a folder as it is, a .zip as a temporary folder that goes away with the block.

    The temporary folder is where the system keeps such (TMPDIR moves it). Nothing is written outside it, and nothing
    is left when the zip is refused.

    Raises:
        LiversegError: if there is nothing there, or it is neither a folder nor a zip; if the zip is damaged, too large
            or packed too tightly, or a member has a path that leads outside, is a link or is encrypted.
    """
    source = Path(source)
    if is_dir(source):
        yield source
        return
    if not is_file(source):
        raise LiversegError(f"{source}: no such folder or file; give a folder of DICOM files, or a .zip of one")
    if source.suffix.lower() != ".zip":
        raise LiversegError(f"{source}: neither a folder nor a .zip; give the folder that holds the DICOM files")
    try:
        temporary = tempfile.TemporaryDirectory(prefix="liverseg-")
    except OSError as error:
        reason = error.strerror or error
        raise LiversegError(f"{source}: no temporary folder to unpack into ({reason}); set TMPDIR to one") from error
    with temporary as name:
        folder = Path(name)
        try:
            with zipfile.ZipFile(source) as archive:
                _unpack(archive, source, folder)
        except _DAMAGED as error:
            raise LiversegError(f"{source}: damaged or no zip ({_one_line(error)}); pack or copy it again") from error
        except OSError as error:
            reason = error.strerror or error
            told = f"cannot be unpacked into {folder.parent} ({reason}); is it full? TMPDIR names another folder"
            raise LiversegError(f"{source}: {told}") from error
        yield folder


def _unpack(archive: zipfile.ZipFile, source: Path, folder: Path) -> None:
    members = archive.infolist()
    if len(members) > MAX_FILES:
        raise LiversegError(f"{source}: {len(members)} members, {MAX_FILES} are allowed; unpack it and give the folder")
    targets: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for member in members:  # all of them before anything is written
        target = _target(member, source)
        if target is None:
            continue
        if target in targets:
            raise LiversegError(f"{source}: two members are called {target}; pack it again, or give the folder")
        targets[target] = member
    left = min(MAX_BYTES, max(SMALL_BYTES, MAX_RATIO * source.stat().st_size))
    if sum(member.file_size for member in targets.values()) > left:
        raise _too_large(source)
    for target, member in targets.items():
        path = folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as reader, path.open("xb") as writer:
            while block := reader.read(_BLOCK):
                left -= len(block)  # counted again, since the sizes a zip states may lie
                if left < 0:
                    raise _too_large(source)
                writer.write(block)


def _too_large(source: Path) -> LiversegError:
    return LiversegError(
        f"{source}: holds more than {MAX_BYTES >> 30} GiB, or than {MAX_RATIO} times its packed size, as no CT does; "
        "if it is one, unpack it and give the folder"
    )


def _target(member: zipfile.ZipInfo, source: Path) -> PurePosixPath | None:
    """A file's path below the folder, None for a folder; what leads elsewhere or is neither of the two is refused."""
    name = member.filename.replace("\\", "/")  # as some programs pack on Windows
    kind = stat.S_IFMT(member.external_attr >> 16)
    for wrong, what in (
        (name.startswith("/") or bool(_DRIVE.match(name)), "has an absolute path"),
        (".." in name.split("/"), "has a path that leads upwards"),
        (kind not in (0, stat.S_IFREG, stat.S_IFDIR), "is a link or a device"),
        (bool(member.flag_bits & _ENCRYPTED), "is encrypted"),
    ):
        if wrong:
            shown = ascii(member.filename)[1:-1]
            raise LiversegError(f"{source}: member {shown} {what}; pack plain files alone, or give the folder")
    target = PurePosixPath(name)
    return None if name.endswith("/") or target == PurePosixPath() else target


def choose_series(folder: str | os.PathLike, series: str | None = None) -> DicomSeries:
    """The axial CT series of a study: the one named, else the one with most slices.

    Looks into the folder and those below it, hidden ones left out. Localisers and series that are not axial are passed
    over. Of each series the first file is asked for both: slices that differ are refused by `read_series`.

    Args:
        folder: the study's.
        series: a SeriesInstanceUID, a SeriesDescription (upper or lower case) or the end of a SeriesInstanceUID; the
            first of the three that fits any series counts.

    Raises:
        LiversegError: if there is no such series, more than one that fits, or a file cannot be read.
    """
    folder = Path(folder)
    if not is_dir(folder):
        raise LiversegError(f"{folder}: no such folder; give the one that holds a study's DICOM files")
    found = [one for inner in _folders(folder) for one in find_series(inner)]
    if not found:
        raise LiversegError(f"{folder}: no DICOM image in it or below; give the folder that holds the slices")
    scans = [one for one in found if one.modality == "CT"]
    if not scans:
        modalities = ", ".join(sorted({one.modality or "not given" for one in found}))
        raise LiversegError(f"{folder}: modality {modalities}; CT is needed")
    faults = [_fault(one) for one in scans]
    usable = [one for one, fault in zip(scans, faults, strict=True) if not fault]
    if series is not None:
        return _named(folder, series, scans, usable)
    if not usable:
        told = ", ".join(f"{_told(one)} {fault}" for one, fault in zip(scans[:_LISTED], faults, strict=False))
        raise LiversegError(f"{folder}: no axial CT series; {told}; give the folder of the axial slices")
    most = max(len(one.files) for one in usable)
    longest = [one for one in usable if len(one.files) == most]
    if len(longest) > 1:
        raise LiversegError(
            f"{folder}: {len(longest)} series of most slices, {_list(longest)}; name one, or its folder"
        )
    return longest[0]


def _folders(root: Path) -> Iterator[Path]:
    """A folder and those below it, each sorted, hidden ones and links left out."""

    def refuse(error: OSError) -> None:
        reason = error.strerror or error
        raise LiversegError(f"{error.filename}: cannot be looked at ({reason}); check its permissions") from error

    for name, below, _ in os.walk(root, onerror=refuse):
        below[:] = sorted(one for one in below if not one.startswith("."))
        yield Path(name)


def _named(folder: Path, series: str, scans: Sequence[DicomSeries], usable: Sequence[DicomSeries]) -> DicomSeries:
    asked = " ".join(series.split())
    if not asked:
        raise LiversegError(f"{folder}: an empty name of a series; there are {_list(scans)}")
    for fitting in (
        [one for one in scans if one.uid == asked],
        [one for one in scans if one.description.casefold() == asked.casefold()],
        [one for one in scans if one.uid.endswith(asked)],
    ):
        # a localiser may have its scan's description, and is not meant then
        meant = [one for one in fitting if one in usable] or fitting
        if len(meant) > 1:
            raise LiversegError(
                f"{folder}: {len(meant)} series fit {asked}, {_list(meant)}; give its whole UID, or its folder"
            )
        if meant:
            fault = _fault(meant[0])
            if fault:
                raise LiversegError(f"{folder}: {_told(meant[0])} {fault}; name an axial series of {_list(usable)}")
            return meant[0]
    raise LiversegError(f"{folder}: no CT series {asked}; there are {_list(scans)}")


def _list(series: Sequence[DicomSeries]) -> str:
    told = ", ".join(map(_told, series[:_LISTED])) or "none"
    return told if len(series) <= _LISTED else f"{told} and {len(series) - _LISTED} more"


def _told(one: DicomSeries) -> str:
    slices = f"{len(one.files)} slice{'s' if len(one.files) > 1 else ''}"
    return f"{one.description or 'no description'} ({slices}, {one.uid or 'no UID'}, in {one.folder.name})"


def _fault(one: DicomSeries) -> str:
    """Why a CT series is not to be read, empty where nothing is against it."""
    with disable_value_validation():  # what is odd is told by file where it matters
        try:
            tags = pydicom.dcmread(
                one.files[0],
                stop_before_pixels=True,
                force=True,  # a file without preamble, which GDCM has read
                specific_tags=["ImageType", "ImageOrientationPatient"],
            )
            kinds = tags.get("ImageType") or []
            orientation = np.array(tags.get("ImageOrientationPatient") or [], np.float64)
        except (OSError, ValueError, TypeError, AttributeError, NotImplementedError):
            kinds, orientation = [], np.empty(0)
    if "LOCALIZER" in ([kinds] if isinstance(kinds, str) else kinds):
        return "is a localiser"
    if orientation.shape != (6,):
        return "has no image orientation"
    normal = np.cross(orientation[:3], orientation[3:])
    cosine = abs(normal[2]) / max(float(np.linalg.norm(normal)), 1e-9)
    degrees = float(np.degrees(np.arccos(min(cosine, 1.0))))
    return f"leans {degrees:.0f} degrees from axial" if not degrees <= _AXIAL_DEGREES else ""


def read_dicom_volume(series: DicomSeries) -> Volume:
    """A series as the volume a NIfTI file of it would give.

    Args:
        series: one of `choose_series`.

    Returns:
        HU as (column, row, slice), int16 or float32, slices in the order of `series.files`; affine to RAS+ mm, which
        the header has as sform and qform, both of code 1 (scanner), with units mm; the path is the series' folder.

    Raises:
        LiversegError: as `read_series`.
    """
    array, affine = read_series(series)
    header = nib.Nifti1Header()
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    header.set_xyzt_units("mm")
    return Volume(array=array, affine=affine, header=header, path=series.folder)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
