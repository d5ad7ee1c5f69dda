"""Patients' names that differ only in spelling: typed by hand, or changed by a table program, one may have two."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

__all__ = ["similar_names", "warn_about_similar_names"]

_SEPARATORS = r"[\s\-_.]+"


def similar_names(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Names that are equal but for case, white space, the separators - _ . and leading zeros of numbers.

    A separator between two numbers counts: 1-12 and 11-2 are two patients.

    Args:
        names: of patients, in any order, each as often as it comes.

    Returns:
        One row for each name with more than one spelling: its spellings, sorted.

    Example:
        >>> alike_names(["patient-001", "01", "Patient 1", "1", "2"])
        [('01', '1'), ('Patient 1', 'patient-001')]
    """
    spellings: dict[str, set[str]] = defaultdict(set)
    for name in names:
        spellings[_plain(name)].add(name)
    return sorted(tuple(sorted(alike)) for alike in spellings.values() if len(alike) > 1)


def warn_about_similar_names(patients: Iterable[str]) -> None:
    """One line in the log if names of patients differ only in spelling: a split takes each for a patient."""
    alike = similar_names(patients)
    if alike:
        others = f", and {len(alike) - 1} more such names" if len(alike) > 1 else ""
        logging.getLogger(__name__).warning(
            "patients %r and %r differ only in spelling%s; if they are one, give them one name", *alike[0][:2], others
        )


def _plain(name: str) -> str:
    text = unicodedata.normalize("NFKC", name).casefold().strip()
    text = re.sub(rf"(?<=\d){_SEPARATORS}(?=\d)", "/", text)
    text = re.sub(_SEPARATORS, "", text)
    return re.sub(r"(?<!\d)0+(?=\d)", "", text)
