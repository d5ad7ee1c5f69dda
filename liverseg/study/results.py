"""What a study has left on disk, read back: the complete cells of every row, and what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from liverseg.datalists import DataList, read_datalist
from liverseg.errors import LiversegError
from liverseg.study.cells import Cell, study_cells
from liverseg.study.config import Row, StudyDefinition
from liverseg.study.fingerprint import Ingredients
from liverseg.study.folds import fold_lists
from liverseg.utils.files import is_file

__all__ = ["CELL_KEYS", "RowResults", "StudyResults", "read_results"]

CELL_KEYS = ["fold", "seed", "patient"]
"""Columns that tell one patient of one cell from another."""
_TEXT = {"patient", "image", "side", "true_type", "pred_type"}
"""Columns that stay words: without a predicted lesion every `side` is "true", which would be read as a yes."""
_NEEDED = {
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
_MAKE_AGAIN = "remove its folder, and `liverseg study run` makes the cell again"
_OTHER_SETTINGS = (
    "made of other settings, data, configs or weights than the study now has; `liverseg study run` makes it anew"
)


@dataclass(frozen=True)
class RowResults:
    """One row of the study: what its cells found.

    Attributes:
        row: what was trained.
        complete: its complete cells, by fold and seed.
        missing: cells that are not there yet or could not run, and why; the reason is empty where none is known.
        units: the cells' `evaluation.csv`, one under the other, with `fold`, `seed` and `number`, the line in its file;
            empty without complete cells.
        lesions: likewise their `lesions.csv`; empty where the strategy outlines nothing.
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
        """Why nothing of the row could be run; empty where there is no such reason."""
        reasons = [reason for _, reason in self.missing if reason]
        return reasons[0] if reasons and not self.complete else ""

    @property
    def typed(self) -> bool:
        """Whether its networks name types at all."""
        return "pred_type" in self.units

    @property
    def blind(self) -> list[tuple[int, int]]:
        """Fold and seed of the cells whose networks outline, and outlined no lesion on any slice."""
        if "lesion_pred" not in self.units:
            return []
        outlined = self.units.groupby(["fold", "seed"])["lesion_pred"].sum()
        return [(int(fold), int(seed)) for fold, seed in outlined.index[outlined == 0]]

    @cached_property
    def scored(self) -> pd.DataFrame:
        """Each patient of each cell once: columns fold, seed, patient."""
        return self.units[CELL_KEYS].drop_duplicates()


@dataclass(frozen=True)
class StudyResults:
    """All rows of a study with what is on disk of them.

    Attributes:
        study: the study.
        datalist: its data list.
        folds: that are held out in turn.
        rows: one for each row of the study, in its order.
        records: the `cell.json` of every complete cell.
    """

    study: StudyDefinition
    datalist: DataList
    folds: tuple[int, ...]
    rows: tuple[RowResults, ...]
    records: tuple[dict[str, Any], ...]

    @property
    def with_results(self) -> tuple[RowResults, ...]:
        """Rows with at least one complete cell."""
        return tuple(row for row in self.rows if row.complete)

    def find(self, strategy: str, initialisation: str, plan: str = "none") -> RowResults | None:
        """The unlabelled row of that strategy, initialisation and plan, if it has results."""
        for row in self.with_results:
            if (row.row.strategy, row.row.initialisation, row.row.plan, row.row.label) == (
                strategy,
                initialisation,
                plan,
                "",
            ):
                return row
        return None

    @property
    def on_phantoms(self) -> bool:
        """Whether the data list says its source is phantoms."""
        return "phantom" in self.datalist.source.lower()


def read_results(study: StudyDefinition) -> StudyResults:
    """Read the complete cells of a study.

    A cell counts as complete where its `cell.json` names the settings, data lists, configs and weights the study has
    now, see `Ingredients.made`.

    Raises:
        LiversegError: if the data list or a complete cell's table cannot be read, or no cell is complete.
    """
    datalist = read_datalist(study.datalist)
    lists = fold_lists(study)
    ingredients = Ingredients(study, lists)
    folds = tuple(lists)
    cells = study_cells(study, folds)
    rows, records = [], []
    for row in study.rows:
        complete, missing = [], []
        for cell in sorted((cell for cell in cells if cell.row == row), key=lambda cell: (cell.fold, cell.seed)):
            record = ingredients.made(cell)
            if record is not None:
                complete.append(cell)
                records.append(record)
            elif cell.read("cell.json") is not None:
                missing.append((cell, _OTHER_SETTINGS))
            else:
                missing.append((cell, str((cell.read("failed.json") or {}).get("reason", ""))))
        tables = [
            pd.concat(
                [frame for cell in complete if (frame := _read_table(cell, name, needed)) is not None] or [_nothing()]
            )
            for name, needed in (("evaluation.csv", True), ("lesions.csv", False))
        ]
        rows.append(RowResults(row, tuple(complete), tuple(missing), *tables))
    if not records:
        raise LiversegError(f"{study.output_dir}: no cell of the study is complete; `liverseg study run` makes them")
    return StudyResults(study, datalist, folds, tuple(rows), tuple(records))


def _nothing() -> pd.DataFrame:
    return pd.DataFrame(columns=[*CELL_KEYS, "number"])


def _read_table(cell: Cell, name: str, needed: bool) -> pd.DataFrame | None:
    path: Path = cell.folder / name
    if not needed and not is_file(path):
        return None
    try:
        columns = pd.read_csv(path, nrows=0).columns
        # a patient may be called NA: only numbers can be missing
        numbers = {column: [""] for column in columns if column not in _TEXT}
        table = pd.read_csv(path, dtype=dict.fromkeys(_TEXT, str), keep_default_na=False, na_values=numbers)
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())
        raise LiversegError(f"{path}: cannot be read ({said}); {_MAKE_AGAIN}") from error
    lacking = sorted(_NEEDED[name] - {*columns})
    if lacking:
        raise LiversegError(f"{path}: no column {lacking[0]}; {_MAKE_AGAIN}")
    return table.assign(fold=cell.fold, seed=cell.seed, number=range(len(table)))
