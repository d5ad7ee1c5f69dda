"""What a study is: read from a YAML file and checked before anything runs."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser

from liverseg.bundle.validation import INITIALISATIONS
from liverseg.errors import LiversegError, UsageError, suggest
from liverseg.inference import find_bundle
from liverseg.utils.files import is_file

__all__ = ["Row", "StudyDefinition", "read_study"]

_SCORED = ("test", "validation")
_SAID_ELSEWHERE = {
    "dataset_dir": "the study's dataset_dir",
    "datalist": "the study's datalist",
    "output_dir": "the study's output_dir",
    "ckpt_dir": "the study's output_dir",
    "weights": "lits_weights or imagenet_weights",
    "data": "the study's datalist",
    "train::dataset::data": "the study's datalist",
    "validate::dataset::data": "the study's datalist",
    "resume": "a new output_dir, to begin anew",
    "fold": "the study's folds",
    "seed": "seeds",
    "strategy": "the row's strategy",
    "initialisation": "the row's initialisation",
    "pretrain_weights": "the study's lits_weights",
    "imagenet_weights": "the study's imagenet_weights",
    "fine_tuning": "the row's plan",
    "network_def": "the row's strategy",
    "network_def::_target_": "the row's strategy",
}
"""Keys of the bundle that tell one cell from another: overridden, a cell would not be what its name says."""
_MOST = 2**32 - 1
"""The largest seed that all random generators take."""
_ROW_KEYS = ("strategy", "initialisation", "plan", "label", "seeds", "overrides")


@dataclass(frozen=True)
class Row:
    """One row of the study's tables: a network and how it is trained, over all folds and its seeds.

    Attributes:
        strategy: an overlay in the bundle's `configs/strategies`.
        initialisation: one of `liverseg.bundle.validation.INITIALISATIONS`.
        plan: a fine-tuning plan of the bundle.
        label: tells rows of the same three apart, e.g. variants with other overrides; empty for none.
        seeds: trained once for each.
        overrides: of the bundle's config keys, for this row alone.
    """

    strategy: str
    initialisation: str
    plan: str
    label: str
    seeds: tuple[int, ...]
    overrides: tuple[tuple[str, Any], ...]

    @property
    def name(self) -> str:
        """Name of the row and of its folder, e.g. joint-lits-none."""
        parts = (self.strategy, self.initialisation, self.plan, self.label)
        return "-".join(part for part in parts if part)


@dataclass(frozen=True)
class StudyDefinition:
    """A study as its YAML file tells it; paths are absolute.

    Attributes:
        name: for headings.
        bundle: name of the bundle.
        configs: its configs below every strategy's overlay.
        dataset_dir: folder of the data.
        datalist: its data list.
        output_dir: folder for everything the study writes.
        lits_weights: exported weights of pre-training; None where no row asks for them.
        imagenet_weights: local file; None downloads them.
        folds: those of the data list to hold out in turn; None for all.
        validation_share: share of the other patients that chooses the best epoch.
        scored: `test` scores the held-out fold; `validation` only the validation patients, and leaves the fold out
            altogether: for choosing between variants.
        overrides: of the bundle's config keys, for every row.
        rows: the rows, in order.
    """

    name: str
    bundle: str
    configs: tuple[str, ...]
    dataset_dir: Path
    datalist: Path
    output_dir: Path
    lits_weights: Path | None
    imagenet_weights: Path | None
    folds: tuple[int, ...] | None
    validation_share: float
    scored: str
    overrides: tuple[tuple[str, Any], ...]
    rows: tuple[Row, ...]


def read_study(path: str | os.PathLike) -> StudyDefinition:
    """Read a study's YAML file; relative paths in it are relative to its folder.

    Raises:
        LiversegError: if the file cannot be read.
        UsageError: if it has an unknown key, value, strategy, initialisation or plan; the message tells what is
            allowed.
    """
    path = Path(path)
    content = _read_yaml(path)
    known = [field.name for field in fields(StudyDefinition)] + ["seeds"]
    _refuse_unknown(str(path), content, known)
    for key in ("dataset_dir", "output_dir", "rows"):
        if not content.get(key):
            raise UsageError(f"{path}: {key} is missing; a study needs it")

    def place(key: str) -> Path | None:
        given = content.get(key)
        if given is not None and not isinstance(given, str):
            raise UsageError(f"{path}: {key} is {given!r}; a path is needed")
        return None if given is None else Path(os.path.abspath(path.parent / given))

    dataset_dir, output_dir = place("dataset_dir"), place("output_dir")
    assert dataset_dir is not None and output_dir is not None
    bundle = str(content.get("bundle", "liver_lesion_joint"))
    configs = tuple(_listed(content.get("configs", ["train"])))
    scored = content.get("scored", "test")
    if scored not in _SCORED:
        raise UsageError(f"{path}: scored is {scored!r}; it must be {' or '.join(_SCORED)}")
    share = content.get("validation_share", 0.15)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise UsageError(f"{path}: validation_share is {share!r}; a number above 0 and below 1 is needed")
    folds = content.get("folds")
    folder = find_bundle(bundle)
    config = ConfigParser.load_config_files(
        [folder / "configs" / f"{name}.yaml" for name in _existing(folder, configs)]
    )
    seeds = _numbers(str(path), "seeds", content.get("seeds", [0]))
    return StudyDefinition(
        name=str(content.get("name", path.stem)),
        bundle=bundle,
        configs=configs,
        dataset_dir=dataset_dir,
        datalist=place("datalist") or dataset_dir / "datalist.json",
        output_dir=output_dir,
        lits_weights=place("lits_weights"),
        imagenet_weights=place("imagenet_weights"),
        folds=None if folds is None else _numbers(str(path), "folds", folds),
        validation_share=float(share),
        scored=scored,
        overrides=_overrides(str(path), content.get("overrides"), config),
        rows=_read_rows(path, content["rows"], seeds, folder, config),
    )


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LiversegError(f"{path}: the study cannot be read ({error.strerror}); give a YAML file") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise LiversegError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: not a study; it needs keys such as dataset_dir, output_dir and rows")
    return content


def _refuse_unknown(where: str, content: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in content:
        if key not in known:
            match = suggest(str(key), known)
            hint = f"did you mean {match}?" if match else f"there are {', '.join(known)}"
            raise UsageError(f"{where}: unknown key {key!r}; {hint}")


def _read_rows(
    path: Path, content: Any, seeds: tuple[int, ...], folder: Path, config: Mapping[str, Any]
) -> tuple[Row, ...]:
    """The rows: each entry of the YAML is a product over its lists."""
    strategies = sorted(file.stem for file in (folder / "configs" / "strategies").glob("*.yaml"))
    allowed = {"strategy": strategies, "initialisation": INITIALISATIONS, "plan": list(config.get("plans", {}))}
    for key, names in allowed.items():
        if not names:
            raise UsageError(f"{path}: the bundle {folder.name} has no {key} to choose; take one that can be studied")
    rows: dict[str, Row] = {}
    for number, entry in enumerate(_listed(content)):
        where = f"{path}: rows::{number}"
        if not isinstance(entry, dict):
            raise UsageError(f"{where} is {entry!r}; a mapping with strategy and initialisation is needed")
        _refuse_unknown(where, entry, _ROW_KEYS)
        lists = []
        for key, names in allowed.items():
            values = _listed(entry.get(key, "none" if key == "plan" else None))
            for value in values or [values]:
                if value not in names:
                    raise UsageError(f"{where}: {key} is {value!r}; it must be one of {', '.join(names)}")
            lists.append(values)
        label = "" if entry.get("label") is None else str(entry["label"])
        if not re.fullmatch(r"[A-Za-z0-9_.]*", label):
            raise UsageError(f"{where}: label is {label!r}; letters, digits, dots and underlines are allowed")
        own = _numbers(where, "seeds", entry["seeds"]) if "seeds" in entry else seeds
        for strategy, initialisation, plan in itertools.product(*lists):
            row = Row(strategy, initialisation, plan, label, own, _overrides(where, entry.get("overrides"), config))
            if rows.setdefault(row.name, row) != row:
                raise UsageError(f"{where}: there is another row {row.name}; give one of them a label of its own")
    return tuple(rows.values())


def _existing(folder: Path, configs: tuple[str, ...]) -> tuple[str, ...]:
    for name in configs:
        if not is_file(folder / "configs" / f"{name}.yaml"):
            raise UsageError(f"configs: the bundle {folder.name} has no configs/{name}.yaml")
    return configs


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _numbers(where: str, key: str, value: Any) -> tuple[int, ...]:
    numbers = _listed(value)
    if not numbers or not all(
        isinstance(one, int) and not isinstance(one, bool) and 0 <= one <= _MOST for one in numbers
    ):
        raise UsageError(f"{where}: {key} is {value!r}; a list of whole numbers from 0 to {_MOST} is needed")
    return tuple(dict.fromkeys(numbers))


def _overrides(where: str, value: Any, config: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Overrides as they are, once their first words are known; the bundle itself looks at the rest of nested keys."""
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise UsageError(f"{where}: overrides is {value!r}; a mapping of the bundle's keys is needed")
    for key in value:
        words = str(key).replace("#", "::").replace("-", "_").split("::")  # as MONAI reads them
        said = _SAID_ELSEWHERE.get("::".join(words))
        if said:
            raise UsageError(f"{where}: overrides has {key}, which differs from cell to cell; use {said}")
        if words[0] not in config:
            match = suggest(words[0], config)
            hint = f"did you mean {match}?" if match else "the bundle's configs name its keys"
            raise UsageError(f"{where}: overrides has {key}, which the bundle does not know; {hint}")
        try:
            kept = json.loads(json.dumps(value[key])) == value[key]
        except (TypeError, ValueError):
            kept = False
        if not kept:
            raise UsageError(
                f"{where}: overrides has {key} {value[key]!r}; numbers, words, lists and mappings are taken"
            )
    return tuple((str(key), one) for key, one in value.items())
