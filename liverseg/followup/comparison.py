"""Compare two examinations: register, match, measure the changes, and describe them as a table and as JSON."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from liverseg.followup.examination import Examination, check_pair
from liverseg.followup.growth import Change, Size, Trend, measure_change, size_value
from liverseg.followup.matching import (
    LesionPairs,
    Match,
    Status,
    compare_positions,
    match_lesions,
    tolerance_mm,
)
from liverseg.followup.recist import Recist, choose_targets, evaluate
from liverseg.followup.registration import LiverRegistration, register_livers
from liverseg.inference.lesion_measurements import MeasuredLesion
from liverseg.inference.lesions import liver_volume_ml

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "LesionChange", "LiverComparison", "compare_examinations"]

_CUT_OFF = 0.9
"""A lesion of which a scan shows less than this share is cut off, and measures too small there."""
_CUT_OFF_NOTE = "the edge of a scan may cut it off"
_IN_LIVER = 0.5

COLUMNS = (
    "lesion",
    "status",
    "baseline_ids",
    "followup_ids",
    "baseline_type",
    "followup_type",
    "type_changed",
    "target",
    "baseline_longest_mm",
    "followup_longest_mm",
    "longest_change_mm",
    "longest_change_percent",
    "longest_limit_mm",
    "longest_trend",
    "baseline_short_mm",
    "followup_short_mm",
    "baseline_volume_ml",
    "followup_volume_ml",
    "volume_change_ml",
    "volume_change_percent",
    "volume_limit_ml",
    "volume_trend",
    "distance_mm",
    "overlap",
    "baseline_x_mm",
    "baseline_y_mm",
    "baseline_z_mm",
    "followup_x_mm",
    "followup_y_mm",
    "followup_z_mm",
    "note",
)
"""Columns of comparison.csv and keys of the lesions in comparison.json."""


@dataclass(frozen=True)
class LesionChange:
    """A lesion over time: a row of the comparison.

    Attributes:
        number: of the row, from 1.
        match: ids in both examinations and what became of the lesion.
        baseline_types, followup_types: of the lesions, in order of the ids.
        before, after: sizes; None where there is no lesion.
        longest, volume: changes of longest diameter (mm) and volume (ml); None without two sizes.
        target: whether it is a target lesion.
        distance_mm: between the centres of the best matching pair after registration; None without a pair.
        overlap: larger of the two shares of that pair that lie in each other, 0 to 1; None without a pair.
        baseline_mm, followup_mm: where the lesion is, or would be by the registration, RAS+ mm.
        note: what a reader should know about the row; empty if nothing.
    """

    number: int
    match: Match
    baseline_types: tuple[str, ...]
    followup_types: tuple[str, ...]
    before: Size | None
    after: Size | None
    longest: Change | None
    volume: Change | None
    target: bool
    distance_mm: float | None
    overlap: float | None
    baseline_mm: tuple[float, float, float]
    followup_mm: tuple[float, float, float]
    note: str

    @property
    def type_changed(self) -> bool:
        """Whether the lesion has other types at the follow-up than at the baseline."""
        return bool(self.before and self.after) and set(self.baseline_types) != set(self.followup_types)

    def record(self) -> dict[str, Any]:
        """Return the values by `COLUMNS`: ids as lists, None where there is no value."""
        before, after = self.before, self.after
        return dict(
            zip(
                COLUMNS,
                (
                    self.number,
                    self.match.status.value,
                    list(self.match.baseline),
                    list(self.match.followup),
                    _joined(self.baseline_types),
                    _joined(self.followup_types),
                    self.type_changed if before and after else None,
                    self.target,
                    _rounded(size_value(before, "longest_mm")),
                    _rounded(size_value(after, "longest_mm")),
                    *_change(self.longest, 2),
                    _rounded(size_value(before, "short_mm")),
                    _rounded(size_value(after, "short_mm")),
                    _rounded(size_value(before, "volume_ml"), 4),
                    _rounded(size_value(after, "volume_ml"), 4),
                    *_change(self.volume, 4),
                    _rounded(self.distance_mm),
                    _rounded(self.overlap, 3),
                    *map(_rounded, self.baseline_mm),
                    *map(_rounded, self.followup_mm),
                    self.note,
                ),
                strict=True,
            )
        )


@dataclass(frozen=True)
class LiverComparison:
    """What has changed between two examinations.

    Attributes:
        baseline, followup: the examinations.
        registration: of the livers.
        tolerance_mm: how far apart the centres of a lesion may be after registration.
        changes: a row a lesion.
        recist: sums of diameters; arithmetic, not an assessment.
        days: from baseline to follow-up; None if a date is not known.
        warnings: sentences that a reader should see.
        folder: of the written files; None if nothing was written.
    """

    baseline: Examination
    followup: Examination
    registration: LiverRegistration = field(repr=False)
    tolerance_mm: float
    changes: tuple[LesionChange, ...]
    recist: Recist
    days: int | None
    warnings: tuple[str, ...]
    folder: Path | None = None

    @property
    def lesions(self) -> pd.DataFrame:
        """The rows as a DataFrame, with the columns of comparison.csv."""
        import pandas as pd

        return pd.DataFrame([change.record() for change in self.changes], columns=list(COLUMNS))

    def counts(self) -> dict[str, int]:
        """Return the number of rows of each status, zeros included."""
        counted = Counter(change.match.status for change in self.changes)
        return {status.value: counted[status] for status in Status}

    def trends(self) -> dict[str, int]:
        """Return the number of rows of each trend of the longest diameter, zeros included."""
        counted = Counter(change.longest.trend for change in self.changes if change.longest)
        return {trend.value: counted[trend] for trend in Trend}

    def to_json(self) -> dict[str, Any]:
        """Return the content of comparison.json. It holds neither dates nor other identifiers of a patient."""
        quality = self.registration.quality
        liver = [
            round(liver_volume_ml(examination.lesions, examination.volume.voxel_ml), 3)
            for examination in (self.baseline, self.followup)
        ]
        return {
            "schema": "liverseg comparison",
            "format_version": 1,
            "baseline": str(self.baseline.record["case"]),
            "followup": str(self.followup.record["case"]),
            "days": self.days,
            "liver_ml": {"baseline": liver[0], "followup": liver[1]},
            "registration": {
                name: _finite(round(value, 3)) if isinstance(value, float) else value
                for name, value in asdict(quality).items()
            },
            "tolerance_mm": round(self.tolerance_mm, 2),
            "counts": self.counts(),
            "longest_diameter_trends": self.trends(),
            "recist": {
                **asdict(self.recist),
                "of_targets": self.recist.of_targets.value,
                "overall": self.recist.overall.value,
                "remark": "arithmetic of RECIST 1.1 on automatic measurements of the liver alone; not an assessment",
            },
            "lesions": [change.record() for change in self.changes],
            "warnings": list(self.warnings),
        }

    def to_csv(self) -> str:
        """Return the content of comparison.csv: several ids are separated by spaces, what is not known is empty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for change in self.changes:
            values = change.record().values()
            writer.writerow([" ".join(map(str, value)) if isinstance(value, list) else value for value in values])
        return text.getvalue()


def compare_examinations(
    baseline: Examination,
    followup: Examination,
    targets: Sequence[int] | None = None,
    indeterminate_targets: bool = False,
    registration: LiverRegistration | None = None,
) -> LiverComparison:
    """Compare two examinations of one patient.

    Args:
        baseline, followup: the examinations.
        targets: baseline ids of the target lesions; by default the largest measurable ones.
        indeterminate_targets: lesions of indeterminate type can be targets, and count as new lesions.
        registration: of their livers; computed by default.

    Raises:
        LiversegError: if they cannot be compared, see `check_pair`.
        UsageError: if the targets are not allowed.
    """
    warnings, days = check_pair(baseline, followup)
    rows = baseline.table.rows, followup.table.rows
    slice_mm = baseline.volume.axial_spacing[0]
    chosen, complaints = choose_targets(rows[0], slice_mm, indeterminate_targets, targets)
    warnings += complaints
    for name, examination in (("baseline", baseline), ("follow-up", followup)):
        warnings += [f"{name}: {text}" for text in (*examination.warnings, *_result_warnings(examination))]
    if registration is None:
        registration = register_livers(baseline, followup)
    warnings += registration.quality.warnings()
    tolerance = tolerance_mm(registration.quality.surface_p95_mm)
    pairs = compare_positions(baseline, followup, registration)
    matches = match_lesions(pairs, tolerance)
    recist = evaluate(chosen, matches, rows[0], rows[1], slice_mm, indeterminate_targets)
    changes = tuple(
        _lesion_change(number, match, baseline, followup, registration, pairs, recist)
        for number, match in enumerate(matches, start=1)
    )
    for change in changes:
        if change.target and _CUT_OFF_NOTE in change.note:
            warnings.append(
                f"the edge of a scan may cut off the target of row {change.number}; its diameter and the sum may be "
                "too small"
            )
    for name, status in (
        ("follow-up", Status.NOT_COVERED_AT_FOLLOWUP),
        ("baseline", Status.NOT_COVERED_AT_BASELINE),
    ):
        count = sum(change.match.status is status for change in changes)
        if count:
            warnings.append(f"the {name}'s scan does not cover {count} lesion{'s' if count > 1 else ''} of the other")
    return LiverComparison(baseline, followup, registration, tolerance, changes, recist, days, tuple(warnings))


def _result_warnings(examination: Examination) -> list[str]:
    """Return the warnings of a case's record."""
    found = examination.record.get("warnings")
    return [str(text) for text in found] if isinstance(found, list) else []


def _lesion_change(
    number: int,
    match: Match,
    baseline: Examination,
    followup: Examination,
    registration: LiverRegistration,
    pairs: LesionPairs,
    recist: Recist,
) -> LesionChange:
    first = [baseline.table.rows[part - 1] for part in match.baseline]
    second = [followup.table.rows[part - 1] for part in match.followup]
    before = Size.of(first, baseline.volume.axial_spacing) if first else None
    after = Size.of(second, followup.volume.axial_spacing) if second else None
    longest = volume = None
    distance = overlap = None
    if before and after:
        longest = measure_change(
            before.longest_mm, after.longest_mm, before.longest_uncertainty_mm, after.longest_uncertainty_mm
        )
        volume = measure_change(
            before.volume_ml, after.volume_ml, before.volume_uncertainty_ml, after.volume_uncertainty_ml
        )
        pair = match.baseline[0] - 1, match.followup[0] - 1
        distance = float(pairs.distance_mm[pair])
        overlap = float(max(pairs.baseline_share[pair], pairs.followup_share[pair]))
    here = _centre(first) if first else registration.to_baseline(_centre(second)[None])[0]
    there = _centre(second) if second else registration.to_followup(_centre(first)[None])[0]
    return LesionChange(
        number=number,
        match=match,
        baseline_types=tuple(row.type for row in first),
        followup_types=tuple(row.type for row in second),
        before=before,
        after=after,
        longest=longest,
        volume=volume,
        target=any(part in recist.targets for part in match.baseline),
        distance_mm=distance,
        overlap=overlap,
        baseline_mm=_triple(here),
        followup_mm=_triple(there),
        note=_note(match, pairs),
    )


def _note(match: Match, pairs: LesionPairs) -> str:
    """Describe what keeps a row from being read as it stands."""
    notes = []
    first, second = [number - 1 for number in match.baseline], [number - 1 for number in match.followup]
    if match.status is Status.GONE and pairs.baseline_in_liver[first[0]] < _IN_LIVER:
        notes.append("its place is outside the follow-up's liver: resected, or the liver's outline is wrong")
    if match.status is Status.NEW and pairs.followup_in_liver[second[0]] < _IN_LIVER:
        notes.append("its place is outside the baseline's liver: that outline or the registration is wrong")
    covered = [*pairs.baseline_covered[first], *pairs.followup_covered[second]]
    uncovered = match.status in (Status.NOT_COVERED_AT_BASELINE, Status.NOT_COVERED_AT_FOLLOWUP)
    if not uncovered and min(covered) < _CUT_OFF:
        notes.append(_CUT_OFF_NOTE)
    return "; ".join(notes)


def _centre(lesions: Sequence[MeasuredLesion]) -> np.ndarray:
    """Return the centroid of the largest of some lesions, RAS+ mm."""
    row = max(lesions, key=lambda lesion: lesion.volume_ml)
    return np.array([row.centroid_x_mm, row.centroid_y_mm, row.centroid_z_mm])


def _triple(point: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (float(number) for number in point)
    return x, y, z


def _joined(types: Sequence[str]) -> str | None:
    return ", ".join(dict.fromkeys(types)) or None


def _change(change: Change | None, digits: int) -> tuple[Any, ...]:
    if change is None:
        return None, None, None, None
    return (
        _rounded(change.difference, digits),
        _finite(round(change.percent, 1)),
        _rounded(change.limit, digits),
        change.trend.value,
    )


def _rounded(value: float | None, digits: int = 2) -> float | None:
    return None if value is None else round(float(value), digits) + 0.0


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
