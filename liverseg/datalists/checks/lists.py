"""Checks of the data list itself, and of its files against each other."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

from liverseg.datalists.checks.findings import ERROR, WARNING, Finding
from liverseg.datalists.checks.geometry import axis_codes
from liverseg.datalists.checks.images import ImageFacts
from liverseg.datalists.duplicate_patients import find_shared_patients
from liverseg.datalists.model import DataItem, inspect_datalist
from liverseg.datalists.similar_names import similar_names
from liverseg.labels import JOINT_LABELS, LESION_TYPES

__all__ = ["ListContent", "against_findings", "cross_image_findings", "read_list", "shared_patient_findings"]


@dataclass
class ListContent:
    """The readable content of a data list; values of the wrong kind are None.

    Attributes:
        training, test: the list's items.
        labels: the list's label table, index to name; the joint table if the list has none.
        findings: defects of the list.
    """

    training: list[DataItem] = field(default_factory=list)
    test: list[DataItem] = field(default_factory=list)
    labels: dict[int, str] = field(default_factory=lambda: {label.index: label.name for label in JOINT_LABELS})
    findings: list[Finding] = field(default_factory=list)

    @property
    def items(self) -> list[DataItem]:
        """All items, training items first."""
        return self.training + self.test


def read_list(path: Path) -> ListContent:
    """Read a list and all defects for which `read_datalist` would refuse it."""
    datalist, violations = inspect_datalist(path)
    findings = []
    for violation in violations:
        file = path.name if violation.image is None else os.path.normpath(violation.image)
        found = violation.what if violation.image is None else f"{violation.item} {violation.what}"
        findings.append(Finding(file, ERROR, violation.defect, found))
    training, test = ([*map(_drop_unknown_type, items)] for items in (datalist.training, datalist.test))
    content = ListContent(training, test, findings=findings)
    content.labels = {int(index): name for index, name in datalist.labels.items()} or content.labels
    return content


def _drop_unknown_type(item: DataItem) -> DataItem:
    """Remove a type that does not exist, so that its label map is not searched for it."""
    return item if item.lesion_type in LESION_TYPES else replace(item, lesion_type=None)


def cross_image_findings(
    list_name: str, items: Iterable[DataItem], images: Mapping[str, ImageFacts]
) -> Iterable[Finding]:
    """Report duplicate images, and array axes whose directions differ between images."""
    patients = {os.path.normpath(item.image): item.patient for item in items}
    first_with_digest: dict[str, str] = {}
    for name, facts in sorted(images.items()):
        first = next((first_with_digest[digest] for digest in facts.digests if digest in first_with_digest), name)
        for digest in facts.digests:
            first_with_digest.setdefault(digest, first)
        if first == name:
            continue
        first_patient, patient = patients[first], patients[name]
        if first_patient == patient:
            found = f"the same voxels as {first}, both of patient {patient}; take one off the list"
            yield Finding(name, WARNING, "duplicate", found)
        else:
            owners = f"of patient {patient} here and {first_patient} there"
            yield Finding(name, ERROR, "duplicate", f"the same voxels as {first}, {owners}; find out whose it is")
    first_with_code: dict[str, str] = {}
    codes: Counter[str] = Counter()
    for name, facts in sorted(images.items()):
        if facts.grid.affine is not None and facts.grid.codes != (0, 0):
            code = axis_codes(facts.grid.affine)
            codes[code] += 1
            first_with_code.setdefault(code, name)
    if len(codes) > 1:
        by_count = sorted(codes.items(), key=lambda pair: (-pair[1], pair[0]))
        texts: list[str] = []
        for code, count in by_count:
            example = f" ({first_with_code[code]})" if texts else ""
            texts.append(f"{code} in {count} {'image' if count == 1 else 'images'}{example}")
        found = f"array axes run {', '.join(texts)}; make sure every affine is right"
        yield Finding(list_name, WARNING, "orientation", found)


def shared_patient_findings(list_name: str, content: ListContent) -> Iterable[Finding]:
    """Report patients who may be the same under two names and are in two folds, or in a fold and the test part."""
    parts = _patients_by_part(content)
    yield from _spelling_findings(list_name, parts, "split the list again")
    reported: set[str] = set()
    for part, other_part in combinations(sorted(parts), 2):
        for shared in find_shared_patients(parts[part], parts[other_part]):
            if shared.reason not in reported:  # once for a pair of sets, not for every pair of folds
                reported.add(shared.reason)
                found = f"patient {shared.first} is in {part} and {shared.second} in {other_part}; {shared.reason}"
                yield Finding(list_name, ERROR, "twins", f"{found}: leave one of the sets out")


def against_findings(list_name: str, content: ListContent, other: Path) -> Iterable[Finding]:
    """Report patients who are also in another list, under the same or perhaps under a second name."""
    other_content = read_list(other)
    if not other_content.items:
        yield from other_content.findings
        return
    patients = {item.patient for item in content.items}
    other_patients = {item.patient for item in other_content.items}
    both = sorted(patients & other_patients)
    if both:
        found = f"{len(both)} of its patients are in {other} as well, such as {both[0]}"
        yield Finding(list_name, ERROR, "twins", f"{found}: train and test on different patients")
    parts = {"it": patients, str(other): other_patients}
    yield from _spelling_findings(list_name, parts, "train and test on different patients")
    for shared in find_shared_patients(patients, other_patients):
        found = f"patient {shared.first} is in it and {shared.second} in {other}; {shared.reason}"
        yield Finding(list_name, ERROR, "twins", f"{found}: leave the {shared.count} patients of one side out")


def _patients_by_part(content: ListContent) -> dict[str, set[str]]:
    """Return the patients of each fold and of the test part."""
    parts: dict[str, set[str]] = defaultdict(set)
    for item in content.training:
        if item.fold is not None:
            parts[f"fold {item.fold}"].add(item.patient)
    for item in content.test:
        parts["test"].add(item.patient)
    return parts


def _spelling_findings(list_name: str, parts: Mapping[str, set[str]], what_to_do: str) -> Iterator[Finding]:
    """Report names that differ only in spelling and are in different parts."""
    for spellings in similar_names(name for names in parts.values() for name in names):
        parts_of = {name: sorted(part for part, names in parts.items() if name in names) for name in spellings}
        if len({part for name_parts in parts_of.values() for part in name_parts}) > 1:
            text = ", ".join(f"{name!r} in {' and in '.join(parts_of[name])}" for name in spellings)
            found = f"patients {text} differ only in spelling; if they are one, give them one name"
            yield Finding(list_name, WARNING, "similar patients", f"{found} and {what_to_do}")
