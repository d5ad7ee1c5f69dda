"""Where a CT series comes from: the one series of a study that is to be read, and its volume.

Series are found by `liverseg.imageio.dicom_series`; here is decided which of them is the axial CT that is meant.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom

from liverseg.errors import GeometryError, LiversegError, NotCTError, UnreadableError
from liverseg.imageio import dicom_series as dicom
from liverseg.imageio.dicom_header import skip_validation
from liverseg.imageio.dicom_series import DicomSeries, find_series, read_series
from liverseg.imageio.grid import check_spacing
from liverseg.imageio.volume import Volume
from liverseg.utils.files import is_dir

__all__ = ["choose_series", "read_dicom_volume"]

_AXIAL_DEGREES = 25.0
"""How far a series' normal may lean from feet-head and still be axial. Our choice: how a patient lies, and how slices
are angled along an organ, stay well below, and the networks saw straight slices; oblique reformations begin near 30
degrees, coronal and sagittal ones are at 90."""
_LISTED = 10
"""As many series as a message names."""
_LOCALISER = "is a localiser"


def choose_series(
    folder: str | os.PathLike,
    series: str | None = None,
    study: str | None = None,
    keep_identifiers: bool = False,
) -> DicomSeries:
    """The axial CT series of a study: the one named, else the one with most slices.

    Looks into the folder and those below it, hidden ones left out. Localisers and series that are not axial are passed
    over. Of each series the first file is asked for both: slices that differ are refused by `read_series`.

    Args:
        folder: the study's.
        series: a SeriesInstanceUID, a SeriesDescription (upper or lower case) or the end of a SeriesInstanceUID; the
            first of the three that fits any series counts.
        study: StudyInstanceUID, where the folder holds the files of several; by default there is to be one.
        keep_identifiers: errors may tell descriptions of series, free text in which names may stand; else they tell
            UIDs and folders alone.

    Raises:
        LiversegError: if there is no such series, more than one that fits, or a slice cannot be read: with a series
            named one in its folders, else any.
    """
    folder = Path(folder)
    if not is_dir(folder):
        raise UnreadableError(f"{folder}: no such folder; give the one that holds a study's DICOM files")
    unreadable: dict[Path, LiversegError] = {}
    found = _joined([one for inner in list(_folders(folder)) for one in find_series(inner, unreadable)])
    if unreadable and (series is None or not found):
        raise next(iter(unreadable.values()))  # it may be of any series
    if not found:
        raise UnreadableError(f"{folder}: no DICOM image in it or below; give the folder that holds the slices")
    scans = [one for one in found if one.modality == "CT"]
    if not scans:
        modalities = ", ".join(sorted({one.modality or "not given" for one in found}))
        raise NotCTError(f"{folder}: modality {modalities}; CT is needed")
    tags = [_tags(one) for one in scans]
    if study is not None:
        scans = [one for one, own in zip(scans, tags, strict=True) if str(own.get("StudyInstanceUID")) == study]
        if not scans:
            raise UnreadableError(f"{folder}: no CT series of study {study} in it")
        tags = [_tags(one) for one in scans]
    faults = [_fault(own) for own in tags]
    usable = [one for one, fault in zip(scans, faults, strict=True) if not fault]
    if series is not None:
        named = _named(folder, series, scans, usable, keep_identifiers)
        beside = [error for path, error in unreadable.items() if path.parent in {file.parent for file in named.files}]
        if beside:
            raise beside[0]
        return named
    studies = {(str(own.get("PatientID")), str(own.get("StudyInstanceUID"))) for own in tags}
    if len(studies) > 1:
        raise UnreadableError(
            f"{folder}: {len(studies)} studies in it, {_list(scans, keep_identifiers)}; give the folder of one, or "
            "name a series with --series"
        )
    if not usable:
        told = ", ".join(
            f"{_told(one, keep_identifiers)} {fault}" for one, fault in zip(scans[:_LISTED], faults, strict=False)
        )
        kind = NotCTError if all(fault == _LOCALISER for fault in faults) else GeometryError
        raise kind(f"{folder}: no axial CT series; {told}; give the folder of the axial slices")
    most = max(len(one.files) for one in usable)
    longest = [one for one in usable if len(one.files) == most]
    if len(longest) > 1:
        raise UnreadableError(
            f"{folder}: {len(longest)} series of most slices, {_list(longest, keep_identifiers)}; name one with "
            "--series, or give its folder"
        )
    return longest[0]


def _folders(root: Path) -> Iterator[Path]:
    """A folder and those below it, each sorted, hidden ones and links left out; too many files are refused."""
    count = 0

    def refuse(error: OSError) -> None:
        reason = error.strerror or error
        raise UnreadableError(f"{error.filename}: cannot be looked at ({reason}); check its permissions") from error

    for name, below, files in os.walk(root, onerror=refuse):
        below[:] = sorted(one for one in below if not one.startswith("."))
        count += 1 + sum(not one.startswith(".") for one in files)
        if count > dicom.MAX_FILES:
            raise UnreadableError(
                f"{root}: more than {dicom.MAX_FILES} files and folders in it; give the folder of one study"
            )
        yield Path(name)


def _named(
    folder: Path, series: str, scans: Sequence[DicomSeries], usable: Sequence[DicomSeries], keep_identifiers: bool
) -> DicomSeries:
    asked = " ".join(series.split())
    if not asked:
        raise UnreadableError(f"{folder}: an empty name of a series; there are {_list(scans, keep_identifiers)}")
    for fitting in (
        [one for one in scans if one.uid == asked],
        [one for one in scans if one.description.casefold() == asked.casefold()],
        [one for one in scans if one.uid.endswith(asked)],
    ):
        # a localiser may have its scan's description, and is not meant then
        meant = [one for one in fitting if one in usable] or fitting
        if len(meant) > 1:
            raise UnreadableError(
                f"{folder}: {len(meant)} series fit {asked}, {_list(meant, keep_identifiers)}; give its whole UID, or "
                "its folder"
            )
        if meant:
            fault = _fault(_tags(meant[0]))
            if fault:
                kind = NotCTError if fault == _LOCALISER else GeometryError
                told = f"{_told(meant[0], keep_identifiers)} {fault}"
                raise kind(f"{folder}: {told}; name an axial series of {_list(usable, keep_identifiers)}")
            return meant[0]
    listed = _list(scans, keep_identifiers)
    raise UnreadableError(f"{folder}: --series {asked}: no such CT series; there are {listed}")


def _list(series: Sequence[DicomSeries], keep_identifiers: bool) -> str:
    told = ", ".join(_told(one, keep_identifiers) for one in series[:_LISTED]) or "none"
    if len(series) > _LISTED:
        told += f" and {len(series) - _LISTED} more"
    withheld = not keep_identifiers and any(one.description for one in series)
    return f"{told}, described with --keep-identifiers" if withheld else told


def _told(one: DicomSeries, keep_identifiers: bool) -> str:
    slices = f"{len(one.files)} slice{'s' if len(one.files) > 1 else ''}"
    if not keep_identifiers:
        return f"{one.uid or 'no UID'} ({slices}, in {one.folder.name})"
    return f"{one.description or 'no description'} ({slices}, {one.uid or 'no UID'}, in {one.folder.name})"


def _joined(found: Sequence[DicomSeries]) -> list[DicomSeries]:
    """Series as they were before they were spread over folders, as some exports do; those without a UID stay apart."""
    joined: dict[tuple[str, str], DicomSeries] = {}
    apart = []
    for one in found:
        if not one.uid:
            apart.append(one)
            continue
        key = (one.uid, one.modality)
        other = joined.get(key)
        if other is not None:  # `read_series` sorts by position, and refuses doubles
            common = Path(os.path.commonpath([other.folder, one.folder]))
            one = replace(other, folder=common, files=(*other.files, *one.files))
        joined[key] = one
    return [*joined.values(), *apart]


def _tags(one: DicomSeries) -> pydicom.Dataset:
    """What a series' first file says of itself; empty where it cannot be read so."""
    with skip_validation():  # what is odd is told by file where it matters
        try:
            return pydicom.dcmread(
                one.files[0],
                stop_before_pixels=True,
                force=True,  # a file without preamble, which GDCM has read
                specific_tags=[
                    "ImageType",
                    "ImageOrientationPatient",
                    "NumberOfFrames",
                    "PatientID",
                    "StudyInstanceUID",
                ],
            )
        except (OSError, ValueError, TypeError, AttributeError, NotImplementedError):
            return pydicom.Dataset()


def _fault(tags: pydicom.Dataset) -> str:
    """Why a CT series is not to be read, empty where nothing is against it."""
    with skip_validation():
        try:
            kinds = tags.get("ImageType") or []
            orientation = np.array(tags.get("ImageOrientationPatient") or [], np.float64)
            frames = int(tags.get("NumberOfFrames") or 1)
        except (ValueError, TypeError, AttributeError, NotImplementedError):
            kinds, orientation, frames = [], np.empty(0), 1
    if frames > 1:
        return f"holds {frames} frames in one file; export it as one slice a file"
    if "LOCALIZER" in ([kinds] if isinstance(kinds, str) else kinds):
        return _LOCALISER
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
    check_spacing(series.folder, affine)
    header = nib.Nifti1Header()
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    header.set_xyzt_units("mm")
    return Volume(array=array, affine=affine, header=header, path=series.folder)
