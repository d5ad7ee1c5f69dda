"""Tracking UIDs and identifiers of lesions across DICOM reports (TID 1411: one tracking UID a lesion, over time)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom

from liverseg.errors import UnreadableError
from liverseg.followup.examination import Examination
from liverseg.followup.matching import Match
from liverseg.inference.output.dicom_common import derived_uid
from liverseg.inference.output.dicom_sr import ABSENT

__all__ = ["BaselineTracking", "baseline_tracking", "followup_tracking"]

_GROUP, _IDENTIFIER, _UID = ("125007", "DCM"), ("112039", "DCM"), ("112040", "DCM")
"""Measurement Group, Tracking Identifier, Tracking Unique Identifier."""
_NAME = re.compile(r"lesion (\d+)")

Tracking = dict[int, tuple[str, str]]
"""Tracking UID and identifier by lesion id."""


@dataclass(frozen=True)
class BaselineTracking:
    """How a report tracks the lesions of the baseline.

    Attributes:
        lesions: tracking UIDs and identifiers.
        last: highest number in an identifier of the report, also of lesions that were gone at the baseline already; 0
            without any.
    """

    lesions: Tracking
    last: int


def baseline_tracking(examination: Examination, report: Path | None) -> BaselineTracking:
    """Return how a report tracks the lesions of the baseline.

    Args:
        examination: the baseline.
        report: a DICOM SR that `liverseg predict` or `liverseg compare` wrote of it. Its measurement groups are in
            order of lesion id; absent lesions are not counted. None derives UIDs from the hashes of the CT and of the
            weights.

    Raises:
        UnreadableError: if it is no such report of these lesions.
    """
    count = len(examination.table)
    if report is None:
        parts = str(examination.record["input"]["sha256"]), examination.weights_sha256
        lesions = {
            number: (derived_uid(f"tracking {number}", *parts), f"lesion {number}") for number in range(1, count + 1)
        }
        return BaselineTracking(lesions, count)
    try:
        groups = [item for item in _descend(pydicom.dcmread(report)) if _code(item) == _GROUP]
        tracked = [(_tracking(group), _is_absent(group)) for group in groups]
        named = [(pair, absent, int(name[1])) for pair, absent in tracked if (name := _NAME.fullmatch(pair[1]))]
    except Exception as error:  # pydicom raises many kinds for damaged files
        raise UnreadableError(f"{report}: cannot be read as a report of liverseg; give another, or none") from error
    found = [pair for pair, absent, _ in named if not absent]
    if len(found) != count:
        raise UnreadableError(
            f"{report}: tracks {len(found)} lesions, but {examination.folder} holds {count}; give its own report"
        )
    return BaselineTracking(dict(enumerate(found, start=1)), max((number for *_, number in named), default=0))


def followup_tracking(baseline: BaselineTracking, matches: Sequence[Match], followup: Examination) -> Tracking:
    """Return the tracking of the follow-up's lesions.

    A lesion that is matched has that of the baseline's; of a split lesion, the part that matches best, and of lesions
    that merged, the lesion that matches best. Others have new UIDs, derived from the follow-up's CT, and the next free
    numbers.

    Args:
        baseline: from `baseline_tracking`.
        matches: of all lesions.
        followup: the later examination.
    """
    tracking = {
        match.followup[0]: baseline.lesions[match.baseline[0]] for match in matches if match.baseline and match.followup
    }
    last = baseline.last
    parts = str(followup.record["input"]["sha256"]), followup.weights_sha256
    for number in range(1, len(followup.table) + 1):
        if number not in tracking:
            last += 1
            tracking[number] = derived_uid(f"tracking {number}", *parts), f"lesion {last}"
    return dict(sorted(tracking.items()))


def _descend(item: pydicom.Dataset) -> list[pydicom.Dataset]:
    found = [item]
    for inner in item.get("ContentSequence") or ():
        found += _descend(inner)
    return found


def _code(item: pydicom.Dataset) -> tuple[str, str]:
    names = item.get("ConceptNameCodeSequence") or [pydicom.Dataset()]
    return str(names[0].get("CodeValue", "")), str(names[0].get("CodingSchemeDesignator", ""))


def _is_absent(group: pydicom.Dataset) -> bool:
    """Return whether a group says of its lesion that it is absent."""
    values = (item.get("ConceptCodeSequence") or [pydicom.Dataset()] for item in group.ContentSequence)
    return any(value[0].get("CodeValue") == ABSENT.value for value in values)


def _tracking(group: pydicom.Dataset) -> tuple[str, str]:
    values = {_code(item): item for item in group.ContentSequence}
    return str(values[_UID].UID), str(values[_IDENTIFIER].TextValue)
