"""Errors of a cohort's rows: each begins with its row, and all are told together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from liverseg.errors import LiversegError

if TYPE_CHECKING:
    from liverseg.datalists.cohort_table import CohortRow

__all__ = ["RowErrors", "named"]

_SHOWN = 20


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
