"""One cell of the grid: a row, a fold and a seed, in a folder of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from liverseg.errors import LiversegError
from liverseg.study.config import Row, StudyDefinition
from liverseg.utils.files import write_text
from liverseg.utils.locks import FileLock

__all__ = ["Cell", "study_cells"]


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

    @contextmanager
    def held(self) -> Iterator[int | None]:
        """Hold the cell against other runs on this folder: a locked file's descriptor; None where another has it.

        Commands that inherit the descriptor hold the cell as well, so that one which outlives its run keeps it.

        Raises:
            LiversegError: if the folder cannot be written.
        """
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock.try_acquire(self.folder.parent / f".{self.folder.name}.lock")
        except OSError as error:  # also a file system that knows no locks
            raise self._unwritable(error) from error
        if lock is None:
            yield None
            return
        try:
            yield lock.descriptor
        finally:
            lock.release()

    def make_ready(self, ingredients: dict[str, Any], code: str) -> list[str]:
        """Make the folder ready for a training with these ingredients; what they left unfinished is gone on with.

        What is unfinished of others is removed; a complete cell of others is moved aside, to the study's `superseded`.

        Args:
            ingredients: what the cell is to be made of.
            code: the state of the code that goes on with it, see `code_state`.

        Returns:
            Every state of the code that has worked on the cell, this one last.

        Raises:
            LiversegError: if it cannot be written.
        """
        begun = self.read("started.json") or {}
        codes = [code]
        try:
            if self.folder.exists() and begun.get("ingredients") != ingredients:
                if (self.folder / "cell.json").exists():
                    self.folder.rename(self._aside())
                else:
                    shutil.rmtree(self.folder)
            elif isinstance(begun.get("code"), list):
                codes = [*(one for one in begun["code"] if one != code), code]
            self.folder.mkdir(parents=True, exist_ok=True)
            for name in ("cell.json", "failed.json"):
                (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error
        self.write("started.json", {"ingredients": ingredients, "code": codes})
        return codes

    def write(self, name: str, record: dict[str, Any]) -> None:
        """Write one of the cell's JSON records.

        Raises:
            LiversegError: if it cannot be written.
        """
        write_text(self.folder / name, json.dumps(record, indent=1) + "\n")

    def _aside(self) -> Path:
        folder = self.folder.parents[2] / "superseded" / self.folder.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        number = 1
        while (place := folder / f"{self.folder.name}-{number}").exists():
            number += 1
        return place

    def _unwritable(self, error: OSError) -> LiversegError:
        return LiversegError(f"{self.folder}: the study cannot write there ({error.strerror})")


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
