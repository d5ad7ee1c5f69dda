"""The arithmetic of RECIST 1.1 on measured diameters. It is arithmetic, not an assessment of a patient.

Eisenhauer et al., New response evaluation criteria in solid tumours: revised RECIST guideline (version 1.1), European
Journal of Cancer 45:228 (2009). Numbers in docstrings are its sections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from liverseg.errors import UsageError
from liverseg.followup.matching import Match, Status
from liverseg.inference.lesion_measurements import MeasuredLesion
from liverseg.labels import INDETERMINATE

__all__ = ["Recist", "Response", "choose_targets", "evaluate", "smallest_target_mm"]

MAX_TARGETS = 2
"""At most two target lesions an organ (3.1.1); the liver is the one that is seen here."""
MIN_TARGET_MM, THICK_SLICE_MM, SLICES_PER_TARGET = 10.0, 5.0, 2
"""Smallest measurable lesion on CT; with slices above 5 mm, twice their thickness (3.1.1)."""
_PARTIAL_RESPONSE, _PROGRESSION, _PROGRESSION_MM = -30.0, 20.0, 5.0
"""Per cent, per cent and mm (4.3.1)."""
_TYPES = ("metastasis", "lesion")
"""Lesions that count. `lesion` is that of a network without types."""


class Response(str, Enum):
    """The four responses of 4.3.1, and what cannot be evaluated."""

    COMPLETE = "CR"
    PARTIAL = "PR"
    STABLE = "SD"
    PROGRESSIVE = "PD"
    NOT_EVALUABLE = "NE"


@dataclass(frozen=True)
class Recist:
    """Sums of diameters and what follows from them.

    Attributes:
        targets: baseline ids of the target lesions.
        smallest_target_mm: smallest longest diameter that counts as measurable on the baseline.
        baseline_sum_mm: sum of the targets' longest diameters; also the nadir, since there is no third examination.
        followup_sum_mm: the same at the follow-up; None if a target is not covered there.
        change_mm, change_percent: of the sum; None without one.
        of_targets: response of the target lesions.
        new_lesions: follow-up ids of new lesions of a type that counts.
        overall: response by targets and new lesions: progressive if there is a new lesion (4.3.5). Lesions that are no
            targets are not assessed.
        reasons: how each response follows, a sentence each.
    """

    targets: tuple[int, ...]
    smallest_target_mm: float
    baseline_sum_mm: float
    followup_sum_mm: float | None
    change_mm: float | None
    change_percent: float | None
    of_targets: Response
    new_lesions: tuple[int, ...]
    overall: Response
    reasons: tuple[str, ...]


def smallest_target_mm(slice_mm: float) -> float:
    """Return the smallest measurable longest diameter for a slice spacing, which is taken for the thickness, in mm."""
    return SLICES_PER_TARGET * slice_mm if slice_mm > THICK_SLICE_MM else MIN_TARGET_MM


def choose_targets(
    lesions: Sequence[MeasuredLesion],
    slice_mm: float,
    indeterminate: bool = False,
    chosen: Sequence[int] | None = None,
) -> tuple[tuple[int, ...], list[str]]:
    """Suggest the largest measurable lesions as targets, or check those that a user chose.

    Args:
        lesions: of the baseline.
        slice_mm: slice spacing of the baseline.
        indeterminate: let lesions of indeterminate type count too.
        chosen: baseline ids; None suggests.

    Returns:
        Baseline ids, and warnings about chosen lesions that RECIST would not accept.

    Raises:
        UsageError: if there is no such lesion, one is named twice, or there are more than two.
    """
    smallest = smallest_target_mm(slice_mm)
    types = _types(indeterminate)
    if chosen is None:
        found = [row for row in lesions if row.type in types and row.longest_diameter_mm >= smallest]
        found.sort(key=lambda row: (-row.longest_diameter_mm, row.id))
        return tuple(row.id for row in found[:MAX_TARGETS]), []
    by_id = {row.id: row for row in lesions}
    named = ",".join(map(str, chosen))
    if len(set(chosen)) != len(chosen) or len(chosen) > MAX_TARGETS:
        raise UsageError(f"targets {named}: RECIST 1.1 allows at most {MAX_TARGETS} different lesions of the liver")
    for number in chosen:
        if number not in by_id:
            known = f"1 to {len(lesions)}" if lesions else "none"
            raise UsageError(f"target {number}: no such lesion in the baseline, which has {known}")
    warnings = []
    for number in chosen:
        row = by_id[number]
        if row.longest_diameter_mm < smallest:
            warnings.append(
                f"target lesion {number} measures {row.longest_diameter_mm:.1f} mm; RECIST 1.1 needs {smallest:g} mm "
                "on these slices"
            )
        if row.type not in types:
            warnings.append(f"target lesion {number} is of type {row.type}, which is no target by default")
    return tuple(chosen), warnings


def evaluate(
    targets: Sequence[int],
    matches: Sequence[Match],
    baseline: Sequence[MeasuredLesion],
    followup: Sequence[MeasuredLesion],
    slice_mm: float,
    indeterminate: bool = False,
) -> Recist:
    """Add up the target lesions' longest diameters and compare the sums by 4.3.1.

    A lesion that is gone has 0 mm. The parts of a split lesion are added, and lesions that merged have the longest
    diameter of the merged one, once (4.3.2). The baseline is also the nadir.

    Args:
        targets: baseline ids.
        matches: of all lesions.
        baseline, followup: measured lesions, in order of id.
        slice_mm: slice spacing of the baseline.
        indeterminate: let new lesions of indeterminate type count too.
    """
    before = {number: baseline[number - 1].longest_diameter_mm for number in targets}
    after: dict[tuple[int, ...], float] = {}
    missing = []
    for number in targets:
        match = next(match for match in matches if number in match.baseline)
        if match.status is Status.NOT_COVERED_AT_FOLLOWUP:
            missing.append(number)
        # a merged lesion of two targets is one entry
        after[match.followup or (-number,)] = sum(followup[part - 1].longest_diameter_mm for part in match.followup)
    new = tuple(
        match.followup[0]
        for match in matches
        if match.status is Status.NEW and followup[match.followup[0] - 1].type in _types(indeterminate)
    )
    base = round(sum(before.values()), 2)
    total = None if missing or not targets else round(sum(after.values()), 2)
    change = None if total is None else round(total - base, 2)
    percent = None if change is None else round(100 * change / base, 2)
    of_targets, reason = _response(targets, missing, total, change, percent)
    overall, reasons = of_targets, [reason]
    if new:
        overall = Response.PROGRESSIVE
        listed = ", ".join(map(str, new))
        reasons.append(f"PD overall: new lesion{'s' if len(new) > 1 else ''} {listed} at the follow-up")
    return Recist(
        tuple(targets), smallest_target_mm(slice_mm), base, total, change, percent, of_targets, new, overall,
        tuple(reasons),
    )  # fmt: skip


def _types(indeterminate: bool) -> tuple[str, ...]:
    return (*_TYPES, INDETERMINATE.name) if indeterminate else _TYPES


def _response(
    targets: Sequence[int],
    missing: Sequence[int],
    total: float | None,
    change: float | None,
    percent: float | None,
) -> tuple[Response, str]:
    if not targets:
        return Response.NOT_EVALUABLE, "NE: no measurable target lesion at the baseline"
    if total is None or change is None or percent is None:
        listed = ", ".join(map(str, missing))
        return Response.NOT_EVALUABLE, f"NE: target lesion {listed} is not covered by the follow-up"
    if total == 0:
        return Response.COMPLETE, "CR of the targets: none of them is left"
    stated = f"the sum changed by {change:+.1f} mm ({percent:+.1f} %)"
    if percent >= _PROGRESSION and change >= _PROGRESSION_MM:
        return Response.PROGRESSIVE, f"PD of the targets: {stated}, at least +20 % and +5 mm"
    if percent <= _PARTIAL_RESPONSE:
        return Response.PARTIAL, f"PR of the targets: {stated}, at least −30 %"
    return Response.STABLE, f"SD of the targets: {stated}, neither −30 % nor both +20 % and +5 mm"
