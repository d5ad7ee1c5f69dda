"""What DICOM results have in common: how they refer to their series and patient, name themselves and code a label.

UIDs are hashes of what an object holds: of one series, one set of weights and one result comes one UID, so that an
archive that is sent a result twice keeps it once. Date and time of writing are not part of it.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Sequence
from copy import deepcopy
from hashlib import sha256
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.valuerep import DSfloat

from liverseg import __version__
from liverseg.dicom import DicomSeries
from liverseg.dicom_validation import without_validation
from liverseg.errors import LiversegError
from liverseg.files import whole_file
from liverseg.labels import Label
from liverseg.volumes import Volume

__all__ = [
    "LIVER_CODE",
    "SOFTWARE",
    "array_sha256",
    "coded",
    "derived_uid",
    "made_by",
    "save_object",
    "source_headers",
]

SOFTWARE = "liverseg"
LIVER_CODE = Code("10200004", "SCT", "Liver")

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "liverseg.invalid")

_UIDS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
"""Without these an image cannot be referred to."""
_GEOMETRY = ("Rows", "Columns", "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "SliceThickness")
_OTHERS = ("Modality", "PositionReferenceIndicator", "LossyImageCompression")
_NEEDED = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
"""Of patient and study, those that may be empty but must be there."""
_OPTIONAL = (
    "IssuerOfPatientID",
    "PatientAge",
    "StudyDescription",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified",
)
_DATE, _TIME = r"\d{8}", r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?"
_FORMS = {
    "PatientBirthDate": _DATE,
    "StudyDate": _DATE,
    "StudyTime": _TIME,
    "PatientSex": "[MFO]",
    "PatientAge": r"\d{3}[DWMY]",
    "PatientIdentityRemoved": "YES|NO",
    "LongitudinalTemporalInformationModified": "UNMODIFIED|MODIFIED|REMOVED",
}
"""What a value must look like to be passed on; names and numbers pass as they are, since an archive files by them."""


def coded(label: Label) -> Code:
    """A label's SNOMED CT concept.

    Raises:
        ValueError: if it has none.
    """
    if label.snomed_code is None:
        raise ValueError(f"label {label.name} has no SNOMED CT code, which DICOM needs")
    return Code(label.snomed_code, "SCT", label.snomed_meaning or label.name)


def made_by(weights_sha256: str) -> dict[str, Any]:
    """What highdicom wants to know of the device that made an object, and of the object's text."""
    return {
        "manufacturer": SOFTWARE,
        "manufacturer_model_name": SOFTWARE,
        "software_versions": __version__,
        "device_serial_number": weights_sha256,  # which of the devices of this model it was: that with these weights
        "specific_character_set": "ISO_IR 192",
    }


def save_object(path: str | os.PathLike, made: Dataset, patient: Dataset) -> None:
    """Write an object, whole, with patient and study from `source_headers`.

    Raises:
        OSError: if it cannot be written.
    """
    made.update(patient)
    with whole_file(path) as unfinished, without_validation():
        made.save_as(unfinished)


def derived_uid(*parts: str) -> str:
    """A UID that follows from texts, by DICOM PS3.5 B.2: under 2.25, as the number of a name's UUID."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, chr(10).join(parts)).int}"


def array_sha256(array: np.ndarray) -> str:
    """SHA-256 of an array's voxels in C order, hexadecimal."""
    return sha256(np.ascontiguousarray(array).data).hexdigest()


def source_headers(series: DicomSeries, volume: Volume) -> tuple[list[Dataset], Dataset]:
    """What a DICOM object about a series takes over from its slices: UIDs and geometry (LPS+ mm); patient and study.

    Orientation and pixel spacing are the first slice's and the slice spacing is the volume's, so that the rounding of
    tags, which `read_series` forgives, is forgiven here too.

    Args:
        series: that the volume was read from.
        volume: (column, row, slice).

    Returns:
        One data set a slice, in the order of `series.files`, patient and study left empty; and these two, to be added
        to the new object when it is made: highdicom refuses, or prints, what is odd in them.

    Raises:
        LiversegError: if a slice cannot be read, has no UIDs to refer to it by, or is of another study than the first.
        ValueError: if volume and series do not match, or the slices are not axial.
    """
    columns, rows, depth = volume.array.shape
    if depth != len(series.files) or volume.slice_axis != 2:
        raise ValueError(f"a volume of shape {volume.array.shape} for a series of {len(series.files)} axial slices")
    tags = [*_UIDS, *_GEOMETRY, *_OTHERS, *_NEEDED, *_OPTIONAL]
    headers: list[Dataset] = []
    with without_validation():  # it would log what it finds odd, a patient's birth date for one
        for path in series.files:
            try:
                header: Dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=tags)
            except (OSError, ValueError, NotImplementedError) as error:
                raise LiversegError(f"{path}: its header cannot be read; copy or export it again") from error
            for keyword in _UIDS:
                if not header.get(keyword):
                    raise LiversegError(
                        f"{path}: no {keyword}, by which a DICOM SEG or report refers to it; export the series with "
                        "its UIDs"
                    )
            headers.append(header)
        first = headers[0]
        if (first.Columns, first.Rows) != (columns, rows):
            raise ValueError(f"a volume of {columns}×{rows} pixels for slices of {first.Columns}×{first.Rows}")
        thickness = _number_or(first.get("SliceThickness"), volume.spacing[2])
        for path, header in zip(series.files, headers, strict=True):
            for keyword in _UIDS[2:]:
                if header[keyword].value != first[keyword].value:
                    raise LiversegError(
                        f"{path}: another {keyword} than in {series.files[0].name}; a series has one: take those of "
                        "the other out"
                    )
            header.ImageOrientationPatient = _decimal(first.ImageOrientationPatient)
            header.PixelSpacing = _decimal(first.PixelSpacing)
            header.SliceThickness, header.SpacingBetweenSlices = _decimal([thickness, volume.spacing[2]])
        patient = _patient_and_study(first)
        for header in headers:
            for keyword in _NEEDED:
                setattr(header, keyword, "")
            for keyword in _OPTIONAL:
                header.pop(keyword, None)
    return headers, patient


def _number_or(value: Any, otherwise: float) -> float:
    """A tag's number, if it is one above 0: some write "1,25" or "5mm"."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return otherwise
    return number if 0 < number < float("inf") else otherwise


def _decimal(values: Sequence[float]) -> list[DSfloat]:
    """Numbers in the 16 characters DICOM allows."""
    return [DSfloat(float(value), auto_format=True) for value in values]


def _patient_and_study(header: Dataset) -> Dataset:
    """Patient and study as they are, less what DICOM does not know as date, time or sex."""
    kept = Dataset()
    header.decode()  # from the source's character set, since the new object has its own
    for keyword in (*_NEEDED, *_OPTIONAL):
        value, form = header.get(keyword), _FORMS.get(keyword)
        if value and (form is None or re.fullmatch(form, str(value).strip())):
            kept.add(deepcopy(header[keyword]))  # the header's own is emptied
        elif keyword in _NEEDED:
            setattr(kept, keyword, "")
    return kept
