"""Patient names that differ only in spelling: typing or a spreadsheet program may give a patient two names."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

__all__ = ["similar_names", "warn_about_similar_names"]

_SEPARATORS = r"[\s\-_.]+"


def similar_names(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Find names that differ only in case, white space, the separators - _ . or leading zeros of numbers.

    A separator between two numbers counts: 1-12 and 11-2 are two patients.

    Args:
        names: names of patients, in any order, with or without repetitions.

    Returns:
        One row for each name with more than one spelling: its spellings, sorted.

    Example:
        >>> similar_names(["patient-001", "01", "Patient 1", "1", "2"])
        [('01', '1'), ('Patient 1', 'patient-001')]
    """
    spellings: dict[str, set[str]] = defaultdict(set)
    for name in names:
        spellings[_normalise(name)].add(name)
    return sorted(tuple(sorted(group)) for group in spellings.values() if len(group) > 1)


def warn_about_similar_names(patients: Iterable[str]) -> None:
    """Log one warning if names of patients differ only in spelling, since a split treats each as a separate patient."""
    groups = similar_names(patients)
    if groups:
        others = f", and {len(groups) - 1} more such names" if len(groups) > 1 else ""
        logging.getLogger(__name__).warning(
            "patients %r and %r differ only in spelling%s; if they are one, give them one name", *groups[0][:2], others
        )


def _normalise(name: str) -> str:
    text = unicodedata.normalize("NFKC", name).casefold().strip()
    text = re.sub(rf"(?<=\d){_SEPARATORS}(?=\d)", "/", text)
    text = re.sub(_SEPARATORS, "", text)
    return re.sub(r"(?<!\d)0+(?=\d)", "", text)
