"""Patients that public data sets share under different names.

A network trained on one of two such sets must not be tested on the other. The known overlaps are in
`same_patients.json` beside this module: pairs of sets, each a range of patient names as the importers give them. If two
sets are known to overlap but not which patients are the same, every pair of patients counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources

__all__ = ["SharedPatients", "find_shared_patients"]


@dataclass(frozen=True)
class SharedPatients:
    """Patients of two groups who may be the same people.

    Attributes:
        first: a patient of the first group.
        second: a patient of the second group, who may be the same person.
        count: number of patients of the first group who may be in the second.
        reason: the two data sets and why they overlap.
    """

    first: str
    second: str
    count: int
    reason: str


@dataclass(frozen=True)
class _PublicSet:
    what: str
    prefix: str
    first: int
    last: int

    def members(self, patients: Iterable[str]) -> list[str]:
        """Return the patients that are in this set, sorted."""
        name = re.compile(rf"{re.escape(self.prefix)}0*(\d+)", re.IGNORECASE)
        matches = ((patient, name.fullmatch(patient)) for patient in patients)
        return sorted(patient for patient, match in matches if match and self.first <= int(match[1]) <= self.last)


@cache
def _overlaps() -> tuple[tuple[_PublicSet, _PublicSet, str], ...]:
    text = resources.files("liverseg.datalists").joinpath("same_patients.json").read_text(encoding="utf-8")
    pairs = json.loads(text)
    return tuple((_PublicSet(**pair["sets"][0]), _PublicSet(**pair["sets"][1]), pair["source"]) for pair in pairs)


def find_shared_patients(first: Iterable[str], second: Iterable[str]) -> list[SharedPatients]:
    """Find patients of one group who may be in another group under a different name.

    Args:
        first: names of patients as the importers give them; other names match nobody.
        second: names of the patients of the other group.

    Returns:
        One row for each pair of overlapping public sets with patients in different groups.

    Example:
        >>> [(shared.first, shared.second) for shared in find_shared_patients(["lits-030"], ["ircadb-05", "p1"])]
        [('lits-030', 'ircadb-05')]
    """
    first_group, second_group = sorted(set(first)), sorted(set(second))
    found = []
    for first_set, second_set, source in _overlaps():
        for left, right in ((first_set, second_set), (second_set, first_set)):
            left_members, right_members = left.members(first_group), right.members(second_group)
            if left_members and right_members:
                reason = f"{left.what} and {right.what} share patients: {source}"
                found.append(SharedPatients(left_members[0], right_members[0], len(left_members), reason))
    return found
