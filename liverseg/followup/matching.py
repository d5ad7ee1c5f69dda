"""Match the lesions of two examinations: the same lesion, split, merged, new, gone, or not covered by a scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from liverseg.followup.examination import Examination
from liverseg.followup.registration import LiverRegistration, is_covered, values_at, voxel_points
from liverseg.labels import LIVER

__all__ = ["LesionPairs", "Match", "Status", "compare_positions", "match_lesions", "tolerance_mm"]

_BASE_TOLERANCE_MM, _MAX_TOLERANCE_MM = 4.0, 15.0
"""Of two lesions' centres. Our choice: 4 mm is about the error that non-rigid registrations of the liver leave in its
inside; 15 mm apart, two lesions of a liver with metastases may well be two."""
_MIN_OVERLAP = 0.1
"""Lesions that share less of the smaller one are only neighbours."""
_PART = 0.5
"""A lesion is a part of another if this share of it lies in it."""
_COVERED = 0.5
"""A scan covers a lesion if it shows this share of it."""
_VOXELS = 4000
"""Points of a lesion whose places in the other CT are looked up; a larger lesion is thinned to them."""
_EPSILON = 1e-3


class Status(str, Enum):
    """What became of a lesion."""

    MATCHED = "matched"
    SPLIT = "split"
    MERGED = "merged"
    NEW = "new"
    GONE = "gone"
    NOT_COVERED_AT_FOLLOWUP = "not covered at follow-up"
    NOT_COVERED_AT_BASELINE = "not covered at baseline"


@dataclass(frozen=True)
class LesionPairs:
    """How the lesions of two examinations lie to each other after registration: n of the baseline, m of the follow-up.

    Attributes:
        baseline_share: share of each baseline lesion that lies in each lesion of the follow-up, (n, m), 0 to 1.
        followup_share: share of each follow-up lesion that lies in each lesion of the baseline, (n, m), 0 to 1.
        distance_mm: between the centres, (n, m).
        baseline_radius_mm: of the ball of a lesion's volume, (n,).
        followup_radius_mm: the same, (m,).
        baseline_covered: share of each baseline lesion in the follow-up's field of view, (n,).
        followup_covered: share of each follow-up lesion in the baseline's field of view, (m,).
        baseline_in_liver: share of each baseline lesion in the follow-up's liver, (n,).
        followup_in_liver: share of each follow-up lesion in the baseline's liver, (m,).
    """

    baseline_share: np.ndarray
    followup_share: np.ndarray
    distance_mm: np.ndarray
    baseline_radius_mm: np.ndarray
    followup_radius_mm: np.ndarray
    baseline_covered: np.ndarray
    followup_covered: np.ndarray
    baseline_in_liver: np.ndarray
    followup_in_liver: np.ndarray


@dataclass(frozen=True)
class Match:
    """A lesion over time, by its ids from 1 in the two examinations.

    Attributes:
        status: what became of it.
        baseline: ids in the baseline; several if lesions merged, none if it is new. The first is the best match.
        followup: ids in the follow-up; several if it split, none if it is gone. The first is the best match.
    """

    status: Status
    baseline: tuple[int, ...]
    followup: tuple[int, ...]


def tolerance_mm(surface_p95_mm: float) -> float:
    """Return how far apart the centres of one lesion may be after registration, before its growth is considered.

    It is 4 mm plus half of the distance within which 95 % of the livers' surfaces lie, at most 15 mm: a registration
    that misses the surface misses lesions too, though those inside by less. Our choice.
    """
    if not np.isfinite(surface_p95_mm):
        return _MAX_TOLERANCE_MM
    return float(min(_BASE_TOLERANCE_MM + 0.5 * surface_p95_mm, _MAX_TOLERANCE_MM))


def compare_positions(baseline: Examination, followup: Examination, registration: LiverRegistration) -> LesionPairs:
    """Map every lesion to the other examination, voxel by voxel, and measure overlaps and distances.

    Distances are measured in the follow-up's frame.
    """
    first = [_points(baseline, number) for number in range(1, len(baseline.table) + 1)]
    second = [_points(followup, number) for number in range(1, len(followup.table) + 1)]
    n, m = len(first), len(second)
    shares, shares_back = np.zeros((n, m)), np.zeros((n, m))
    covered, covered_back, in_liver, in_liver_back = np.zeros(n), np.zeros(m), np.zeros(n), np.zeros(m)
    for number, points in enumerate(first):
        mapped = registration.to_followup(points)
        covered[number] = is_covered(followup, mapped).mean()
        in_liver[number] = (values_at(followup, followup.lesions.inside, mapped) >= LIVER).mean()
        ids = values_at(followup, followup.lesions.ids_inside, mapped)
        shares[number] = np.bincount(ids, minlength=m + 1)[1:] / len(points)
    for number, points in enumerate(second):
        mapped = registration.to_baseline(points)
        covered_back[number] = is_covered(baseline, mapped).mean()
        in_liver_back[number] = (values_at(baseline, baseline.lesions.inside, mapped) >= LIVER).mean()
        ids = values_at(baseline, baseline.lesions.ids_inside, mapped)
        shares_back[:, number] = np.bincount(ids, minlength=n + 1)[1:] / len(points)
    centres = registration.to_followup(np.array([points.mean(axis=0) for points in first]).reshape(-1, 3))
    others = np.array([points.mean(axis=0) for points in second]).reshape(-1, 3)
    return LesionPairs(
        shares,
        shares_back,
        np.linalg.norm(centres[:, None] - others[None], axis=2),
        _radii(baseline),
        _radii(followup),
        covered,
        covered_back,
        in_liver,
        in_liver_back,
    )


def _points(examination: Examination, number: int) -> np.ndarray:
    return voxel_points(examination, examination.lesions.ids_inside == number, _VOXELS)


def _radii(examination: Examination) -> np.ndarray:
    """Return the radius in mm of the ball of each lesion's volume."""
    volumes = np.array([row.volume_ml for row in examination.table.rows])
    return np.cbrt(volumes * 1000 * 3 / (4 * np.pi))


def match_lesions(pairs: LesionPairs, tolerance: float) -> list[Match]:
    """Match lesions one to one, then find splits and merges among the rest.

    Two lesions can be the same if they share a tenth of either, or if their centres are no further apart than the
    tolerance plus the difference of their radii, since a lesion that grows at one side alone moves its centre by up to
    that. The centre of what a scan shows of a lesion that its edge cuts off moves too, by its radius times the missing
    share at most, which is added. A pair's weight is the mean of its overlap, the larger of its two shares, and its
    closeness, 1 at distance 0 and 0 at the limit. The matching with the largest sum of weights is chosen (Kuhn's
    assignment problem).

    A lesion that is left over, and of which half lies in a matched lesion of the other examination, is a part of it:
    the matched one split, or merged. What is left after that is new or gone, or was not covered by the other scan.

    Args:
        pairs: from `compare_positions`.
        tolerance: from `tolerance_mm`.

    Returns:
        A match for every lesion, by baseline id; then those without one, by follow-up id.
    """
    from scipy.optimize import linear_sum_assignment

    n, m = pairs.distance_mm.shape
    weights = _weights(pairs, tolerance)
    rows, columns = linear_sum_assignment(weights, maximize=True)
    partner = {int(row): int(column) for row, column in zip(rows, columns, strict=True) if weights[row, column] > 0}
    groups = {first: ([first], [second]) for first, second in partner.items()}
    of_followup = {second: first for first, second in partner.items()}
    free_first = [number for number in range(n) if number not in partner]
    free_second = [number for number in range(m) if number not in of_followup]
    for second in list(free_second):
        home = _home(pairs.followup_share[:, second], partner)
        if home is not None:
            groups[home][1].append(second)
            free_second.remove(second)
    for first in list(free_first):
        home = _home(pairs.baseline_share[first], of_followup)
        if home is not None:
            groups[of_followup[home]][0].append(first)
            free_first.remove(first)
    found = [_group(first, second) for first, second in groups.values()]
    for first in free_first:
        seen = pairs.baseline_covered[first] >= _COVERED
        found.append(Match(Status.GONE if seen else Status.NOT_COVERED_AT_FOLLOWUP, (first + 1,), ()))
    found.sort(key=lambda match: match.baseline)
    for second in free_second:
        seen = pairs.followup_covered[second] >= _COVERED
        found.append(Match(Status.NEW if seen else Status.NOT_COVERED_AT_BASELINE, (), (second + 1,)))
    return found


def _weights(pairs: LesionPairs, tolerance: float) -> np.ndarray:
    """Return the weight of each pair, 0 for one that cannot be the same lesion."""
    overlap = np.maximum(pairs.baseline_share, pairs.followup_share)
    limit = tolerance + np.abs(pairs.baseline_radius_mm[:, None] - pairs.followup_radius_mm[None])
    limit += ((1 - pairs.baseline_covered) * pairs.baseline_radius_mm)[:, None]
    limit += ((1 - pairs.followup_covered) * pairs.followup_radius_mm)[None]
    closeness = np.clip(1 - pairs.distance_mm / limit, 0, 1)
    allowed = (overlap >= _MIN_OVERLAP) | (pairs.distance_mm <= limit)
    return np.where(allowed, (overlap + closeness) / 2 + _EPSILON, 0.0)


def _home(shares: np.ndarray, matched: dict[int, int]) -> int | None:
    """Return the matched lesion that a lesion is a part of, if any."""
    inside = [(float(shares[number]), -number) for number in matched if shares[number] >= _PART]
    return -max(inside)[1] if inside else None


def _group(first: Sequence[int], second: Sequence[int]) -> Match:
    # lesions that merged, of which a part split off, count as merged: one row cannot say both
    status = Status.MERGED if len(first) > 1 else Status.SPLIT if len(second) > 1 else Status.MATCHED
    return Match(status, tuple(number + 1 for number in first), tuple(number + 1 for number in second))
