"""Read the results of a study: the complete cells of every row, and the missing ones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from liverseg.datalists import DataItem, DataList, read_datalist
from liverseg.errors import LiversegError, one_line
from liverseg.labels import LESION_TYPES
from liverseg.study.cells import Cell, study_cells
from liverseg.study.config import Row, StudyConfig
from liverseg.study.fingerprint import StudyFingerprint
from liverseg.study.folds import VALIDATION_FOLD, fold_lists, list_hash
from liverseg.synthesis.writer import PAINTED
from liverseg.utils.files import is_file

__all__ = ["CELL_KEYS", "Cohort", "RowResults", "StudyResults", "read_results"]

CELL_KEYS = ["fold", "seed", "patient"]
"""Columns that identify a patient in a cell."""
_TEXT_COLUMNS = {"patient", "image", "side", "true_type", "pred_type"}
"""Columns read as text: if no lesion is predicted, every `side` is "true", which pandas would read as a boolean."""
_REQUIRED_COLUMNS = {
    "evaluation.csv": {"slice", "image", "patient"},
    "lesions.csv": {
        "patient",
        "side",
        "diameter_mm",
        "hit",
        "matched",
        "dice",
        "assd_mm",
        "mssd_mm",
        "true_type",
        "pred_type",
    },
}
_TOGETHER = {
    "lesion_hit": {"lesion_pred", "lesion_true", "lesion_dice", "lesion_recall"},
    "pred_type": {"true_type", *(f"probability_{name}" for name in LESION_TYPES)},
}
"""Columns of a peer's `evaluation.csv`, and the others that each needs."""
_MAKE_AGAIN = "remove its folder; `liverseg study run` makes the cell again"
_OTHER_SETTINGS = (
    "made with other settings, data, configs or weights than the study now has; `liverseg study run` makes it again"
)


class Cohort(Enum):
    """Kind of a study's data, with its text in the report. Results of two kinds are never in one report."""

    PHANTOMS = "phantoms"
    SYNTHETIC_LESIONS = "synthetic lesions in CTs of patients"
    PATIENTS = "patients"

    @staticmethod
    def of(datalist: DataList) -> Cohort:
        """Read the kind from a data list's source. Lesions painted into phantoms are phantoms.

        Raises:
            LiversegError: if the list joins lists of several kinds.
        """
        joined = re.split(rf"; (?!{PAINTED})", datalist.source)
        parts = joined if all(re.match(r"[^:;]+: ", part) for part in joined) else [datalist.source]
        kinds = {
            Cohort.PHANTOMS
            if "phantom" in part.lower()
            else Cohort.SYNTHETIC_LESIONS
            if PAINTED in part
            else Cohort.PATIENTS
            for part in parts
        }
        if len(kinds) > 1:
            mixed = " and ".join(sorted(kind.value for kind in kinds))
            raise LiversegError(
                f"data list {datalist.name}: joins {mixed}, by its source; report each kind in a study of its own"
            )
        return kinds.pop()


@dataclass(frozen=True)
class RowResults:
    """Results of a row.

    Attributes:
        row: row of the study.
        complete: complete cells, sorted by fold and seed.
        missing: cells without results, and the reason; the reason is empty if none is known.
        units: `evaluation.csv` of all complete cells, with `fold`, `seed` and `number`, the line in the cell's file. It
            has a line for each scored slice or volume.
        lesions: `lesions.csv` of all complete cells, likewise; empty if the strategy does not segment.
    """

    row: Row
    complete: tuple[Cell, ...]
    missing: tuple[tuple[Cell, str], ...]
    units: pd.DataFrame
    lesions: pd.DataFrame

    @property
    def name(self) -> str:
        """Name of the row."""
        return self.row.name

    @property
    def reason(self) -> str:
        """Why no cell of the row could be run; empty if some were, or no reason is known."""
        reasons = [reason for _, reason in self.missing if reason]
        return reasons[0] if reasons and not self.complete else ""

    @property
    def seeds(self) -> list[int]:
        """Seeds of the complete cells."""
        return sorted({cell.seed for cell in self.complete})

    @property
    def typed(self) -> bool:
        """Whether its networks predict types."""
        return "pred_type" in self.units

    @property
    def without_lesions(self) -> list[tuple[int, int]]:
        """Fold and seed of the cells whose networks segment, but found no lesion on any slice."""
        if "lesion_pred" not in self.units:
            return []
        pixels = self.units.groupby(["fold", "seed"])["lesion_pred"].sum()
        return [(int(fold), int(seed)) for fold, seed in pixels.index[pixels == 0]]

    @cached_property
    def scored(self) -> pd.DataFrame:
        """Patients of each cell: columns fold, seed, patient."""
        return self.units[CELL_KEYS].drop_duplicates()


@dataclass(frozen=True)
class StudyResults:
    """Results of a study.

    Attributes:
        study: the study.
        datalist: data list of the study.
        folds: held-out folds.
        rows: results of each row, in the study's order, then those of the peers.
        records: `cell.json` of every complete cell that the study ran.
    """

    study: StudyConfig
    datalist: DataList
    folds: tuple[int, ...]
    rows: tuple[RowResults, ...]
    records: tuple[dict[str, Any], ...]

    @property
    def with_results(self) -> tuple[RowResults, ...]:
        """Rows with at least one complete cell."""
        return tuple(row for row in self.rows if row.complete)

    def find(self, strategy: str, initialisation: str, plan: str = "none") -> RowResults | None:
        """Return the row with this strategy, initialisation and plan and no label, if it has results."""
        for row in self.with_results:
            if (row.row.strategy, row.row.initialisation, row.row.plan, row.row.label) == (
                strategy,
                initialisation,
                plan,
                "",
            ):
                return row
        return None

    @cached_property
    def cohort(self) -> Cohort:
        """Kind of the data, by the data list's source."""
        return Cohort.of(self.datalist)


def read_results(study: StudyConfig) -> StudyResults:
    """Read the complete cells of a study: those with the study's present settings, data, configs and weights.

    Raises:
        LiversegError: if the data list or a table of a complete cell cannot be read, the data list joins data of
            several kinds, or no cell is complete.
    """
    datalist = read_datalist(study.datalist)
    Cohort.of(datalist)
    lists = fold_lists(study)
    fingerprint = StudyFingerprint(study, lists)
    folds = tuple(lists)
    cells = study_cells(study, folds)
    rows, records = [], []
    for row in study.rows:
        complete, missing = [], []
        for cell in sorted((cell for cell in cells if cell.row == row), key=lambda cell: (cell.fold, cell.seed)):
            record = fingerprint.find_record(cell)
            if record is not None:
                _check_slices(study, lists, cell)
                complete.append(cell)
                records.append(record)
            elif cell.read("cell.json") is not None:
                missing.append((cell, _OTHER_SETTINGS))
            else:
                missing.append((cell, str((cell.read("failed.json") or {}).get("reason", ""))))
        rows.append(RowResults(row, tuple(complete), tuple(missing), *_read_tables(complete)))
    if not records:
        raise LiversegError(f"{study.output_dir}: no cell of the study is complete; `liverseg study run` makes them")
    rows += [_read_peer(study, lists, row) for row in study.peers]
    return StudyResults(study, datalist, folds, tuple(rows), tuple(records))


def _read_peer(study: StudyConfig, lists: Mapping[int, DataList], row: Row) -> RowResults:
    """Read the results of a peer: folders as those of cells, whose slices are those that the study scores."""
    complete, missing = [], []
    for cell in sorted(study_cells(study, tuple(lists), [row]), key=lambda cell: (cell.fold, cell.seed)):
        record = cell.read("cell.json")
        if record is None:
            missing.append((cell, "no results are stored"))
            continue
        own_hash = list_hash(lists[cell.fold])
        if dict(record.get("ingredients") or {}).get("datalist_sha256", own_hash) != own_hash:
            missing.append((cell, f"trained with another data list than the study's in fold {cell.fold}"))
            continue
        units = _read_table(cell, "evaluation.csv", True)
        assert units is not None
        _check_peer(cell, units)
        if _slices(units) == _scored(study, lists[cell.fold]):
            complete.append(cell)
        else:
            missing.append((cell, f"its slices are not those that the study scores in fold {cell.fold}"))
    return RowResults(row, tuple(complete), tuple(missing), *_read_tables(complete))


def _check_peer(cell: Cell, units: pd.DataFrame) -> None:
    """Refuse a peer's table with a part of the columns that belong together, or with unknown types."""
    path = cell.folder / "evaluation.csv"
    for column, others in _TOGETHER.items():
        missing = sorted(others - {*units.columns})
        if column in units and missing:
            raise LiversegError(f"{path}: has {column}, but no column {missing[0]}; store both, or neither")
    for column in ("true_type", "pred_type"):
        unknown = sorted({*units[column]} - {*LESION_TYPES, ""}) if column in units else []
        if unknown:
            allowed = ", ".join(LESION_TYPES)
            raise LiversegError(f"{path}: {column} is {unknown[0]!r}; there are {allowed}, and nothing for no type")


def _check_slices(study: StudyConfig, lists: Mapping[int, DataList], cell: Cell) -> None:
    """Refuse a complete cell whose table does not have exactly the slices that its fold scores: it was damaged."""
    units = _read_table(cell, "evaluation.csv", True)
    assert units is not None
    scored = _scored(study, lists[cell.fold])
    if [item[:2] for item in _slices(units)] != [item[:2] for item in scored]:
        path = cell.folder / "evaluation.csv"
        raise LiversegError(
            f"{path}: has {len(units)} slices, which are not the {len(scored)} that the study scores in fold "
            f"{cell.fold}; {_MAKE_AGAIN}"
        )


def _slices(units: pd.DataFrame) -> list[tuple[str, float, str]]:
    """Return image, slice (-1 for a volume) and patient of each line, sorted."""
    numbers = pd.to_numeric(units["slice"], errors="coerce").fillna(-1).astype(float)
    return sorted(zip(units["image"], numbers, units["patient"], strict=True))


def _scored(study: StudyConfig, datalist: DataList) -> list[tuple[str, float, str]]:
    """Return image, slice (-1 for a volume) and patient of everything that is scored in a fold, sorted."""
    items: Iterable[DataItem] = datalist.test
    if study.scored == "validation":
        _, items = datalist.split(VALIDATION_FOLD)
    return sorted((item.image, -1.0 if item.slice is None else float(item.slice), item.patient) for item in items)


def _read_tables(complete: Sequence[Cell]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read `evaluation.csv` and `lesions.csv` of cells, one below the other."""
    tables = []
    for name, required in (("evaluation.csv", True), ("lesions.csv", False)):
        frames = [frame for cell in complete if (frame := _read_table(cell, name, required)) is not None]
        tables.append(pd.concat(frames or [_empty_table()]))
    return tables[0], tables[1]


def _empty_table() -> pd.DataFrame:
    return pd.DataFrame(columns=[*CELL_KEYS, "number"])


def _read_table(cell: Cell, name: str, required: bool) -> pd.DataFrame | None:
    path: Path = cell.folder / name
    if not required and not is_file(path):
        return None
    try:
        columns = pd.read_csv(path, nrows=0).columns
        # only numbers can be missing: NA may be a patient's name
        na_values = {column: [""] for column in columns if column not in _TEXT_COLUMNS}
        table = pd.read_csv(path, dtype=dict.fromkeys(_TEXT_COLUMNS, str), keep_default_na=False, na_values=na_values)
    except (OSError, ValueError) as error:
        raise LiversegError(f"{path}: cannot be read ({one_line(error)}); {_MAKE_AGAIN}") from error
    missing = sorted(_REQUIRED_COLUMNS[name] - {*columns})
    if missing:
        raise LiversegError(f"{path}: no column {missing[0]}; {_MAKE_AGAIN}")
    if not path.read_bytes().endswith(b"\n"):
        raise LiversegError(f"{path}: its last line is cut off; {_MAKE_AGAIN}")
    return table.assign(fold=cell.fold, seed=cell.seed, number=range(len(table)))
