"""The data list: which images and labels there are, whose they are, and in which fold.

A JSON file in the Medical Segmentation Decathlon's layout, which `monai.data.load_decathlon_datalist` reads too: lists
`training` and `test`, paths relative to `dataset_dir`. Here each item also names its patient and its fold.
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

from liverseg.errors import LiversegError
from liverseg.labels import LESION, LESION_TYPES, LIVER, labels_for
from liverseg.utils.files import atomic_write

__all__ = [
    "LABELLED",
    "DataItem",
    "DataList",
    "RuleViolation",
    "contradicts_labelled",
    "datalist_text",
    "inspect_datalist",
    "label_table",
    "read_datalist",
    "read_item",
    "rule_violations",
    "shown",
    "write_datalist",
]

LABELLED = (("liver",), ("liver", "lesion"))
"""What a partial label map may tell apart. In the first kind lesions are part of the liver's outline; in the second
every lesion has value 2, whatever its type, as in LiTS."""

_WHOLE = "a whole number from 0"


@dataclass(frozen=True)
class DataItem:
    """One labelled volume, or one annotated slice of it.

    Attributes:
        image: CT, a path relative to `dataset_dir`.
        label: label map on the image's grid, relative too; None for a test image without one.
        patient: whose it is; nothing of one patient may lie in two folds.
        fold: validation fold, from 0; None in the test list.
        slice: number of the annotated slice along the file's own slice axis, from 0; None for a whole volume.
        lesion_type: type of the slice's lesions, one of `LESION_TYPES`; None where it is not known.
        labelled: what the label map tells apart, a value of `LABELLED`; None for everything in the list's label table.
        clipped_hu: lowest and highest HU the image can hold, where it was clipped to a range before it was stored; a
            voxel at a limit may have had any value beyond it. None for an image that was not clipped.
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
        """Whether the label map tells lesions from liver."""
        return self.labelled != LABELLED[0]


@dataclass(frozen=True)
class RuleViolation:
    """A rule that a data list breaks.

    Attributes:
        defect: a short fixed word.
        what: what is wrong and what to do; begins with a verb where it is of an image.
        image: the image it is of; None where it is of the list.
        item: who does `what`, to a reader who sees the image's name above.
    """

    defect: str
    what: str
    image: str | None = None
    item: str = "it"

    def __str__(self) -> str:
        return self.what if self.image is None else f"{self.image} {self.what}"


def read_item(where: str, raw: Any) -> tuple[DataItem | None, list[RuleViolation]]:
    """One item of a list's JSON, with whatever is of the wrong kind left out; none without an image.

    Args:
        where: which item it is, for messages.
        raw: an object; the Decathlon's test lists are bare paths.
    """
    if isinstance(raw, str):
        raw = {"image": raw}
    if not isinstance(raw, dict) or not isinstance(raw.get("image"), str):
        return None, [RuleViolation("list", f"{where}, {shown(raw)}, has no image, or not as text")]
    broken = []
    kept: dict[str, Any] = {}
    for key, kind, needed in (
        ("fold", int, _WHOLE),
        ("slice", int, _WHOLE),
        ("label", str, "text"),
        ("lesion_type", str, "text"),
    ):
        value = raw.get(key)
        right = isinstance(value, kind) and not isinstance(value, bool) and not (isinstance(value, int) and value < 0)
        kept[key] = value if right else None
        if value is not None and not right:
            broken.append(RuleViolation("list", f"has {key} {shown(value)}; {needed} is needed", raw["image"], where))
    labelled = raw.get("labelled")
    if labelled is not None and (not isinstance(labelled, list) or tuple(labelled) not in LABELLED):
        allowed = " or ".join(json.dumps(list(names)) for names in LABELLED)
        broken.append(
            RuleViolation("list", f"has labelled {shown(labelled)}; {allowed} is needed, or none", raw["image"], where)
        )
        labelled = None
    clipped = raw.get("clipped_hu")
    if clipped is not None and not _is_range(clipped):
        what = f"has clipped_hu {shown(clipped)}; two numbers in HU are needed, the lower first, or none"
        broken.append(RuleViolation("list", what, raw["image"], where))
        clipped = None
    patient = raw.get("patient", raw["image"])
    if isinstance(patient, bool) or not isinstance(patient, str | int) or patient == "":
        what = f"has patient {shown(patient)}; text or a whole number is needed"
        broken.append(RuleViolation("list", what, raw["image"], where))
        patient = raw["image"]
    labelled = None if labelled is None else tuple(labelled)
    clipped = None if clipped is None else (clipped[0], clipped[1])
    return DataItem(image=raw["image"], patient=str(patient), labelled=labelled, clipped_hu=clipped, **kept), broken


def _is_range(value: Any) -> bool:
    """Whether a value of a JSON file is two finite numbers, the lower first."""
    if not isinstance(value, list) or len(value) != 2:
        return False
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one) for one in value)
    return numbers and value[0] < value[1]


def rule_violations(training: Sequence[DataItem], test: Sequence[DataItem]) -> Iterator[RuleViolation]:
    """What items are not to each other, what training items lack, and types that do not exist."""
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
    for patient, found in places.items():
        known = [place for place in found if place != "fold None"]  # that it lacks one is told below
        if len(known) > 1:
            told = f"patient {patient} is in {' and in '.join(known)}; one patient may be in one fold only"
            yield RuleViolation("two folds", f"{told}: split the list again")
    for patients in owners.values():
        if len(patients) > 1:
            told = f"belongs to patient {' and to patient '.join(patients)}; one image is one patient's"
            yield RuleViolation("two patients", f"{told}: find out whose it is", [*patients.values()][1])
    for clipped in ranges.values():
        if len(clipped) > 1:
            told = " and ".join("none" if one is None else json.dumps(list(one)) for one in clipped)
            yield RuleViolation("list", f"has clipped_hu {told}; give all its items the same", [*clipped.values()][1])
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
    """Why the values of an item's label map cannot be what its `labelled` says; None where they can."""
    if item.labelled is None:
        return None
    highest = LESION if item.lesions_are_outlined else LIVER
    others = sorted(value for value in values if value > highest)
    if not others:
        return None
    return (
        f"it holds {', '.join(map(str, others))}, but its item is labelled {json.dumps(list(item.labelled))}, "
        f"whose label maps hold 0 to {highest}; correct labelled or the label map"
    )


def shown(value: Any) -> str:
    """A value of a JSON file as it stands there, cut to 80 characters, for messages."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


@dataclass(frozen=True)
class DataList:
    """A named, versioned set of items: see the module's text.

    Raises:
        LiversegError: from `check`, which `read_datalist` and `write_datalist` call.
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
        """The fold numbers that occur, sorted."""
        return tuple(sorted({item.fold for item in self.training if item.fold is not None}))

    def split(self, fold: int) -> tuple[tuple[DataItem, ...], tuple[DataItem, ...]]:
        """Training and validation items when `fold` is held out.

        Raises:
            LiversegError: if no item has that fold.
        """
        if fold not in self.folds:
            raise LiversegError(f"data list {self.name}: no fold {fold}; it has {_listed(self.folds)}")
        held_out = tuple(item for item in self.training if item.fold == fold)
        return tuple(item for item in self.training if item.fold != fold), held_out

    def check(self, where: str) -> None:
        """Refuse a list that would leak a patient or names what does not exist; `where` begins the message."""
        for broken in rule_violations(self.training, self.test):
            raise LiversegError(f"{where}: {broken}")


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values)) or "none"


def label_table(channels: int) -> dict[str, str]:
    """A label table as data lists write it: index as text to name; 3 channels for pre-training, 5 for the joint net."""
    return {str(label.index): label.name for label in labels_for(channels)}


def write_datalist(path: str | os.PathLike, datalist: DataList) -> Path:
    """Write a data list, same list same bytes, by rename.

    Raises:
        LiversegError: if the list is not sound or the file cannot be written.
    """
    path = Path(path)
    datalist.check(str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as unfinished:
            unfinished.write_text(datalist_text(datalist), encoding="utf-8")
    except OSError as error:
        raise LiversegError(f"{path}: the data list cannot be written ({error.strerror})") from error
    return path


def datalist_text(datalist: DataList) -> str:
    """A data list as `write_datalist` writes it."""
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
        LiversegError: if the file is missing, is not JSON, lacks a key, holds a value of the wrong kind, names an
            unknown type, has a patient in two folds or an image of two patients.
    """
    datalist, broken = inspect_datalist(Path(path))
    if broken:
        raise LiversegError(f"{path}: {broken[0]}")
    return datalist


def inspect_datalist(path: Path) -> tuple[DataList, list[RuleViolation]]:
    """A data list as far as it can be read, and all that is wrong with it.

    Items without an image and values of the wrong kind are left out.
    """
    content: dict[str, Any] = {}
    broken = []
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        broken.append(RuleViolation("missing", "no such data list; `liverseg datalist` writes one for a folder"))
    except (OSError, ValueError, RecursionError) as error:
        what = f"not a readable JSON data list ({' '.join(str(error).split())}); write it again"
        broken.append(RuleViolation("unreadable", what))
    else:
        if isinstance(read, dict) and {"training", "test"} & {*read}:
            content = read
        else:
            broken.append(RuleViolation("list", "not a data list; it needs the lists training and test"))
    parts: dict[str, list[DataItem]] = {"training": [], "test": []}
    for part, items in parts.items():
        rows = content.get(part, [])
        if not isinstance(rows, list):
            broken.append(RuleViolation("list", f"{part} is {shown(rows)}; a list is needed"))
            continue
        for number, row in enumerate(rows):
            item, found = read_item(f"item {number} of {part}", row)
            broken += found
            items += [item] if item else []
    labels = content.get("labels", {})
    if not isinstance(labels, dict) or not all(index.isdecimal() for index in labels):
        broken.append(RuleViolation("list", f'labels is {shown(labels)}; an object such as {{"1": "liver"}} is needed'))
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
    if datalist.training or datalist.test or not broken:
        broken += rule_violations(datalist.training, datalist.test)
    return datalist, broken
