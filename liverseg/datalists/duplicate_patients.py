"""Patients that public sets hold under two names: a network trained on one set must not be tested on the other.

What is known is data, in `same_patients.json` beside this module: pairs of sets, each a range of patient names as the
importers give them. Where only the sets are known to overlap and not who is who, every pair between them counts.
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
    """A possible same patient on two sides.

    Attributes:
        first: a patient of the one side.
        second: a patient of the other, who may be the same.
        count: how many patients of the one side may be among those of the other.
        reason: which sets they are of and why these overlap.
    """

    first: str
    second: str
    count: int
    reason: str


@dataclass(frozen=True)
class _Set:
    what: str
    prefix: str
    first: int
    last: int

    def members(self, patients: Iterable[str]) -> list[str]:
        """Those of some patients that are in this set, sorted."""
        name = re.compile(rf"{re.escape(self.prefix)}0*(\d+)", re.IGNORECASE)
        matches = ((patient, name.fullmatch(patient)) for patient in patients)
        return sorted(patient for patient, match in matches if match and self.first <= int(match[1]) <= self.last)


@cache
def _overlaps() -> tuple[tuple[_Set, _Set, str], ...]:
    text = resources.files("liverseg.datalists").joinpath("same_patients.json").read_text(encoding="utf-8")
    return tuple((_Set(**row["sets"][0]), _Set(**row["sets"][1]), row["source"]) for row in json.loads(text))


def find_shared_patients(one: Iterable[str], other: Iterable[str]) -> list[SharedPatients]:
    """Who of one side may be the same person as somebody of the other under another name.

    Args:
        one: names of patients, as importers give them; other names are nobody's twins.
        other: names of the patients they must not be.

    Returns:
        One row for each pair of public sets that overlap and are on different sides.

    Example:
        >>> [(twins.first, twins.second) for twins in find_twins(["lits-030"], ["ircadb-05", "p1"])]
        [('lits-030', 'ircadb-05')]
    """
    sides = (sorted(set(one)), sorted(set(other)))
    found = []
    for first, second, source in _overlaps():
        for left, right in ((first, second), (second, first)):
            members, twins = left.members(sides[0]), right.members(sides[1])
            if members and twins:
                reason = f"{left.what} and {right.what} share patients: {source}"
                found.append(SharedPatients(members[0], twins[0], len(members), reason))
    return found
