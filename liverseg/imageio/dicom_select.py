"""Choose the CT series of a study and read it as a volume.

`liverseg.imageio.dicom_series` finds the series; this module chooses the axial CT among them.
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
from liverseg.imageio import dicom_series
from liverseg.imageio.dicom_header import read_tags, skip_validation
from liverseg.imageio.dicom_series import DicomSeries, find_series, read_series
from liverseg.imageio.grid import check_spacing
from liverseg.imageio.volume import Volume
from liverseg.utils.files import is_dir

__all__ = ["choose_series", "read_dicom_volume"]

_MAX_AXIAL_DEGREES = 25.0
"""Angle between a series' normal and feet-head up to which it is axial. Our choice: how a patient is positioned, and
how slices are angled along an organ, stay well below, and the networks were trained on straight slices; oblique
reformations start near 30 degrees, coronal and sagittal ones are at 90."""
_MAX_SERIES_SHOWN = 10
_LOCALISER = "is a localiser"
_KEYWORDS = ("ImageType", "ImageOrientationPatient", "NumberOfFrames", "PatientID", "StudyInstanceUID")


def choose_series(
    folder: str | os.PathLike,
    series: str | None = None,
    study: str | None = None,
    keep_identifiers: bool = False,
) -> DicomSeries:
    """Choose the axial CT series of a study: the named one, else the one with most slices.

    Searches the folder and those below it, except hidden ones. Localisers and series that are not axial are skipped,
    by the first file of each series: `read_series` refuses a series whose slices differ.

    Args:
        folder: of the study.
        series: a SeriesInstanceUID, a SeriesDescription (in any case) or the end of a SeriesInstanceUID, tried in this
            order.
        study: StudyInstanceUID, if the folder holds the files of several; by default there must be one.
        keep_identifiers: errors may quote descriptions of series, free text that may hold names; otherwise they quote
            UIDs and folders alone.

    Raises:
        LiversegError: if there is no such series, several match, or a slice cannot be read: a slice in the folders of
            the named series, or any slice if none is named.
    """
    folder = Path(folder)
    if not is_dir(folder):
        raise UnreadableError(f"{folder}: no such folder; give the one that holds a study's DICOM files")
    unreadable: dict[Path, LiversegError] = {}
    found = _join([part for inner in list(_folders(folder)) for part in find_series(inner, unreadable)])
    if unreadable and (series is None or not found):
        raise next(iter(unreadable.values()))  # it may belong to any series
    if not found:
        raise UnreadableError(f"{folder}: no DICOM image in it or below; give the folder that holds the slices")
    scans = [candidate for candidate in found if candidate.modality == "CT"]
    if not scans:
        modalities = ", ".join(sorted({candidate.modality or "not given" for candidate in found}))
        raise NotCTError(f"{folder}: modality {modalities}; CT is needed")
    tags = [_first_tags(scan) for scan in scans]
    if study is not None:
        scans = [scan for scan, own in zip(scans, tags, strict=True) if str(own.get("StudyInstanceUID")) == study]
        if not scans:
            raise UnreadableError(f"{folder}: no CT series of study {study} in it")
        tags = [_first_tags(scan) for scan in scans]
    faults = [_describe_fault(own) for own in tags]
    usable = [scan for scan, fault in zip(scans, faults, strict=True) if not fault]
    if series is not None:
        named = _find_named(folder, series, scans, usable, keep_identifiers)
        folders = {file.parent for file in named.files}
        for path, error in unreadable.items():
            if path.parent in folders:
                raise error
        return named
    studies = {(str(own.get("PatientID")), str(own.get("StudyInstanceUID"))) for own in tags}
    if len(studies) > 1:
        raise UnreadableError(
            f"{folder}: {len(studies)} studies in it, {_list(scans, keep_identifiers)}; give the folder of one, or "
            "name the series"
        )
    if not usable:
        described = ", ".join(
            f"{_describe(scan, keep_identifiers)} {fault}"
            for scan, fault in zip(scans[:_MAX_SERIES_SHOWN], faults, strict=False)
        )
        kind = NotCTError if all(fault == _LOCALISER for fault in faults) else GeometryError
        raise kind(f"{folder}: no axial CT series; {described}; give the folder of the axial slices")
    most = max(len(scan.files) for scan in usable)
    longest = [scan for scan in usable if len(scan.files) == most]
    if len(longest) > 1:
        raise UnreadableError(
            f"{folder}: {len(longest)} series of most slices, {_list(longest, keep_identifiers)}; name one as "
            "series, or give its folder"
        )
    return longest[0]


def _folders(root: Path) -> Iterator[Path]:
    """Yield a folder and those below it, sorted, except hidden ones and links; refuse too many files."""
    count = 0

    def refuse(error: OSError) -> None:
        reason = error.strerror or error
        raise UnreadableError(f"{error.filename}: cannot be accessed ({reason}); check its permissions") from error

    for name, below, files in os.walk(root, onerror=refuse):
        below[:] = sorted(inner for inner in below if not inner.startswith("."))
        count += 1 + sum(not file.startswith(".") for file in files)
        if count > dicom_series.MAX_FILES:
            raise UnreadableError(
                f"{root}: more than {dicom_series.MAX_FILES} files and folders in it; give the folder of one study"
            )
        yield Path(name)


def _find_named(
    folder: Path, series: str, scans: Sequence[DicomSeries], usable: Sequence[DicomSeries], keep_identifiers: bool
) -> DicomSeries:
    """Return the series with a UID, a description or an end of a UID; refuse several, and one that is not axial."""
    name = " ".join(series.split())
    if not name:
        raise UnreadableError(f"{folder}: an empty name of a series; there are {_list(scans, keep_identifiers)}")
    for matches in (
        [scan for scan in scans if scan.uid == name],
        [scan for scan in scans if scan.description.casefold() == name.casefold()],
        [scan for scan in scans if scan.uid.endswith(name)],
    ):
        # a localiser may have its scan's description, and is not meant then
        preferred = [scan for scan in matches if scan in usable] or matches
        if len(preferred) > 1:
            raise UnreadableError(
                f"{folder}: {len(preferred)} series fit {name}, {_list(preferred, keep_identifiers)}; give its "
                "complete UID, or its folder"
            )
        if preferred:
            fault = _describe_fault(_first_tags(preferred[0]))
            if fault:
                kind = NotCTError if fault == _LOCALISER else GeometryError
                described = f"{_describe(preferred[0], keep_identifiers)} {fault}"
                raise kind(f"{folder}: {described}; name an axial series of {_list(usable, keep_identifiers)}")
            return preferred[0]
    listed = _list(scans, keep_identifiers)
    raise UnreadableError(f"{folder}: series {name}: no such CT series; there are {listed}")


def _list(series: Sequence[DicomSeries], keep_identifiers: bool) -> str:
    listed = ", ".join(_describe(item, keep_identifiers) for item in series[:_MAX_SERIES_SHOWN]) or "none"
    if len(series) > _MAX_SERIES_SHOWN:
        listed += f" and {len(series) - _MAX_SERIES_SHOWN} more"
    withheld = not keep_identifiers and any(item.description for item in series)
    return f"{listed}, described with keep_identifiers" if withheld else listed


def _describe(series: DicomSeries, keep_identifiers: bool) -> str:
    slices = f"{len(series.files)} slice{'s' if len(series.files) > 1 else ''}"
    if not keep_identifiers:
        return f"{series.uid or 'no UID'} ({slices}, in {series.folder.name})"
    return f"{series.description or 'no description'} ({slices}, {series.uid or 'no UID'}, in {series.folder.name})"


def _join(found: Sequence[DicomSeries]) -> list[DicomSeries]:
    """Join series that an export has spread over folders; those without a UID stay separate."""
    joined: dict[tuple[str, str], DicomSeries] = {}
    separate = []
    for part in found:
        if not part.uid:
            separate.append(part)
            continue
        key = (part.uid, part.modality)
        if key in joined:  # `read_series` sorts by position, and refuses repeated slices
            other = joined[key]
            common = Path(os.path.commonpath([other.folder, part.folder]))
            joined[key] = replace(other, folder=common, files=(*other.files, *part.files))
        else:
            joined[key] = part
    return [*joined.values(), *separate]


def _first_tags(series: DicomSeries) -> pydicom.Dataset:
    """Return the tags of a series' first file; empty if they cannot be read, which `read_series` reports."""
    try:
        return read_tags(series.files[0], _KEYWORDS)
    except UnreadableError:
        return pydicom.Dataset()


def _describe_fault(tags: pydicom.Dataset) -> str:
    """Describe why a CT series is not axial or not readable; empty if it is both."""
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
    return f"leans {degrees:.0f} degrees from axial" if not degrees <= _MAX_AXIAL_DEGREES else ""


def read_dicom_volume(series: DicomSeries) -> Volume:
    """Read a series as the volume that a NIfTI file of it would give.

    Args:
        series: a series of `choose_series`.

    Returns:
        HU as (column, row, slice), int16 or float32, slices in the order of `series.files`. The affine is to RAS+ mm
        and the header has it as sform and qform, both of code 1 (scanner), with units mm. The path is the series'
        folder.

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
