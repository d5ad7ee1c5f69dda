"""Importer for Task03_Liver of the Medical Segmentation Decathlon, as its `dataset.json` lists it.

Its scans are those of LiTS: a network trained on one of the two sets must not be tested on the other.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from liverseg.datalists.model import DataItem, format_json
from liverseg.errors import LiversegError
from liverseg.utils.files import is_dir, is_file

__all__ = ["LICENCE", "SOURCE", "decathlon_items"]

SOURCE = "Medical Segmentation Decathlon, Task03_Liver: Antonelli et al., Nature Communications 13 (2022) 4128"
LICENCE = "CC BY-SA 4.0"

_NAME = re.compile(r"liver_(\d+)\.nii(\.gz)?$", re.IGNORECASE)
_LABELS = {"0": ("background",), "1": ("liver",), "2": ("cancer", "tumour", "tumor", "lesion")}


def decathlon_items(root: str | os.PathLike) -> tuple[tuple[DataItem, ...], tuple[DataItem, ...]]:
    """List the volumes of a Task03_Liver folder in the order of their numbers; each volume is one patient.

    Files that are not listed are ignored, and so are listed names that begin with `._`, which macOS adds to archives.

    Returns:
        Labelled volumes and volumes without labels (the challenge's test set), without folds.

    Raises:
        LiversegError: if the folder or its dataset.json is missing or unreadable, has another modality or other labels,
            lists a file that is missing, outside the folder or not called liver_N, or has a number twice.
    """
    root = Path(root)
    path = root / "dataset.json"
    content = _read(root, path)
    by_number: dict[int, DataItem] = {}
    for key in ("training", "test"):
        if not isinstance(content.get(key, []), list):
            raise LiversegError(f"{path}: {key} is {format_json(content[key])}; a list is needed")
        for raw in content.get(key, []):
            item = _item(path, raw, labelled=key == "training")
            if posixpath.basename(item.image).startswith("._"):
                continue
            number = _number(path, item.image)
            if item.label and _number(path, item.label) != number:
                raise LiversegError(f"{path}: {item.image} has the label {item.label}; both must have one number")
            if number in by_number:
                raise LiversegError(f"{path}: liver_{number} is listed twice; each volume is one patient's")
            by_number[number] = replace(item, patient=f"decathlon-liver-{number:03d}")
    items = [item for _, item in sorted(by_number.items())]
    if not items:
        raise LiversegError(f"{path}: it lists no volume under training or test")
    missing = [name for item in items for name in (item.image, item.label) if name and not is_file(root / name)]
    if missing:
        raise LiversegError(
            f"{path}: {len(missing)} of the files it names cannot be found, first {missing[0]}; unpack the task again"
        )
    return tuple(item for item in items if item.label), tuple(item for item in items if not item.label)


def _read(root: Path, path: Path) -> dict[str, Any]:
    """Read dataset.json and check modality and labels."""
    if not is_dir(root):
        raise LiversegError(f"{root}: no such folder; give the one of Task03_Liver, with dataset.json in it")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LiversegError(f"{path}: no such file; is {root} the folder Task03_Liver itself?") from error
    except (OSError, ValueError, RecursionError) as error:
        raise LiversegError(f"{path}: not readable as JSON ({error}); unpack the task again") from error
    if not isinstance(content, dict):
        raise LiversegError(f"{path}: holds {format_json(content)}; an object with training and test is needed")
    modality, labels = content.get("modality"), content.get("labels")
    if not isinstance(modality, dict) or [str(name).lower() for name in modality.values()] != ["ct"]:
        raise LiversegError(f'{path}: modality is {format_json(modality)}; {{"0": "CT"}} is needed')
    label_names = {str(value): str(name).lower() for value, name in labels.items()} if isinstance(labels, dict) else {}
    if label_names.keys() != _LABELS.keys() or any(label_names[value] not in _LABELS[value] for value in _LABELS):
        raise LiversegError(f"{path}: labels are {format_json(labels)}; 0 background, 1 liver and 2 cancer are needed")
    return content


def _item(path: Path, raw: Any, labelled: bool) -> DataItem:
    paths = raw if isinstance(raw, dict) else {"image": raw}
    image, label = paths.get("image"), paths.get("label") if labelled else None
    if not isinstance(image, str) or (labelled and not isinstance(label, str)):
        needed = "image and label are needed as text" if labelled else "a path is needed"
        raise LiversegError(f"{path}: {format_json(raw)} under {'training' if labelled else 'test'}; {needed}")
    return DataItem(_normalise_path(path, image), _normalise_path(path, label) if label else None, patient="")


def _normalise_path(path: Path, name: str) -> str:
    """Remove `./` from a listed path; refuse one outside the folder."""
    normalised = posixpath.normpath(name)
    if posixpath.isabs(normalised) or normalised.split("/")[0] == "..":
        raise LiversegError(f"{path}: {name} is outside {path.parent}; paths must stay in the folder")
    return normalised


def _number(path: Path, name: str) -> int:
    match = _NAME.match(posixpath.basename(name))
    if not match:
        raise LiversegError(f"{path}: {name} is not called liver_N.nii.gz; is this Task03_Liver?")
    return int(match.group(1))
