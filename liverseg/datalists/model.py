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

from liverseg.datalists.items import Broken, DataItem, broken_rules, read_item, shown
from liverseg.errors import LiversegError
from liverseg.labels import labels_for
from liverseg.utils.files import whole_file

__all__ = [
    "DataItem",
    "DataList",
    "datalist_text",
    "inspect_datalist",
    "label_table",
    "read_datalist",
    "write_datalist",
]


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
        for broken in broken_rules(self.training, self.test):
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
        with whole_file(path) as unfinished:
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


def inspect_datalist(path: Path) -> tuple[DataList, list[Broken]]:
    """A data list as far as it can be read, and all that is wrong with it.

    Items without an image and values of the wrong kind are left out.
    """
    content: dict[str, Any] = {}
    broken = []
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        broken.append(Broken("missing", "no such data list; `liverseg datalist` writes one for a folder"))
    except (OSError, ValueError, RecursionError) as error:
        what = f"not a readable JSON data list ({' '.join(str(error).split())}); write it again"
        broken.append(Broken("unreadable", what))
    else:
        if isinstance(read, dict) and {"training", "test"} & {*read}:
            content = read
        else:
            broken.append(Broken("list", "not a data list; it needs the lists training and test"))
    parts: dict[str, list[DataItem]] = {"training": [], "test": []}
    for part, items in parts.items():
        rows = content.get(part, [])
        if not isinstance(rows, list):
            broken.append(Broken("list", f"{part} is {shown(rows)}; a list is needed"))
            continue
        for number, row in enumerate(rows):
            item, found = read_item(f"item {number} of {part}", row)
            broken += found
            items += [item] if item else []
    labels = content.get("labels", {})
    if not isinstance(labels, dict) or not all(index.isdecimal() for index in labels):
        broken.append(Broken("list", f'labels is {shown(labels)}; an object such as {{"1": "liver"}} is needed'))
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
        broken += broken_rules(datalist.training, datalist.test)
    return datalist, broken
