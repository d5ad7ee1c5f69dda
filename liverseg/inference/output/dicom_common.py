"""Parts that all DICOM results share: references to series and patient, UIDs, label codes, writing.

UIDs are hashes of an object's content: the same series, weights and result give the same UID, so that an archive that
receives a result twice keeps it once. They do not depend on the date and time of writing. Objects with and without
patient identifiers have different UIDs and belong to different series, since an archive may hold both.
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
"""Required for references to an image."""
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
"""Attributes of patient, study and frame of reference that must exist but may be empty. The last is free text."""
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
"""Attributes of an object without patient and study."""
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
"""Valid forms of values; others are not copied. Names and numbers are always copied, since archives index by them."""


@dataclass(frozen=True)
class SeriesReference:
    """Attributes that a DICOM object copies from the slices of its series.

    Attributes:
        slices: a data set for each slice, in the order of the series, with UIDs and geometry (LPS+ mm); patient and
            study are empty.
        patient: patient and study, to be added to the finished object, since highdicom refuses or prints odd values in
            them. If identifiers are not kept, they are empty and marked as removed.
        identifiers_kept: whether patient and study are those of the slices.
    """

    slices: list[Dataset]
    patient: Dataset
    identifiers_kept: bool

    @property
    def uid(self) -> str:
        """SeriesInstanceUID of the source series."""
        return str(self.slices[0].SeriesInstanceUID)

    def uid_parts(self, weights_sha256: str) -> tuple[str, ...]:
        """Return the texts that every UID derived from the series depends on."""
        return self.uid, weights_sha256, __version__, "kept" if self.identifiers_kept else "removed"

    def check_shape(self, volume: Volume) -> None:
        """Check that a volume has the shape of the series.

        Args:
            volume: (column, row, slice).

        Raises:
            ValueError: if its shape is another, or its slices are not axial.
        """
        first = self.slices[0]
        if volume.array.shape != (first.Columns, first.Rows, len(self.slices)) or volume.slice_axis != 2:
            raise ValueError(
                f"a volume of shape {volume.array.shape} for a series of {len(self.slices)} axial slices of "
                f"{first.Columns}×{first.Rows} pixels"
            )


def label_code(label: Label) -> Code:
    """Return a label's SNOMED CT concept.

    Raises:
        ValueError: if it has none.
    """
    if label.snomed_code is None:
        raise ValueError(f"label {label.name} has no SNOMED CT code, which DICOM needs")
    return Code(label.snomed_code, "SCT", label.snomed_meaning or label.name)


def equipment(weights_sha256: str) -> dict[str, Any]:
    """Return highdicom's arguments on the device that made an object, and on the object's character set."""
    return {
        "manufacturer": SOFTWARE,
        "manufacturer_model_name": SOFTWARE,
        "software_versions": __version__,
        "device_serial_number": weights_sha256,  # the weights identify the device
        "specific_character_set": "ISO_IR 192",
    }


def save_object(path: str | os.PathLike, made: Dataset, patient: Dataset) -> None:
    """Write an object atomically, with patient and study from a `SeriesReference`.

    Raises:
        OutputError: if it cannot be written.
    """
    made.update(patient)
    with atomic_write(path) as temporary, skip_validation():
        made.save_as(temporary)


def derived_uid(*parts: str) -> str:
    """Derive a UID from texts by DICOM PS3.5 B.2: the root 2.25 and a name-based UUID as a number."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, chr(10).join(parts)).int}"


def map_sha256(inside: np.ndarray, box: Box) -> str:
    """Return the SHA-256, hexadecimal, of a label map's nonzero voxels and their place. It does not depend on the box.

    Args:
        inside: label map or lesion ids, shape of the box.
        box: of the volume; labels outside are 0.
    """
    found = bounding_box(inside)
    if found is None:
        return sha256().hexdigest()
    place = [int(end) for side in to_global(found, box) for end in (side.start, side.stop)]
    digest = sha256(repr(place).encode())
    digest.update(np.ascontiguousarray(inside[found]).data)
    return digest.hexdigest()


def to_series_order(volume: Volume, inside: np.ndarray, box: Box) -> tuple[np.ndarray, Box]:
    """Return a part of `volume.axial` in the order of the series' files, (slice, row, column), and its box there.

    Args:
        volume: (column, row, slice).
        inside: shape of the box.
        box: in axial order.
    """
    columns, rows, slices = volume.box_from_axial(box)
    return volume.from_axial(inside).transpose(2, 1, 0), (slices, rows, columns)


def series_reference(series: DicomSeries, volume: Volume, keep_identifiers: bool = False) -> SeriesReference:
    """Read the attributes that a DICOM object copies from the slices of its series.

    Orientation and pixel spacing are those of the first slice, and slice spacing is that of the volume, so that rounded
    tags, which `read_series` accepts, are accepted here too.

    Args:
        series: that the volume was read from.
        volume: (column, row, slice).
        keep_identifiers: copy patient and study. Otherwise they are not read; only UIDs, which references need, and
            geometry are.

    Raises:
        LiversegError: if a slice cannot be read, has no UIDs, or belongs to another series or study than the first.
        ValueError: if volume and series do not match, or the slices are not axial.
    """
    tags = [*_UIDS, *_GEOMETRY, *_OTHERS, *((*_NEEDED, *_OPTIONAL) if keep_identifiers else ())]
    headers: list[Dataset] = []
    with skip_validation():  # validation would log odd values, such as a patient's birth date
        for path in series.files:
            header = read_tags(path, tags)
            for keyword in _UIDS:
                if not header.get(keyword):
                    raise UnreadableError(
                        f"{path}: no {keyword}, which a DICOM SEG or report needs to refer to it; export the series "
                        "with its UIDs"
                    )
            headers.append(header)
        first = headers[0]
        thickness = _number_or(first.get("SliceThickness"), volume.spacing[2])
        for path, header in zip(series.files, headers, strict=True):
            for keyword in _UIDS[2:]:
                if header[keyword].value != first[keyword].value:
                    raise UnreadableError(
                        f"{path}: another {keyword} than in {series.files[0].name}; a series has only one: remove the "
                        "files of the other"
                    )
            header.ImageOrientationPatient = _decimal(first.ImageOrientationPatient)
            header.PixelSpacing = _decimal(first.PixelSpacing)
            header.SliceThickness, header.SpacingBetweenSlices = _decimal([thickness, volume.spacing[2]])
        patient = _patient_and_study(first) if keep_identifiers else _anonymous()
        for header in headers:
            for keyword in _NEEDED:
                setattr(header, keyword, "")
            for keyword in _OPTIONAL:
                header.pop(keyword, None)
    reference = SeriesReference(headers, patient, keep_identifiers)
    reference.check_shape(volume)
    return reference


def _number_or(value: Any, otherwise: float) -> float:
    """Return a tag's value if it is a number above 0; some files have "1,25" or "5mm"."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return otherwise
    return number if 0 < number < float("inf") else otherwise


def _decimal(values: Sequence[float]) -> list[DSfloat]:
    """Return numbers as decimal strings of at most 16 characters, as DICOM requires."""
    return [DSfloat(float(value), auto_format=True) for value in values]


def _anonymous() -> Dataset:
    """Return an empty patient and study, by the Basic Profile of DICOM PS3.15 E with UIDs retained."""
    empty = Dataset()
    for keyword, value in {**dict.fromkeys(_NEEDED, ""), **_REMOVED}.items():
        setattr(empty, keyword, value)
    return empty


def _patient_and_study(header: Dataset) -> Dataset:
    """Copy patient and study, without dates, times and sexes that are invalid in DICOM."""
    kept = Dataset()
    header.decode()  # from the source's character set; the new object's is UTF-8
    for keyword in (*_NEEDED, *_OPTIONAL):
        value, form = header.get(keyword), _FORMS.get(keyword)
        if value and (form is None or re.fullmatch(form, str(value).strip())):
            kept.add(deepcopy(header[keyword]))  # the caller empties the header's
        elif keyword in _NEEDED:
            setattr(kept, keyword, "")
    return kept
