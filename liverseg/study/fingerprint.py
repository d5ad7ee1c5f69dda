"""Fingerprints of cells: settings, data and weights, by which complete cells are recognised. Also the code's state."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

import liverseg
from liverseg.bundle.effective import earlier_configs, effective_settings, merge_configs
from liverseg.bundle.paths import find_bundle
from liverseg.datalists import DataList
from liverseg.study.cells import Cell
from liverseg.study.config import Row, StudyConfig
from liverseg.study.folds import list_hash
from liverseg.utils.files import is_file, sha256_file, sha256_text, size_or_zero
from liverseg.utils.fingerprints import settings_hash

__all__ = ["StudyFingerprint", "code_state", "hash_configs"]

_SCORING = "evaluate"
"""Name of the config that scores."""


class StudyFingerprint:
    """Fingerprints of a study's cells. Files are hashed once, when it is created.

    Args:
        study: the study.
        lists: fold to its data list.
    """

    def __init__(self, study: StudyConfig, lists: Mapping[int, DataList]) -> None:
        self.study = study
        self._list_hashes = {fold: list_hash(datalist) for fold, datalist in lists.items()}
        file_states: dict[str, str | None] = {}
        self._files = {fold: _hash_files(study.dataset_dir, datalist, file_states) for fold, datalist in lists.items()}
        self._weights = {
            name: sha256_file(path)
            for name, path in (("lits", study.lits_weights), ("imagenet", study.imagenet_weights))
            if path is not None and is_file(path)
        }
        self._settings = {row.name: _current_settings(study, row) for row in study.rows}
        self._configs = {name: settings_hash(settings) for name, settings in self._settings.items()}

    def of(self, cell: Cell) -> dict[str, Any]:
        """Return a cell's fingerprint, JSON-able. Hashes of missing files are None."""
        row = cell.row
        return {
            "strategy": row.strategy,
            "initialisation": row.initialisation,
            "plan": row.plan,
            "label": row.label,
            "fold": cell.fold,
            "seed": cell.seed,
            "scored": self.study.scored,
            "overrides": self.study.overrides_of(row),
            "configs": list(self.study.configs_of(row)),
            "configs_sha256": self._configs[row.name],
            "datalist_sha256": self._list_hashes[cell.fold],
            "files_sha256": self._files[cell.fold],
            "weights_sha256": self._weights.get(row.initialisation),
        }

    def find_record(self, cell: Cell) -> dict[str, Any] | None:
        """Return the record of a complete cell whose fingerprint is the study's; otherwise None.

        Files and weights that are missing, now or when the cell was run, count as the same, since a report may be
        written on another machine. Versions of packages and code may differ; the record and the report name them.
        """
        record, current = cell.read("cell.json"), self.of(cell)
        recorded = (record or {}).get("ingredients")
        if not isinstance(recorded, dict):
            return None
        recorded = self.translate(recorded, cell)
        unknown = {key for key in ("files_sha256", "weights_sha256") if None in (current[key], recorded.get(key))}
        same = all(recorded.get(key) == value for key, value in current.items() if key not in unknown)
        return record if same else None

    def translate(self, recorded: dict[str, Any], cell: Cell) -> dict[str, Any]:
        """Return a recorded fingerprint as of today.

        Earlier versions hashed the bytes of the config files. If an earlier version had such files and a row's settings
        in them were the same, the hash becomes today's; otherwise the fingerprint stays as it is.
        """
        row, sha256 = cell.row, str(recorded.get("configs_sha256"))
        configs = earlier_configs().combined(self.study.bundle, (*self.study.configs_of(row), _SCORING), sha256)
        if configs is None or _row_settings(configs, row) != self._settings[row.name]:
            return recorded
        return {**recorded, "configs_sha256": self._configs[row.name]}

    def adopt(self, cell: Cell) -> None:
        """Write today's fingerprint into an interrupted cell of an earlier version, so that it is resumed.

        Raises:
            OutputError: if it cannot be written.
        """
        started = cell.read("started.json") or {}
        recorded = started.get("ingredients")
        if isinstance(recorded, dict) and (current := self.translate(recorded, cell)) != recorded:
            cell.write("started.json", {**started, "ingredients": current})


def hash_configs(study: StudyConfig, row: Row) -> str:
    """Return the SHA-256 of the settings a row is trained and scored with, as the configs have them now."""
    return settings_hash(_current_settings(study, row))


def _current_settings(study: StudyConfig, row: Row) -> dict[str, Any]:
    folder = find_bundle(study.bundle) / "configs"
    names = (*study.configs_of(row), _SCORING)
    return _row_settings([ConfigParser.load_config_file(folder / f"{name}.yaml") for name in names], row)


def _row_settings(configs: Sequence[Mapping[str, Any]], row: Row) -> dict[str, Any]:
    """Return the effective settings of a row's training and of its scoring.

    Args:
        configs: content of the training's configs in order, and of the evaluation's.
        row: of the study; its overrides count apart.
    """
    choices = {"initialisation": row.initialisation, "fine_tuning": row.plan}
    *training, scoring = configs
    return {
        "training": effective_settings(merge_configs([*training, choices])),
        "scoring": effective_settings(merge_configs([scoring])),
    }


def code_state() -> str:
    """Return the commit of the checkout and a hash of its changes; outside a checkout, a hash of liverseg's sources."""
    package = Path(liverseg.__file__).parent
    commit = _git(package, "rev-parse", "--short=12", "HEAD") if (package.parent / ".git").exists() else ""
    if commit:
        changes = _git(package, "diff", "HEAD", "--", package, package.parent / "bundles")
        return f"commit {commit}" + (f", changed ({sha256_text(changes)[:12]})" if changes else "")
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return f"liverseg {liverseg.__version__}, sources {digest.hexdigest()[:12]}"


def _git(folder: Path, *arguments: str | Path) -> str:
    """Return the output of a git command; empty if git is missing or fails."""
    try:
        done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, check=False)
    except OSError:
        return ""
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else ""


def _hash_files(dataset_dir: Path, datalist: DataList, states: dict[str, str | None]) -> str | None:
    """Hash the contents of a list's labels and the sizes of its images; None if a file is missing.

    Args:
        dataset_dir: folder the list's paths are relative to.
        datalist: the list.
        states: by path, the states of the files of other lists; those of this one are added.
    """
    for item in (*datalist.training, *datalist.test):
        for name, state in ((item.image, size_or_zero), (item.label, sha256_file)):
            if name is not None and name not in states:
                path = dataset_dir / name
                states[name] = f"{name} {state(path)}" if is_file(path) else None
    items = (*datalist.training, *datalist.test)
    own = {states[name] for item in items for name in (item.image, item.label) if name is not None}
    return None if None in own else sha256_text("\n".join(sorted(filter(None, own))))
