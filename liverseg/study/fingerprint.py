"""What cells are made of: settings, data, weights and code."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

import liverseg
from liverseg.bundle.commands import bundle_command
from liverseg.datalists import DataList
from liverseg.inference import find_bundle
from liverseg.study.cells import Cell
from liverseg.study.config import Row, StudyDefinition
from liverseg.study.folds import VALIDATION_FOLD, fold_list_path, list_hash
from liverseg.utils.files import is_file, sha256_file, sha256_text, size_or_zero

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
        self._list_paths = {fold: fold_list_path(study, fold, made) for fold, made in lists.items()}
        self._list_hashes = {fold: list_hash(made) for fold, made in lists.items()}
        told: dict[str, str | None] = {}
        self._data = {fold: _hash_of_files(study.dataset_dir, made, told) for fold, made in lists.items()}
        self._weights = {
            name: sha256_file(path)
            for name, path in (("lits", study.lits_weights), ("imagenet", study.imagenet_weights))
            if path is not None and is_file(path)
        }
        self._of_evaluation = set(ConfigParser.load_config_file(self.bundle / "configs" / "evaluate.yaml"))
        self._config_hashes = {row.strategy: self.hash_of_configs(row) for row in study.rows}

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
            "datalist_sha256": self._list_hashes[cell.fold],
            "files_sha256": self._data[cell.fold],
            "weights_sha256": self._weights.get(row.initialisation),
        }

    def made(self, cell: Cell) -> dict[str, Any] | None:
        """The record of a cell that is complete and was made of the same, else None.

        Files and weights that are not at hand, now or then, are taken for the same: a report may be written elsewhere.
        Versions of packages and code may differ; the record tells them, and so does the report.
        """
        record, ours = cell.read("cell.json"), self.of(cell)
        theirs = (record or {}).get("ingredients")
        if not isinstance(theirs, dict):
            return None
        unknown = {key for key in ("files_sha256", "weights_sha256") if None in (ours[key], theirs.get(key))}
        return record if all(theirs.get(key) == value for key, value in ours.items() if key not in unknown) else None

    def commands(self, cell: Cell, device: str | None = None) -> dict[str, list[str]]:
        """The bundle commands that make a cell, by run id, to be run in the bundle's folder."""
        row, study = cell.row, self.study
        common: dict[str, Any] = {
            "dataset_dir": study.dataset_dir,
            "datalist": self._list_paths[cell.fold],
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

    def hash_of_configs(self, row: Row) -> str:
        """SHA-256 of the configs a row is trained and scored with, as they are now."""
        digest = hashlib.sha256()
        for name in (*self._configs(row), "evaluate"):
            digest.update((self.bundle / "configs" / f"{name}.yaml").read_bytes())
        return digest.hexdigest()

    def _overrides(self, row: Row) -> dict[str, Any]:
        return {**dict(self.study.overrides), **dict(row.overrides)}


def code_state() -> str:
    """What code this is: the checkout's commit and how files differ from it; elsewhere a hash of liverseg's own."""
    package = Path(liverseg.__file__).parent
    commit = _git(package, "rev-parse", "--short=12", "HEAD") if (package.parent / ".git").exists() else ""
    if commit:
        changes = _git(package, "diff", "HEAD", "--", package, package.parent / "bundles")
        return f"commit {commit}" + (f", changed ({sha256_text(changes)[:12]})" if changes else "")
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return f"liverseg {liverseg.__version__}, sources {digest.hexdigest()[:12]}"


def _git(folder: Path, *words: str | Path) -> str:
    """What git prints; nothing where there is no git or it fails."""
    try:
        told = subprocess.run(["git", "-C", folder, *words], capture_output=True, check=False)
    except OSError:
        return ""
    return told.stdout.decode(errors="replace").strip() if told.returncode == 0 else ""


def _hash_of_files(dataset_dir: Path, made: DataList, told: dict[str, str | None]) -> str | None:
    """What a list's labels hold and how large its images are; None where one is not there.

    Args:
        dataset_dir: folder the list's paths are relative to.
        made: the list.
        told: by path, what was told of it for other lists.
    """
    for item in (*made.training, *made.test):
        for name, tell in ((item.image, size_or_zero), (item.label, sha256_file)):
            if name is not None and name not in told:
                path = dataset_dir / name
                told[name] = f"{name} {tell(path)}" if is_file(path) else None
    own = {told[name] for item in (*made.training, *made.test) for name in (item.image, item.label) if name is not None}
    return None if None in own else sha256_text("\n".join(sorted(filter(None, own))))
