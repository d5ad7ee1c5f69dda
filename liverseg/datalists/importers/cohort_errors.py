"""Errors of a table's rows: each begins with its row, and all are told together."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from tqdm import tqdm

from liverseg.errors import LiversegError

if TYPE_CHECKING:
    from liverseg.datalists.importers.cohort_table import CohortRow

__all__ = ["RowErrors", "in_threads", "named"]

_SHOWN = 20

_Job = TypeVar("_Job", bound=Hashable)
_Made = TypeVar("_Made")


@contextmanager
def named(row: CohortRow) -> Iterator[None]:
    """Begin the message of an error with its row.

    Raises:
        LiversegError: what the block raises, with the row.
    """
    try:
        yield
    except LiversegError as error:
        if str(error).startswith(row.where):
            raise
        raise LiversegError(f"{row.where}: {error}") from error


class RowErrors:
    """The first error of each bad row, kept until `tell` raises them as one."""

    def __init__(self) -> None:
        self._errors: dict[int, LiversegError] = {}

    def add(self, number: int, error: LiversegError) -> None:
        """Keep an error of a row, given by its number, unless the row has one."""
        self._errors.setdefault(number, error)

    @contextmanager
    def of(self, *rows: CohortRow) -> Iterator[None]:
        """Keep what the block raises, as an error of the row its message begins with, else of the first."""
        try:
            yield
        except LiversegError as error:
            own = (row for row in rows if str(error).startswith(f"{row.where}:"))
            self.add(next(own, rows[0]).number, error)

    def among(self, rows: Iterable[CohortRow]) -> bool:
        """Whether any of the rows has an error."""
        return any(row.number in self._errors for row in rows)

    def tell(self) -> None:
        """Raise what was kept, if anything.

        Raises:
            LiversegError: the error of a single bad row as it is; else one with a line a bad row, in the order of the
                table, of which the first 20 are shown and the rest counted.
        """
        errors = [self._errors[number] for number in sorted(self._errors)]
        if len(errors) == 1:
            raise errors[0]
        if errors:
            rest = len(errors) - _SHOWN
            more = [f"and {rest} more bad {'row' if rest == 1 else 'rows'}"] if rest > 0 else []
            raise LiversegError("\n".join([*map(str, errors[:_SHOWN]), *more])) from errors[0]


def in_threads(
    work: Callable[[_Job], _Made],
    jobs: Mapping[_Job, CohortRow],
    errors: RowErrors,
    what: str,
    unit: str,
    workers: int | None,
    progress: bool,
) -> dict[_Job, _Made]:
    """What is made of each job, in their order, with a bar; errors are kept in that order too, each for its job's row.

    Decompression and numpy leave the interpreter's lock.

    Args:
        work: what to do with a job.
        jobs: each with the row that its error is told for.
        errors: where errors are kept.
        what: a word for the bar.
        unit: what a job is, for the bar.
        workers: jobs done at a time; None for Python's default.
        progress: show the bar on a terminal.
    """

    def attempt(job: _Job) -> _Made | LiversegError:
        try:
            return work(job)
        except LiversegError as error:
            return error

    done: dict[_Job, _Made] = {}
    shown = None if progress and jobs else True  # None: on a terminal only
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(jobs), desc=what, unit=unit, file=sys.stderr, disable=shown) as bar,
    ):
        for (job, row), made in zip(jobs.items(), pool.map(attempt, jobs), strict=True):
            bar.update()
            with errors.of(row), named(row):
                if isinstance(made, LiversegError):
                    raise made
                done[job] = made
    return done
