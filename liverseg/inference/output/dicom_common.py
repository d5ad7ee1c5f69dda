"""What DICOM results have in common: how they refer to their series and patient, name themselves and code a label.

UIDs are hashes of what an object holds: of one series, one set of weights and one result comes one UID, so that an
archive that is sent a result twice keeps it once. Date and time of writing are not part of it. With the patient named
and without are two objects, of two series: an archive that has both must not take one for the other.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.valuerep import DSfloat

from liverseg import __version__
from liverseg.errors import UnreadableError
from liverseg.imageio.boxes import Box, bounding_box, to_global
from liverseg.imageio.dicom_header import read_tags, skip_validation
from liverseg.imageio.dicom_series import DicomSeries
from liverseg.imageio.volume import Volume
from liverseg.labels import Label
from liverseg.utils.files import atomic_write

__all__ = [
    "LIVER_CODE",
    "SOFTWARE",
    "SeriesReference",
    "derived_uid",
    "equipment",
    "label_code",
    "map_sha256",
    "save_object",
    "series_reference",
    "to_series_order",
]

SOFTWARE = "liverseg"
LIVER_CODE = Code("10200004", "SCT", "Liver")

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "liverseg.invalid")

_UIDS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
"""Without these an image cannot be referred to."""
_GEOMETRY = ("Rows", "Columns", "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "SliceThickness")
_OTHERS = ("Modality", "LossyImageCompression")
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
    "PositionReferenceIndicator",
)
"""Of patient, study and frame of reference, those that may be empty but must be there. The last is free text."""
_OPTIONAL = (
    "IssuerOfPatientID",
    "PatientAge",
    "StudyDescription",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified",
)
_REMOVED = {
    "PatientIdentityRemoved": "YES",
    "DeidentificationMethod": "liverseg: patient and study attributes left empty, UIDs kept",  # 64 characters at most
    "LongitudinalTemporalInformationModified": "REMOVED",
}
"""What an object says of itself that has none of them."""
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


@dataclass(frozen=True)
class SeriesReference:
    """What a DICOM object about a series takes over from its slices.

    Attributes:
        slices: one data set a slice, in the order of the series: UIDs and geometry (LPS+ mm), patient and study empty.
        patient: patient and study, to be added to the new object when it is made: highdicom refuses, or prints, what is
            odd in them. Empty but for a word on that, where identifiers are not kept.
        identifiers_kept: patient and study are those of the slices.
    """

    slices: list[Dataset]
    patient: Dataset
    identifiers_kept: bool

    @property
    def uid(self) -> str:
        """The series' own."""
        return str(self.slices[0].SeriesInstanceUID)

    def about(self, weights_sha256: str) -> tuple[str, ...]:
        """What UIDs of objects about the series follow from, whatever was found."""
        return self.uid, weights_sha256, __version__, "kept" if self.identifiers_kept else "removed"

    def check_shape(self, volume: Volume) -> None:
        """Refuse a volume that is not of the series.

        Args:
            volume: (column, row, slice).

        Raises:
            ValueError: if it has other slices than the series, or its slices are not axial.
        """
        first = self.slices[0]
        if volume.array.shape != (first.Columns, first.Rows, len(self.slices)) or volume.slice_axis != 2:
            raise ValueError(
                f"a volume of shape {volume.array.shape} for a series of {len(self.slices)} axial slices of "
                f"{first.Columns}×{first.Rows} pixels"
            )


def label_code(label: Label) -> Code:
    """A label's SNOMED CT concept.

    Raises:
        ValueError: if it has none.
    """
    if label.snomed_code is None:
        raise ValueError(f"label {label.name} has no SNOMED CT code, which DICOM needs")
    return Code(label.snomed_code, "SCT", label.snomed_meaning or label.name)


def equipment(weights_sha256: str) -> dict[str, Any]:
    """What highdicom wants to know of the device that made an object, and of the object's text."""
    return {
        "manufacturer": SOFTWARE,
        "manufacturer_model_name": SOFTWARE,
        "software_versions": __version__,
        "device_serial_number": weights_sha256,  # which of the devices of this model it was: that with these weights
        "specific_character_set": "ISO_IR 192",
    }


def save_object(path: str | os.PathLike, made: Dataset, patient: Dataset) -> None:
    """Write an object, whole, with patient and study from a `SeriesReference`.

    Raises:
        OutputError: if it cannot be written.
    """
    made.update(patient)
    with atomic_write(path) as unfinished, skip_validation():
        made.save_as(unfinished)


def derived_uid(*parts: str) -> str:
    """A UID that follows from texts, by DICOM PS3.5 B.2: under 2.25, as the number of a name's UUID."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, chr(10).join(parts)).int}"


def map_sha256(inside: np.ndarray, box: Box) -> str:
    """SHA-256, hexadecimal, of the voxels of a label map that are not 0 and of their place: whatever box they are in.

    Args:
        inside: label map or lesion ids, shape of the box.
        box: where they lie in the volume; outside it is 0.
    """
    found = bounding_box(inside)
    if found is None:
        return sha256().hexdigest()
    place = [int(end) for side in to_global(found, box) for end in (side.start, side.stop)]
    digest = sha256(repr(place).encode())
    digest.update(np.ascontiguousarray(inside[found]).data)
    return digest.hexdigest()


def to_series_order(volume: Volume, inside: np.ndarray, box: Box) -> tuple[np.ndarray, Box]:
    """What lies in a box of `volume.axial` in the order of a series' files: (slice, row, column), and its box in that.

    Args:
        volume: (column, row, slice).
        inside: shape of the box.
        box: where it lies.
    """
    columns, rows, slices = volume.box_from_axial(box)
    return volume.from_axial(inside).transpose(2, 1, 0), (slices, rows, columns)


def series_reference(series: DicomSeries, volume: Volume, keep_identifiers: bool = False) -> SeriesReference:
    """Read what a DICOM object about a series takes over from its slices.

    Orientation and pixel spacing are the first slice's and the slice spacing is the volume's, so that the rounding of
    tags, which `read_series` forgives, is forgiven here too.

    Args:
        series: that the volume was read from.
        volume: (column, row, slice).
        keep_identifiers: take over who the patient is and which study it was. Else they are not even read: what is left
            are UIDs, without which nothing can refer to the slices, and geometry.

    Raises:
        LiversegError: if a slice cannot be read, has no UIDs to refer to it by, or is of another study than the first.
        ValueError: if volume and series do not match, or the slices are not axial.
    """
    tags = [*_UIDS, *_GEOMETRY, *_OTHERS, *((*_NEEDED, *_OPTIONAL) if keep_identifiers else ())]
    headers: list[Dataset] = []
    with skip_validation():  # it would log what it finds odd, a patient's birth date for one
        for path in series.files:
            header = read_tags(path, tags)
            for keyword in _UIDS:
                if not header.get(keyword):
                    raise UnreadableError(
                        f"{path}: no {keyword}, by which a DICOM SEG or report refers to it; export the series with "
                        "its UIDs"
                    )
            headers.append(header)
        first = headers[0]
        thickness = _number_or(first.get("SliceThickness"), volume.spacing[2])
        for path, header in zip(series.files, headers, strict=True):
            for keyword in _UIDS[2:]:
                if header[keyword].value != first[keyword].value:
                    raise UnreadableError(
                        f"{path}: another {keyword} than in {series.files[0].name}; a series has one: take those of "
                        "the other out"
                    )
            header.ImageOrientationPatient = _decimal(first.ImageOrientationPatient)
            header.PixelSpacing = _decimal(first.PixelSpacing)
            header.SliceThickness, header.SpacingBetweenSlices = _decimal([thickness, volume.spacing[2]])
        patient = _patient_and_study(first) if keep_identifiers else _nobody()
        for header in headers:
            for keyword in _NEEDED:
                setattr(header, keyword, "")
            for keyword in _OPTIONAL:
                header.pop(keyword, None)
    reference = SeriesReference(headers, patient, keep_identifiers)
    reference.check_shape(volume)
    return reference


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


def _nobody() -> Dataset:
    """Patient and study of which nothing is told, after the Basic Profile of DICOM PS3.15 E with UIDs retained."""
    empty = Dataset()
    for keyword, value in {**dict.fromkeys(_NEEDED, ""), **_REMOVED}.items():
        setattr(empty, keyword, value)
    return empty


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
