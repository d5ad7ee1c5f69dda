"""One cell of the grid: a row, a fold and a seed, in a folder of its own."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

import liverseg
from liverseg.bundle_commands import bundle_command
from liverseg.errors import LiversegError
from liverseg.files import file_hash, is_file, write_text
from liverseg.inference import find_bundle
from liverseg.networks import package_versions
from liverseg.study.definition import Row, StudyDefinition
from liverseg.study.folds import VALIDATION_FOLD

__all__ = ["Cell", "Ingredients", "commit", "study_cells"]


@dataclass(frozen=True)
class Cell:
    """A training and its evaluation.

    Attributes:
        row: what is trained, and how.
        fold: held out.
        seed: of the training.
        folder: where everything goes; `cell.json` is written last and makes it complete.
    """

    row: Row
    fold: int
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """For progress and messages."""
        return f"{self.row.name}, fold {self.fold}, seed {self.seed}"

    def read(self, name: str) -> dict[str, Any] | None:
        """One of the cell's JSON records; None where it is not there or not whole."""
        try:
            content = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) else None

    def is_complete(self, ingredients: dict[str, Any]) -> bool:
        """Whether the cell was finished, with these ingredients."""
        done = self.read("cell.json")
        return done is not None and done.get("ingredients") == ingredients

    def make_ready(self, ingredients: dict[str, Any]) -> None:
        """Make the folder; what other ingredients left in it is removed, what these left is gone on with.

        Raises:
            LiversegError: if it cannot be written.
        """
        begun = self.read("started.json")
        try:
            if self.folder.exists() and (begun is None or begun != ingredients):
                shutil.rmtree(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
            for name in ("cell.json", "failed.json"):
                (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise LiversegError(f"{self.folder}: the study cannot write there ({error.strerror})") from error
        write_text(self.folder / "started.json", json.dumps(ingredients, indent=1) + "\n")


class Ingredients:
    """What the cells of a study are made of, hashed once; a cell made of the same is not made again.

    Args:
        study: the study.
        lists: fold to its data list.
    """

    def __init__(self, study: StudyDefinition, lists: dict[int, Path]) -> None:
        self.study = study
        self.lists = lists
        self.bundle = find_bundle(study.bundle)
        self._lists = {fold: file_hash(path) for fold, path in lists.items()}
        self._weights = {
            name: file_hash(path)
            for name, path in (("lits", study.lits_weights), ("imagenet", study.imagenet_weights))
            if path is not None and is_file(path)
        }
        self._of_evaluation = set(ConfigParser.load_config_file(self.bundle / "configs" / "evaluate.yaml"))
        self._versions = package_versions()
        self._config_hashes = {row.strategy: self._hash_of_configs(row) for row in study.rows}

    def of(self, cell: Cell) -> dict[str, Any]:
        """A cell's ingredients, JSON-able."""
        row = cell.row
        return {
            "strategy": row.strategy,
            "initialisation": row.initialisation,
            "plan": row.plan,
            "label": row.label,
            "fold": cell.fold,
            "seed": cell.seed,
            "scored": self.study.scored,
            "overrides": self._overrides(row),
            "configs": list(self._configs(row)),
            "configs_sha256": self._config_hashes[row.strategy],
            "datalist_sha256": self._lists[cell.fold],
            "lits_weights_sha256": self._weights.get("lits") if row.initialisation == "lits" else None,
            "versions": self._versions,
            **({"imagenet_weights_sha256": self._weights.get("imagenet")} if row.initialisation == "imagenet" else {}),
        }

    def commands(self, cell: Cell, device: str | None = None) -> dict[str, list[str]]:
        """The bundle commands that make a cell, by run id, to be run in the bundle's folder."""
        row, study = cell.row, self.study
        common: dict[str, Any] = {
            "dataset_dir": study.dataset_dir,
            "datalist": self.lists[cell.fold],
            "output_dir": cell.folder,
            "ckpt_dir": cell.folder,
            "cache_dir": study.output_dir / "cache",
            "fold": VALIDATION_FOLD,
            "progress": False,
        }
        training = {
            **common,
            "seed": cell.seed,
            "initialisation": row.initialisation,
            "pretrain_weights": study.lits_weights if row.initialisation == "lits" else "null",
            "fine_tuning": row.plan,
        }
        if study.imagenet_weights is not None:
            training["imagenet_weights"] = study.imagenet_weights
        configs, overrides = self._configs(row), self._overrides(row)
        if device is not None:
            overrides["device"] = device
        # scored as it was trained; what the evaluation reads from the weights' record is left to it
        scoring = {key: value for key, value in overrides.items() if key not in self._of_evaluation}
        return {
            "training": bundle_command("training", configs, {**training, **overrides}),
            "evaluating": bundle_command("evaluating", [*configs, "evaluate"], {**common, **scoring}),
        }

    def _configs(self, row: Row) -> tuple[str, ...]:
        return (*self.study.configs, f"strategies/{row.strategy}")

    def _hash_of_configs(self, row: Row) -> str:
        digest = hashlib.sha256()
        for name in (*self._configs(row), "evaluate"):
            digest.update((self.bundle / "configs" / f"{name}.yaml").read_bytes())
        return digest.hexdigest()

    def _overrides(self, row: Row) -> dict[str, Any]:
        return {**dict(self.study.overrides), **dict(row.overrides)}


def study_cells(study: StudyDefinition, folds: tuple[int, ...]) -> list[Cell]:
    """Every cell of a study, first seeds first, so that a study cut short has something of every row."""
    turns = max(len(row.seeds) for row in study.rows)
    return [
        Cell(row, fold, row.seeds[turn], study.output_dir / "cells" / row.name / f"fold{fold}-seed{row.seeds[turn]}")
        for turn in range(turns)
        for row in study.rows
        if turn < len(row.seeds)
        for fold in folds
    ]


def commit() -> str | None:
    """The commit of the checkout liverseg is used from; None where it is installed otherwise."""
    root = Path(liverseg.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    told = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return told.stdout.strip() or None
