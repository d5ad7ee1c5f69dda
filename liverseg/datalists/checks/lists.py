"""Checks of the data list itself, and of what its files are only together: read as far as it can be read."""

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

__all__ = ["ListContent", "against_findings", "read_list", "together_findings", "twin_findings"]


@dataclass
class ListContent:
    """What could be read of a list; values of the wrong kind are None.

    Attributes:
        training, test: its items.
        labels: its label table, index to name; the joint one where the list has none.
        findings: what is wrong with the list.
    """

    training: list[DataItem] = field(default_factory=list)
    test: list[DataItem] = field(default_factory=list)
    labels: dict[int, str] = field(default_factory=lambda: {label.index: label.name for label in JOINT_LABELS})
    findings: list[Finding] = field(default_factory=list)

    @property
    def items(self) -> list[DataItem]:
        """All items, those of training first."""
        return self.training + self.test


def read_list(path: Path) -> ListContent:
    """Read a list with all its defects, those `read_datalist` refuses it for."""
    listed, broken = inspect_datalist(path)
    findings = []
    for rule in broken:
        file = path.name if rule.image is None else os.path.normpath(rule.image)
        found = rule.what if rule.image is None else f"{rule.item} {rule.what}"
        findings.append(Finding(file, ERROR, rule.defect, found))
    content = ListContent([*map(_known, listed.training)], [*map(_known, listed.test)], findings=findings)
    content.labels = {int(index): name for index, name in listed.labels.items()} or content.labels
    return content


def _known(item: DataItem) -> DataItem:
    """An item without a type that does not exist: its label is not to be searched for it."""
    return item if item.lesion_type in LESION_TYPES else replace(item, lesion_type=None)


def together_findings(list_name: str, items: Iterable[DataItem], images: Mapping[str, ImageFacts]) -> Iterable[Finding]:
    """Images that are one and the same, and axes that run another way in some images than in others."""
    patients = {os.path.normpath(item.image): item.patient for item in items}
    first_with: dict[str, str] = {}
    for name, facts in sorted(images.items()):
        first = next((first_with[digest] for digest in facts.digests if digest in first_with), name)
        for digest in facts.digests:
            first_with.setdefault(digest, first)
        if first == name:
            continue
        one, other = patients[first], patients[name]
        if one == other:
            found = f"the same voxels as {first}, both of patient {one}; take one off the list"
        else:
            found = f"the same voxels as {first}, of patient {other} here and {one} there; find out whose it is"
        yield Finding(name, WARNING if one == other else ERROR, "duplicate", found)
    first_of: dict[str, str] = {}
    codes: Counter[str] = Counter()
    for name, facts in sorted(images.items()):
        if facts.grid.affine is not None and facts.grid.codes != (0, 0):
            code = axis_codes(facts.grid.affine)
            codes[code] += 1
            first_of.setdefault(code, name)
    if len(codes) > 1:
        kinds = sorted(codes.items(), key=lambda kind: (-kind[1], kind[0]))
        usual, *rest = (f"{code} in {count} {'image' if count == 1 else 'images'}" for code, count in kinds)
        rare = [f"{text} ({first_of[code]})" for text, (code, _) in zip(rest, kinds[1:], strict=True)]
        found = f"array axes run {', '.join([usual, *rare])}; make sure every affine is right"
        yield Finding(list_name, WARNING, "orientation", found)


def twin_findings(list_name: str, content: ListContent) -> Iterable[Finding]:
    """Patients who may be the same under two names and are in two folds, or in a fold and in the test part."""
    places = _places(content)
    yield from _spelling_findings(list_name, places, "split the list again")
    told: set[str] = set()
    for one, other in combinations(sorted(places), 2):
        for twins in find_shared_patients(places[one], places[other]):
            if twins.reason not in told:  # once for a pair of sets, not for every pair of folds
                told.add(twins.reason)
                found = f"patient {twins.first} is in {one} and {twins.second} in {other}; {twins.reason}"
                yield Finding(list_name, ERROR, "twins", f"{found}: leave one of the sets out")


def against_findings(list_name: str, content: ListContent, other: Path) -> Iterable[Finding]:
    """Patients of a list who are in another one too, under their own name or perhaps under a second."""
    opposite = read_list(other)
    if not opposite.items:
        yield from opposite.findings
        return
    own, theirs = ({item.patient for item in listed.items} for listed in (content, opposite))
    both = sorted(own & theirs)
    if both:
        found = f"{len(both)} of its patients are in {other} as well, {both[0]} for one"
        yield Finding(list_name, ERROR, "twins", f"{found}: train and test on different patients")
    sides = {"it": own, str(other): theirs}
    yield from _spelling_findings(list_name, sides, "train and test on different patients")
    for twins in find_shared_patients(own, theirs):
        found = f"patient {twins.first} is in it and {twins.second} in {other}; {twins.reason}"
        yield Finding(list_name, ERROR, "twins", f"{found}: leave the {twins.count} patients of one side out")


def _places(content: ListContent) -> dict[str, set[str]]:
    """The patients of each fold and of the test part."""
    places: dict[str, set[str]] = defaultdict(set)
    for item in content.training:
        if item.fold is not None:
            places[f"fold {item.fold}"].add(item.patient)
    for item in content.test:
        places["test"].add(item.patient)
    return places


def _spelling_findings(list_name: str, places: Mapping[str, set[str]], what_to_do: str) -> Iterator[Finding]:
    """Names that differ only in spelling and are not all on one side."""
    for alike in similar_names(name for names in places.values() for name in names):
        homes = {name: sorted(place for place, names in places.items() if name in names) for name in alike}
        told = [f"{name!r} in {' and in '.join(homes[name])}" for name in alike]
        if len({place for found in homes.values() for place in found}) > 1:
            found = f"patients {', '.join(told)} differ only in spelling; if they are one, give them one name"
            yield Finding(list_name, WARNING, "similar patients", f"{found} and {what_to_do}")
