"""Cells of a study: a row, a fold and a seed, each with its own folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from liverseg.errors import OutputError
from liverseg.study.config import Row, StudyConfig
from liverseg.utils.files import read_json_object, write_text
from liverseg.utils.locks import FileLock

__all__ = ["Cell", "study_cells"]


@dataclass(frozen=True)
class Cell:
    """A training and its evaluation.

    Attributes:
        row: row of the study.
        fold: held-out fold.
        seed: of the training.
        folder: for all files of the cell. `cell.json` is written last: with it, the cell is complete.
    """

    row: Row
    fold: int
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """Name for progress and messages."""
        return f"{self.row.name}, fold {self.fold}, seed {self.seed}"

    def read(self, name: str) -> dict[str, Any] | None:
        """Read one of the cell's JSON records; None if it is missing or damaged."""
        return read_json_object(self.folder / name)

    @contextmanager
    def lock(self) -> Iterator[int | None]:
        """Lock the cell against other runs on this folder.

        Commands that inherit the descriptor hold the lock as well, so a command that outlives its run keeps it.

        Yields:
            The lock file's descriptor; None if another run holds the lock.

        Raises:
            OutputError: if the folder cannot be written.
        """
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock.try_acquire(self.folder.parent / f".{self.folder.name}.lock")
        except OSError as error:  # or a file system without locks
            raise self._write_error(error) from error
        if lock is None:
            yield None
            return
        try:
            yield lock.descriptor
        finally:
            lock.release()

    def prepare(self, fingerprint: dict[str, Any], code: str) -> list[str]:
        """Prepare the folder for a training. An interrupted training with the same fingerprint will be resumed.

        With another fingerprint, an incomplete cell is removed and a complete one is moved to the study's `superseded`.

        Args:
            fingerprint: of the cell, from `StudyFingerprint.of`.
            code: state of the code that runs the cell, from `code_state`.

        Returns:
            Every state of the code that has worked on the cell, this one last.

        Raises:
            OutputError: if it cannot be written.
        """
        started = self.read("started.json") or {}
        codes = [code]
        try:
            if self.folder.exists() and started.get("ingredients") != fingerprint:
                if (self.folder / "cell.json").exists():
                    self.folder.rename(self._superseded_folder())
                else:
                    shutil.rmtree(self.folder)
            elif isinstance(started.get("code"), list):
                codes = [*(state for state in started["code"] if state != code), code]
            self.folder.mkdir(parents=True, exist_ok=True)
            for name in ("cell.json", "failed.json"):
                (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise self._write_error(error) from error
        self.write("started.json", {"ingredients": fingerprint, "code": codes})
        return codes

    def write(self, name: str, record: dict[str, Any]) -> None:
        """Write one of the cell's JSON records.

        Raises:
            OutputError: if it cannot be written.
        """
        write_text(self.folder / name, json.dumps(record, indent=1) + "\n")

    def _superseded_folder(self) -> Path:
        folder = self.folder.parents[2] / "superseded" / self.folder.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        number = 1
        while (path := folder / f"{self.folder.name}-{number}").exists():
            number += 1
        return path

    def _write_error(self, error: OSError) -> OutputError:
        return OutputError(f"{self.folder}: the study cannot write there ({error.strerror})")


def study_cells(study: StudyConfig, folds: tuple[int, ...], rows: Sequence[Row] | None = None) -> list[Cell]:
    """Return all cells of a study, first seeds first, so that an interrupted study has results of every row.

    Args:
        study: the study.
        folds: held-out folds.
        rows: rows or peers of the study; by default its rows, which a run trains.
    """
    rows = study.rows if rows is None else rows
    most_seeds = max((len(row.seeds) for row in rows), default=0)
    folder = study.output_dir / "cells"
    return [
        Cell(row, fold, row.seeds[number], folder / row.name / f"fold{fold}-seed{row.seeds[number]}")
        for number in range(most_seeds)
        for row in rows
        if number < len(row.seeds)
        for fold in folds
    ]
