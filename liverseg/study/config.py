"""A study's YAML file, read and checked before anything runs."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser

from liverseg.bundle.overrides import split_key
from liverseg.bundle.paths import find_bundle
from liverseg.bundle.validation import INITIALISATIONS, RULES, Rule, none_if_null
from liverseg.errors import LiversegError, UsageError, suggest
from liverseg.utils.files import is_file

__all__ = ["Row", "StudyConfig", "read_study"]

_SCORED = ("test", "validation")
_SET_ELSEWHERE = {
    "dataset_dir": "the study's dataset_dir",
    "datalist": "the study's datalist",
    "output_dir": "the study's output_dir",
    "ckpt_dir": "the study's output_dir",
    "weights": "lits_weights or imagenet_weights",
    "data": "the study's datalist",
    "train::dataset::data": "the study's datalist",
    "validate::dataset::data": "the study's datalist",
    "resume": "a new output_dir to start again",
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
"""Keys of the bundle that the study sets for each cell, and the study's key for each. An override would make a cell
differ from its name."""
_ROW_KEYS = ("strategy", "initialisation", "plan", "label", "seeds", "overrides")
_PEER_KEYS = ("strategy", "initialisation", "label", "seeds")


@dataclass(frozen=True)
class Row:
    """A row of the study's tables: a network and its training, over all folds and seeds.

    Attributes:
        strategy: name of an overlay in the bundle's `configs/strategies`.
        initialisation: one of `liverseg.bundle.validation.INITIALISATIONS`.
        plan: a fine-tuning plan of the bundle.
        label: distinguishes rows that agree in these three, for example variants with other overrides; may be empty.
        seeds: one training for each.
        overrides: of the bundle's config keys, for this row.
        peer: trained by other software outside the study, which reads its results only. `strategy` then names the
            software.
    """

    strategy: str
    initialisation: str
    plan: str
    label: str
    seeds: tuple[int, ...]
    overrides: tuple[tuple[str, Any], ...]
    peer: bool = False

    @property
    def name(self) -> str:
        """Name of the row and of its folder, for example joint-lits-none."""
        parts = (self.strategy, self.initialisation, self.plan, self.label)
        return "-".join(part for part in parts if part)


@dataclass(frozen=True)
class StudyConfig:
    """A study's settings. Paths are absolute.

    Attributes:
        name: for headings.
        bundle: name of the bundle.
        configs: configs of the bundle, which each strategy's overlay follows.
        dataset_dir: folder of the data.
        datalist: data list of the data.
        output_dir: folder for all files of the study.
        lits_weights: exported weights of a pre-training; None if no row needs them.
        imagenet_weights: local file; None downloads them.
        folds: folds of the data list to hold out in turn; None for all.
        validation_share: share of the other patients on whom the best epoch is chosen.
        scored: `test` scores the held-out fold. `validation`, for choosing between variants, scores the validation
            patients and does not use the fold.
        overrides: of the bundle's config keys, for every row.
        rows: in the order of the tables.
        peers: rows of other software, below the others.
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
    peers: tuple[Row, ...] = ()

    def configs_of(self, row: Row) -> tuple[str, ...]:
        """Return the configs a row is trained with, in the order in which they are merged."""
        return (*self.configs, f"strategies/{row.strategy}")

    def overrides_of(self, row: Row) -> dict[str, Any]:
        """Return the overrides of the study and of a row, which wins."""
        return {**dict(self.overrides), **dict(row.overrides)}


def read_study(path: str | os.PathLike) -> StudyConfig:
    """Read a study's YAML file. Relative paths in it are relative to its folder.

    Raises:
        LiversegError: if the file cannot be read.
        UsageError: if it has an unknown key, value, strategy, initialisation or plan, or a peer with the name of a
            strategy.
    """
    path = Path(path)
    content = _read_yaml(path)
    known = [field.name for field in fields(StudyConfig)] + ["seeds"]
    _refuse_unknown(str(path), content, known)
    for key in ("dataset_dir", "output_dir", "rows"):
        if not content.get(key):
            raise UsageError(f"{path}: {key} is missing; a study needs it")

    def read_path(key: str) -> Path | None:
        value = content.get(key)
        if value is not None and not isinstance(value, str):
            raise UsageError(f"{path}: {key} is {value!r}; a path is needed")
        return None if value is None else Path(os.path.abspath(path.parent / value))

    dataset_dir, output_dir = read_path("dataset_dir"), read_path("output_dir")
    assert dataset_dir is not None and output_dir is not None
    bundle = str(content.get("bundle", "liver_lesion_joint"))
    configs = tuple(_as_list(content.get("configs", ["train"])))
    scored = content.get("scored", "test")
    if scored not in _SCORED:
        raise UsageError(f"{path}: scored is {scored!r}; it must be {' or '.join(_SCORED)}")
    share = content.get("validation_share", 0.15)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise UsageError(f"{path}: validation_share is {share!r}; a number above 0 and below 1 is needed")
    folds = content.get("folds")
    folder = find_bundle(bundle)
    config = ConfigParser.load_config_files(
        [folder / "configs" / f"{name}.yaml" for name in _check_configs(folder, configs)]
    )
    seeds = _integers(str(path), "seeds", content.get("seeds", [0]), RULES["seed"])
    return StudyConfig(
        name=str(content.get("name", path.stem)),
        bundle=bundle,
        configs=configs,
        dataset_dir=dataset_dir,
        datalist=read_path("datalist") or dataset_dir / "datalist.json",
        output_dir=output_dir,
        lits_weights=read_path("lits_weights"),
        imagenet_weights=read_path("imagenet_weights"),
        folds=None if folds is None else _integers(str(path), "folds", folds, RULES["fold"]),
        validation_share=float(share),
        scored=scored,
        overrides=_overrides(str(path), content.get("overrides"), config),
        rows=_read_rows(path, content["rows"], seeds, folder, config),
        peers=_read_peers(path, content.get("peers") or [], seeds, folder),
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
    """Read the rows. Each entry of the YAML gives the product of its lists."""
    allowed = {
        "strategy": _strategies(folder),
        "initialisation": INITIALISATIONS,
        "plan": list(config.get("plans", {})),
    }
    for key, names in allowed.items():
        if not names:
            raise UsageError(f"{path}: the bundle {folder.name} has no {key} to choose; use another bundle")
    rows: dict[str, Row] = {}
    for where, entry in _entries(f"{path}: rows", content, _ROW_KEYS, "strategy and initialisation"):
        lists = []
        for key, names in allowed.items():
            values = _as_list(entry.get(key, "none" if key == "plan" else None))
            for value in values or [values]:
                if value not in names:
                    raise UsageError(f"{where}: {key} is {value!r}; it must be one of {', '.join(names)}")
            lists.append(values)
        label = _read_label(where, entry)
        row_seeds = _read_seeds(where, entry, seeds)
        for strategy, initialisation, plan in itertools.product(*lists):
            overrides = _overrides(where, entry.get("overrides"), config)
            row = Row(strategy, initialisation, plan, label, row_seeds, overrides)
            if rows.setdefault(row.name, row) != row:
                raise UsageError(f"{where}: there is another row {row.name}; give one of them a label")
    return tuple(rows.values())


def _read_seeds(where: str, entry: Mapping[str, Any], seeds: tuple[int, ...]) -> tuple[int, ...]:
    """Return an entry's own seeds, or else those of the study."""
    return _integers(where, "seeds", entry["seeds"], RULES["seed"]) if "seeds" in entry else seeds


def _entries(where: str, content: Any, keys: Sequence[str], needed: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place and the content of each entry of a list of mappings, without unknown keys."""
    for number, entry in enumerate(_as_list(content)):
        place = f"{where}::{number}"
        if not isinstance(entry, dict):
            raise UsageError(f"{place} is {entry!r}; a mapping with {needed} is needed")
        _refuse_unknown(place, entry, keys)
        yield place, entry


def _read_peers(path: Path, content: Any, seeds: tuple[int, ...], folder: Path) -> tuple[Row, ...]:
    peers: dict[str, Row] = {}
    for where, entry in _entries(f"{path}: peers", content, _PEER_KEYS, "strategy"):
        strategy, initialisation = entry.get("strategy"), entry.get("initialisation", "scratch")
        if not isinstance(strategy, str) or not re.fullmatch(r"[A-Za-z0-9_.]+", strategy):
            raise UsageError(f"{where}: strategy is {strategy!r}; letters, digits, dots and underlines are allowed")
        if strategy in _strategies(folder):
            raise UsageError(f"{where}: strategy {strategy} is one of the bundle's; give the peer another name")
        if initialisation not in INITIALISATIONS:
            allowed = ", ".join(INITIALISATIONS)
            raise UsageError(f"{where}: initialisation is {initialisation!r}; it must be one of {allowed}")
        row_seeds = _read_seeds(where, entry, seeds)
        row = Row(strategy, initialisation, "none", _read_label(where, entry), row_seeds, (), peer=True)
        if row.name in peers:
            raise UsageError(f"{where}: there is another peer {row.name}; give one of them a label")
        peers[row.name] = row
    return tuple(peers.values())


def _strategies(folder: Path) -> list[str]:
    return sorted(file.stem for file in (folder / "configs" / "strategies").glob("*.yaml"))


def _read_label(where: str, entry: Mapping[str, Any]) -> str:
    label = "" if entry.get("label") is None else str(entry["label"])
    if not re.fullmatch(r"[A-Za-z0-9_.]*", label):
        raise UsageError(f"{where}: label is {label!r}; letters, digits, dots and underlines are allowed")
    return label


def _check_configs(folder: Path, configs: tuple[str, ...]) -> tuple[str, ...]:
    for name in configs:
        if not is_file(folder / "configs" / f"{name}.yaml"):
            raise UsageError(f"configs: the bundle {folder.name} has no configs/{name}.yaml")
    return configs


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _integers(where: str, key: str, value: Any, rule: Rule) -> tuple[int, ...]:
    numbers = _as_list(value)
    if not numbers or not all(map(rule.is_valid, numbers)):
        raise UsageError(f"{where}: {key} is {value!r}; it must be a list, each entry {rule.allowed}")
    return tuple(dict.fromkeys(numbers))


def _overrides(where: str, value: Any, config: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Check overrides and return them as they are. The bundle checks the further parts of nested keys."""
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise UsageError(f"{where}: overrides is {value!r}; a mapping of the bundle's keys is needed")
    for key in value:
        parts = split_key(str(key))
        setting = _SET_ELSEWHERE.get("::".join(parts))
        if setting:
            raise UsageError(f"{where}: overrides has {key}, which differs from cell to cell; use {setting}")
        if parts[0] not in config:
            match = suggest(parts[0], config)
            hint = f"did you mean {match}?" if match else "the bundle's configs name its keys"
            raise UsageError(f"{where}: overrides has {key}, which the bundle does not know; {hint}")
        try:
            survives_json = json.loads(json.dumps(value[key])) == value[key]
        except (TypeError, ValueError):
            survives_json = False
        if not survives_json:
            raise UsageError(
                f"{where}: overrides has {key} {value[key]!r}; numbers, words, lists and mappings are allowed"
            )
        rule = RULES.get(str(key))
        is_expression = isinstance(value[key], str) and value[key].startswith(("$", "@"))
        if rule and not is_expression and not rule.is_valid(none_if_null(value[key])):
            raise UsageError(f"{where}: overrides has {key} {value[key]!r}; it must be {rule.allowed}")
    return tuple((str(key), entry) for key, entry in value.items())
