"""The data list: which images and labels there are, whose they are, and in which fold.

A JSON file in the Medical Segmentation Decathlon's layout, which `monai.data.load_decathlon_datalist` reads too: lists
`training` and `test`, paths relative to `dataset_dir`. Here each item also names its patient and its fold.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from liverseg.errors import LiversegError
from liverseg.files import whole_file
from liverseg.labels import LESION_TYPES, labels_for

__all__ = ["DataItem", "DataList", "read_datalist", "shown", "write_datalist"]


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
    """

    image: str
    label: str | None
    patient: str
    fold: int | None = None
    slice: int | None = None
    lesion_type: str | None = None


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
        if not self.training and not self.test:
            raise LiversegError(f"{where}: the data list is empty; it needs items under training or test")
        home: dict[str, str] = {}
        owner: dict[str, str] = {}
        places = [(item, f"fold {item.fold}") for item in self.training] + [(item, "test") for item in self.test]
        for item, place in places:
            if home.setdefault(item.patient, place) != place:
                raise LiversegError(
                    f"{where}: patient {item.patient} is in {home[item.patient]} and in {place}; "
                    "one patient may be in one fold only"
                )
            image = os.path.normpath(item.image)
            if owner.setdefault(image, item.patient) != item.patient:
                raise LiversegError(
                    f"{where}: image {item.image} belongs to patient {owner[image]} and to patient {item.patient}; "
                    "one image is one patient's"
                )
            if item.lesion_type is not None and item.lesion_type not in LESION_TYPES:
                raise LiversegError(
                    f"{where}: {item.image} has lesion_type {item.lesion_type!r}; allowed: {_listed(LESION_TYPES)}"
                )
        for item in self.training:
            if item.label is None:
                raise LiversegError(f"{where}: training image {item.image} has no label")
            if item.fold is None:
                raise LiversegError(f"{where}: training image {item.image} has no fold; split the list first")


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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as unfinished:
            unfinished.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise LiversegError(f"{path}: the data list cannot be written ({error.strerror})") from error
    return path


def read_datalist(path: str | os.PathLike) -> DataList:
    """Read and check a data list.

    Raises:
        LiversegError: if the file is missing, is not JSON, lacks a key, holds a value of the wrong kind, names an
            unknown type, has a patient in two folds or an image of two patients.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LiversegError(f"{path}: no such data list; `liverseg datalist` writes one for a folder") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise LiversegError(f"{path}: not a readable JSON data list ({error})") from error
    if not isinstance(content, dict) or not {"training", "test"} & {*content}:
        raise LiversegError(f"{path}: not a data list; it needs the lists training and test")
    for key, kind, needed in (("training", list, "a list"), ("test", list, "a list"), ("labels", dict, "an object")):
        if not isinstance(content.get(key, kind()), kind):
            raise LiversegError(f"{path}: {key} is {shown(content[key])}; {needed} is needed")
    datalist = DataList(
        name=str(content.get("name", path.stem)),
        version=str(content.get("version", "")),
        source=str(content.get("source", "")),
        licence=str(content.get("licence", content.get("license", ""))),
        labels={str(index): str(name) for index, name in content.get("labels", {}).items()},
        training=tuple(_item(path, item) for item in content.get("training", [])),
        test=tuple(_item(path, item) for item in content.get("test", [])),
    )
    datalist.check(str(path))
    return datalist


def _item(path: Path, raw: Any) -> DataItem:
    if isinstance(raw, str):  # the Decathlon's test lists are bare paths
        raw = {"image": raw}
    if not isinstance(raw, dict) or not isinstance(raw.get("image"), str):
        raise LiversegError(f"{path}: item {shown(raw)} has no image, or not as text")
    for key in ("fold", "slice"):
        value = raw.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            raise LiversegError(f"{path}: {raw['image']} has {key} {shown(value)}; a whole number from 0 is needed")
    for key in ("label", "lesion_type"):
        if raw.get(key) is not None and not isinstance(raw[key], str):
            raise LiversegError(f"{path}: {raw['image']} has {key} {shown(raw[key])}; text is needed")
    patient = raw.get("patient", raw["image"])
    if isinstance(patient, bool) or not isinstance(patient, str | int) or patient == "":
        raise LiversegError(f"{path}: {raw['image']} has patient {shown(patient)}; text or a whole number is needed")
    return DataItem(
        image=raw["image"],
        label=raw.get("label"),
        patient=str(patient),
        fold=raw.get("fold"),
        slice=raw.get("slice"),
        lesion_type=raw.get("lesion_type"),
    )


def shown(value: Any) -> str:
    """A value of a JSON file as it stands there, cut to 80 characters, for messages."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
