"""Patient and study of an object that is derived from a series, and its UIDs."""

from __future__ import annotations

import re
import uuid
from copy import deepcopy

from pydicom.dataset import Dataset

__all__ = ["PATIENT_TAGS", "REQUIRED_PATIENT_TAGS", "derived_uid", "empty_patient", "patient_and_study"]

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "liverseg.invalid")

REQUIRED_PATIENT_TAGS = (
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
PATIENT_TAGS = (
    *REQUIRED_PATIENT_TAGS,
    "IssuerOfPatientID",
    "PatientAge",
    "StudyDescription",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified",
)
"""Attributes of patient and study that a derived object copies."""
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


def derived_uid(*parts: str) -> str:
    """Derive a UID from texts by DICOM PS3.5 B.2: the root 2.25 and a name-based UUID as a number."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, chr(10).join(parts)).int}"


def empty_patient() -> Dataset:
    """Return an empty patient and study, by the Basic Profile of DICOM PS3.15 E with UIDs retained."""
    empty = Dataset()
    for keyword, value in {**dict.fromkeys(REQUIRED_PATIENT_TAGS, ""), **_REMOVED}.items():
        setattr(empty, keyword, value)
    return empty


def patient_and_study(header: Dataset) -> Dataset:
    """Copy patient and study, without dates, times and sexes that are invalid in DICOM.

    Args:
        header: with the `PATIENT_TAGS` of a file; its texts are decoded.
    """
    kept = Dataset()
    header.decode()  # from the source's character set; the new object's is UTF-8
    for keyword in PATIENT_TAGS:
        value, form = header.get(keyword), _FORMS.get(keyword)
        if value and (form is None or re.fullmatch(form, str(value).strip())):
            kept.add(deepcopy(header[keyword]))  # the caller may empty the header's
        elif keyword in REQUIRED_PATIENT_TAGS:
            setattr(kept, keyword, "")
    return kept
