"""Checks of the data list itself, and of what its files are only together: read as far as it can be read."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from liverseg.datalists.checks.findings import ERROR, WARNING, Finding
from liverseg.datalists.checks.geometry import axis_codes
from liverseg.datalists.checks.images import ImageFacts
from liverseg.datalists.model import DataItem, read_datalist, shown
from liverseg.datalists.twins import find_twins
from liverseg.errors import LiversegError
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
    """Read a list with all its defects; one that `read_datalist` refuses never comes without an error."""
    content = ListContent()

    def wrong(found: str, defect: str = "list", file: str = path.name) -> None:
        content.findings.append(Finding(file, ERROR, defect, found))

    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        wrong("no such data list; `liverseg datalist` writes one for a folder", "missing")
        return content
    except (OSError, ValueError, RecursionError) as error:
        wrong(f"not a readable JSON data list ({' '.join(str(error).split())}); write it again", "unreadable")
        return content
    if not isinstance(raw, dict):
        wrong("not a data list; it needs the lists training and test")
        return content
    for key in ("training", "test"):
        rows = raw.get(key, [])
        if not isinstance(rows, list):
            wrong(f"{key} is {shown(rows)}; a list is needed")
            continue
        for number, row in enumerate(rows):
            item = _item(f"item {number} of {key}", row, wrong)
            if item:
                getattr(content, key).append(item)
    _read_labels(raw, content, wrong)
    _check_items(content, wrong)
    try:
        read_datalist(path)
    except LiversegError as error:
        if not content.findings:
            wrong(str(error).removeprefix(f"{path}: "))
    return content


def together_findings(list_name: str, items: Iterable[DataItem], images: Mapping[str, ImageFacts]) -> Iterable[Finding]:
    """Images that are one and the same, and axes that run another way in some images than in others."""
    patients = {os.path.normpath(item.image): item.patient for item in items}
    copies = defaultdict(list)
    for name, facts in sorted(images.items()):
        copies[facts.digest].append(name)
    for first, *others in copies.values():
        for name in others:
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
    places: dict[str, set[str]] = defaultdict(set)
    for item in content.training:
        if item.fold is not None:
            places[f"fold {item.fold}"].add(item.patient)
    for item in content.test:
        places["test"].add(item.patient)
    told: set[str] = set()
    for one, other in combinations(sorted(places), 2):
        for twins in find_twins(places[one], places[other]):
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
    for twins in find_twins(own, theirs):
        found = f"patient {twins.first} is in it and {twins.second} in {other}; {twins.reason}"
        yield Finding(list_name, ERROR, "twins", f"{found}: leave the {twins.count} patients of one side out")


def _item(where: str, raw: Any, wrong: Callable[..., None]) -> DataItem | None:
    """One item, with whatever is of the wrong kind left out and told."""
    if isinstance(raw, str):  # the Decathlon's test lists are bare paths
        raw = {"image": raw}
    if not isinstance(raw, dict) or not isinstance(raw.get("image"), str):
        wrong(f"{where}, {shown(raw)}, has no image, or not as text")
        return None
    kept: dict[str, Any] = {}
    for key, kind, needed in (
        ("label", str, "text"),
        ("lesion_type", str, "text"),
        ("fold", int, "a whole number from 0"),
        ("slice", int, "a whole number from 0"),
    ):
        value = raw.get(key)
        right = isinstance(value, kind) and not isinstance(value, bool) and not (isinstance(value, int) and value < 0)
        kept[key] = value if right else None
        if value is not None and not right:
            wrong(f"{where}: {key} is {shown(value)}; {needed} is needed", file=raw["image"])
    patient = raw.get("patient", raw["image"])
    if isinstance(patient, bool) or not isinstance(patient, str | int) or patient == "":
        wrong(f"{where}: patient is {shown(patient)}; text or a whole number is needed", file=raw["image"])
        patient = raw["image"]
    if kept["lesion_type"] not in (None, *LESION_TYPES):
        wrong(f"{where}: lesion_type {kept['lesion_type']!r}; allowed: {', '.join(LESION_TYPES)}", file=raw["image"])
        kept["lesion_type"] = None
    return DataItem(image=raw["image"], patient=str(patient), **kept)


def _read_labels(raw: dict[str, Any], content: ListContent, wrong: Callable[..., None]) -> None:
    labels = raw.get("labels", {})
    try:
        table = {int(index): str(name) for index, name in labels.items()}
    except (AttributeError, ValueError):
        wrong(f'labels is {shown(labels)}; an object such as {{"1": "liver"}} is needed')
    else:
        content.labels = table or content.labels


def _check_items(content: ListContent, wrong: Callable[..., None]) -> None:
    """Patients in two places, images of two patients, and training items that lack something."""
    if not content.items and not content.findings:
        wrong("the data list is empty; it needs items under training or test")
    places: dict[str, dict[str, None]] = defaultdict(dict)
    owners: dict[str, dict[str, None]] = defaultdict(dict)
    for item in content.items:
        owners[os.path.normpath(item.image)][item.patient] = None
    for item in content.training:
        if item.fold is None:
            wrong("a training image without a fold; split the list first", "no fold", item.image)
        else:
            places[item.patient][f"fold {item.fold}"] = None
        if item.label is None:
            wrong("a training image without a label; add it, or list it under test", "missing", item.image)
    for item in content.test:
        places[item.patient]["test"] = None
    for patient, where in places.items():
        if len(where) > 1:
            found = f"patient {patient} is in {' and in '.join(where)}; one patient may be in one fold only"
            wrong(f"{found}: split the list again", "two folds")
    for image, patients in owners.items():
        if len(patients) > 1:
            found = f"it belongs to patient {' and to patient '.join(patients)}; one image is one patient's"
            wrong(f"{found}: find out whose it is", "two patients", image)
