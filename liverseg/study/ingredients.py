"""What cells are made of: settings, data, weights and code."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

import liverseg
from liverseg.bundle_commands import bundle_command
from liverseg.datalists import DataList, datalist_text
from liverseg.files import file_hash, is_file
from liverseg.inference import find_bundle
from liverseg.networks import package_versions
from liverseg.study.cells import Cell
from liverseg.study.definition import Row, StudyDefinition
from liverseg.study.folds import VALIDATION_FOLD, fold_list_path

__all__ = ["Ingredients", "code_state"]


class Ingredients:
    """What the cells of a study are made of, hashed once; a cell made of the same is not made again.

    Args:
        study: the study.
        lists: fold to its data list.
    """

    def __init__(self, study: StudyDefinition, lists: Mapping[int, DataList]) -> None:
        self.study = study
        self.bundle = find_bundle(study.bundle)
        self._lists = {fold: _hash_of(datalist_text(made)) for fold, made in lists.items()}
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
            "weights_sha256": self._weights.get(row.initialisation),
            "versions": self._versions,
        }

    def has_made(self, cell: Cell, record: Mapping[str, Any]) -> bool:
        """Whether a complete cell is one of this study: all that decides what it learnt and was scored on is the same.

        Versions of packages may differ, and weights that are not at hand are taken for those it started from: a report
        may be written elsewhere and later.

        Args:
            cell: the cell.
            record: its `cell.json`.
        """
        theirs, ours = record.get("ingredients"), self.of(cell)
        if not isinstance(theirs, dict):
            return False
        ignored = {"versions"} | ({"weights_sha256"} if ours["weights_sha256"] is None else set())
        return all(theirs.get(key) == value for key, value in ours.items() if key not in ignored)

    def commands(self, cell: Cell, device: str | None = None) -> dict[str, list[str]]:
        """The bundle commands that make a cell, by run id, to be run in the bundle's folder."""
        row, study = cell.row, self.study
        common: dict[str, Any] = {
            "dataset_dir": study.dataset_dir,
            "datalist": fold_list_path(study, cell.fold),
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
        if row.initialisation == "imagenet" and study.imagenet_weights is not None:
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


def code_state() -> str:
    """What code this is: the checkout's commit, and whether files differ from it; elsewhere a hash of liverseg's own.

    Take it once, before anything runs: a checkout may be worked on meanwhile.
    """
    package = Path(liverseg.__file__).parent
    if (package.parent / ".git").exists():
        told = [
            subprocess.run(["git", "-C", package.parent, *words], capture_output=True, text=True, check=False).stdout
            for words in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
        if told[0]:
            return f"commit {told[0].strip()}{' with changes' if told[1] else ''}"
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return f"liverseg {liverseg.__version__}, sources {digest.hexdigest()[:12]}"


def _hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
