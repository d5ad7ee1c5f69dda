"""The data list: images, label maps, patients and folds.

It is a JSON file in the layout of the Medical Segmentation Decathlon, which `monai.data.load_decathlon_datalist` reads
too: lists `training` and `test`, with paths relative to `dataset_dir`. Each item also has its patient and its fold.
"""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from liverseg.errors import LiversegError, one_line
from liverseg.labels import LESION, LESION_TYPES, LIVER, labels_for
from liverseg.utils.files import atomic_write

__all__ = [
    "LABELLED",
    "DataItem",
    "DataList",
    "RuleViolation",
    "contradicts_labelled",
    "datalist_text",
    "format_json",
    "inspect_datalist",
    "label_table",
    "read_datalist",
    "read_item",
    "rule_violations",
    "write_datalist",
]

LABELLED = (("liver",), ("liver", "lesion"))
"""Structures that a partial label map may distinguish. In the first kind, the liver's outline includes the lesions. In
the second, every lesion has value 2, whatever its type, as in LiTS."""

_NATURAL = "a whole number from 0"


@dataclass(frozen=True)
class DataItem:
    """One labelled volume, or one annotated slice of it.

    Attributes:
        image: CT, a path relative to `dataset_dir`.
        label: label map on the image's grid, a path relative to `dataset_dir`; None for a test image without one.
        patient: the patient's name. All items of a patient must be in one fold.
        fold: validation fold, from 0; None in the test list.
        slice: number of the annotated slice along the file's slice axis, from 0; None for a volume.
        lesion_type: type of the slice's lesions, one of `LESION_TYPES`; None if not known.
        labelled: structures that the label map distinguishes, a value of `LABELLED`; None for the complete label table.
        clipped_hu: lowest and highest HU of an image that was clipped before it was stored; the true value of a voxel
            at a limit may be beyond it. None for an image that was not clipped.
    """

    image: str
    label: str | None
    patient: str
    fold: int | None = None
    slice: int | None = None
    lesion_type: str | None = None
    labelled: tuple[str, ...] | None = None
    clipped_hu: tuple[float, float] | None = None

    @property
    def lesions_are_outlined(self) -> bool:
        """Whether the label map distinguishes lesions from liver."""
        return self.labelled != LABELLED[0]


@dataclass(frozen=True)
class RuleViolation:
    """A violation of the rules for data lists.

    Attributes:
        defect: a short fixed word.
        what: what is wrong and what to do. For an image, a sentence without its subject.
        image: the image concerned; None for a defect of the list.
        item: the subject of `what`, for a reader who sees the image's name above it.
    """

    defect: str
    what: str
    image: str | None = None
    item: str = "it"

    def __str__(self) -> str:
        return self.what if self.image is None else f"{self.image} {self.what}"


def read_item(where: str, raw: Any) -> tuple[DataItem | None, list[RuleViolation]]:
    """Parse one item of a list's JSON, without values of the wrong kind.

    Args:
        where: number and part of the item, for messages.
        raw: an object, or a path, as in the Decathlon's test lists.

    Returns:
        The item, None if it has no image, and the rules that it violates.
    """
    if isinstance(raw, str):
        raw = {"image": raw}
    if not isinstance(raw, dict) or not isinstance(raw.get("image"), str):
        return None, [RuleViolation("list", f"{where}, {format_json(raw)}, has no image, or not as text")]
    image = raw["image"]
    violations = []

    def violation(what: str) -> None:
        violations.append(RuleViolation("list", what, image, where))

    valid: dict[str, Any] = {}
    for key, kind, needed in (
        ("fold", int, _NATURAL),
        ("slice", int, _NATURAL),
        ("label", str, "text"),
        ("lesion_type", str, "text"),
    ):
        value = raw.get(key)
        is_valid = isinstance(value, kind) and not isinstance(value, bool)
        is_valid = is_valid and not (isinstance(value, int) and value < 0)
        valid[key] = value if is_valid else None
        if value is not None and not is_valid:
            violation(f"has {key} {format_json(value)}; {needed} is needed")
    labelled = raw.get("labelled")
    if labelled is not None and (not isinstance(labelled, list) or tuple(labelled) not in LABELLED):
        allowed = " or ".join(json.dumps(list(names)) for names in LABELLED)
        violation(f"has labelled {format_json(labelled)}; {allowed} is needed, or none")
        labelled = None
    clipped = raw.get("clipped_hu")
    if clipped is not None and not _is_range(clipped):
        violation(f"has clipped_hu {format_json(clipped)}; two numbers in HU are needed, the lower first, or none")
        clipped = None
    patient = raw.get("patient", image)
    if isinstance(patient, bool) or not isinstance(patient, str | int) or patient == "":
        violation(f"has patient {format_json(patient)}; text or a whole number is needed")
        patient = image
    labelled = None if labelled is None else tuple(labelled)
    clipped = None if clipped is None else (clipped[0], clipped[1])
    return DataItem(image=image, patient=str(patient), labelled=labelled, clipped_hu=clipped, **valid), violations


def _is_range(value: Any) -> bool:
    """Whether a value of a JSON file is two finite numbers, the lower first."""
    if not isinstance(value, list) or len(value) != 2:
        return False
    numbers = all(isinstance(end, int | float) and not isinstance(end, bool) and math.isfinite(end) for end in value)
    return numbers and value[0] < value[1]


def rule_violations(training: Sequence[DataItem], test: Sequence[DataItem]) -> Iterator[RuleViolation]:
    """Find contradictions between items, missing values of training items, and unknown lesion types."""
    if not training and not test:
        yield RuleViolation("list", "the data list is empty; it needs items under training or test")
    places: dict[str, dict[str, None]] = defaultdict(dict)
    owners: dict[str, dict[str, str]] = defaultdict(dict)
    ranges: dict[str, dict[tuple[float, float] | None, str]] = defaultdict(dict)
    for items, part in ((training, None), (test, "test")):
        for item in items:
            places[item.patient][part or f"fold {item.fold}"] = None
            owners[os.path.normpath(item.image)].setdefault(item.patient, item.image)
            ranges[os.path.normpath(item.image)].setdefault(item.clipped_hu, item.image)
    for patient, patient_places in places.items():
        known = [place for place in patient_places if place != "fold None"]  # a missing fold is reported below
        if len(known) > 1:
            what = f"patient {patient} is in {' and in '.join(known)}; one patient may be in one fold only"
            yield RuleViolation("two folds", f"{what}: split the list again")
    for patients in owners.values():
        if len(patients) > 1:
            what = f"belongs to patient {' and to patient '.join(patients)}; an image belongs to one patient"
            yield RuleViolation("two patients", f"{what}: find out whose it is", [*patients.values()][1])
    for clipped in ranges.values():
        if len(clipped) > 1:
            both = " and ".join("none" if limits is None else json.dumps(list(limits)) for limits in clipped)
            yield RuleViolation("list", f"has clipped_hu {both}; give all its items the same", [*clipped.values()][1])
    for item in (*training, *test):
        if item.lesion_type not in (None, *LESION_TYPES):
            what = f"has lesion_type {item.lesion_type!r}; allowed: {', '.join(LESION_TYPES)}"
            yield RuleViolation("list", what, item.image)
        if item.labelled is not None and item.lesion_type is not None:
            both = f"lesion_type {item.lesion_type} and labelled {json.dumps(list(item.labelled))}"
            yield RuleViolation("list", f"has {both}; give one of the two", item.image)
    for item in training:
        if item.label is None:
            what = "has no label; training images need one: add it, or list it under test"
            yield RuleViolation("missing", what, item.image)
        if item.fold is None:
            yield RuleViolation("no fold", "has no fold; training images need one: split the list first", item.image)


def contradicts_labelled(item: DataItem, values: Iterable[int]) -> str | None:
    """Return why the values of an item's label map contradict its `labelled`; None if they do not."""
    if item.labelled is None:
        return None
    highest = LESION if item.lesions_are_outlined else LIVER
    too_high = sorted(value for value in values if value > highest)
    if not too_high:
        return None
    return (
        f"it holds {', '.join(map(str, too_high))}, but its item is labelled {json.dumps(list(item.labelled))}, "
        f"whose label maps hold 0 to {highest}; correct labelled or the label map"
    )


def format_json(value: Any) -> str:
    """Format a value as JSON for messages, cut to 80 characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


@dataclass(frozen=True)
class DataList:
    """A named, versioned set of items.

    Attributes:
        name: name of the data set.
        version: version of the list.
        source: where the data come from.
        licence: licence of the data.
        labels: label table, index as text to name.
        training: items with a label and a fold.
        test: held-out items, with or without a label.
    """

    name: str
    version: str
    source: str
    licence: str
    labels: dict[str, str]
    training: tuple[DataItem, ...]
    test: tuple[DataItem, ...] = field(default=())

    @property
    def folds(self) -> tuple[int, ...]:
        """Fold numbers that occur, sorted."""
        return tuple(sorted({item.fold for item in self.training if item.fold is not None}))

    def split(self, fold: int) -> tuple[tuple[DataItem, ...], tuple[DataItem, ...]]:
        """Return training and validation items, with `fold` held out for validation.

        Raises:
            LiversegError: if no item has that fold.
        """
        if fold not in self.folds:
            allowed = ", ".join(map(str, self.folds)) or "none"
            raise LiversegError(f"data list {self.name}: no fold {fold}; it has {allowed}")
        held_out = tuple(item for item in self.training if item.fold == fold)
        return tuple(item for item in self.training if item.fold != fold), held_out

    def check(self, where: str) -> None:
        """Raise a `LiversegError` for the first rule that the list violates; `where` begins the message."""
        for violation in rule_violations(self.training, self.test):
            raise LiversegError(f"{where}: {violation}")


def label_table(channels: int) -> dict[str, str]:
    """Return a label table for a data list, index as text to name.

    Args:
        channels: 3 for pre-training, 5 for the joint network.
    """
    return {str(label.index): label.name for label in labels_for(channels)}


def write_datalist(path: str | os.PathLike, datalist: DataList) -> Path:
    """Write a data list atomically. Equal lists give equal bytes.

    Raises:
        LiversegError: if the list violates a rule or the file cannot be written.
    """
    path = Path(path)
    datalist.check(str(path))
    with atomic_write(path, "the data list", make_folder=True) as temporary:
        temporary.write_text(datalist_text(datalist), encoding="utf-8")
    return path


def datalist_text(datalist: DataList) -> str:
    """Return the text that `write_datalist` writes."""
    content: dict[str, Any] = {
        "name": datalist.name,
        "version": datalist.version,
        "source": datalist.source,
        "licence": datalist.licence,
        "labels": datalist.labels,
        "numTraining": len(datalist.training),
        "numTest": len(datalist.test),
    }
    for key in ("training", "test"):
        items = (asdict(item) for item in getattr(datalist, key))
        content[key] = [{name: value for name, value in item.items() if value is not None} for item in items]
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def read_datalist(path: str | os.PathLike) -> DataList:
    """Read and check a data list.

    Raises:
        LiversegError: if the file is missing, is not JSON, lacks a key, or has a value of the wrong kind, an unknown
            lesion type, a patient in two folds or an image of two patients.
    """
    datalist, violations = inspect_datalist(Path(path))
    if violations:
        raise LiversegError(f"{path}: {violations[0]}")
    return datalist


def inspect_datalist(path: Path) -> tuple[DataList, list[RuleViolation]]:
    """Read as much of a data list as possible, and find all rules that it violates.

    Items without an image and values of the wrong kind are left out.
    """
    content: dict[str, Any] = {}
    violations = []
    try:
        parsed = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        violations.append(RuleViolation("missing", "no such data list; `liverseg datalist` writes one for a folder"))
    except (OSError, ValueError, RecursionError) as error:
        violations.append(
            RuleViolation("unreadable", f"not a readable JSON data list ({one_line(error)}); write it again")
        )
    else:
        if isinstance(parsed, dict) and {"training", "test"} & {*parsed}:
            content = parsed
        else:
            violations.append(RuleViolation("list", "not a data list; it needs the lists training and test"))
    parts: dict[str, list[DataItem]] = {"training": [], "test": []}
    for part, items in parts.items():
        rows = content.get(part, [])
        if not isinstance(rows, list):
            violations.append(RuleViolation("list", f"{part} is {format_json(rows)}; a list is needed"))
            continue
        for number, row in enumerate(rows):
            item, item_violations = read_item(f"item {number} of {part}", row)
            violations += item_violations
            items += [item] if item else []
    labels = content.get("labels", {})
    if not isinstance(labels, dict) or not all(index.isdecimal() for index in labels):
        violations.append(
            RuleViolation("list", f'labels is {format_json(labels)}; an object such as {{"1": "liver"}} is needed')
        )
        labels = {}
    datalist = DataList(
        name=str(content.get("name", path.stem)),
        version=str(content.get("version", "")),
        source=str(content.get("source", "")),
        licence=str(content.get("licence", content.get("license", ""))),
        labels={index: str(name) for index, name in labels.items()},
        training=tuple(parts["training"]),
        test=tuple(parts["test"]),
    )
    if datalist.training or datalist.test or not violations:
        violations += rule_violations(datalist.training, datalist.test)
    return datalist, violations
