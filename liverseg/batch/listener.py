"""Who is told what becomes of a batch's cases."""

from __future__ import annotations

from typing import Any

from liverseg.cases.case import BatchCase

__all__ = ["BatchListener"]


class BatchListener:
    """Is told what becomes of each case."""

    def begun(self, case: BatchCase, stamp: str) -> None:
        """A worker has it in hand; its input was then as the stamp says."""

    def done(self, case: BatchCase, about: dict[str, Any]) -> None:
        """Its results are there; `about` as `CaseWorker` tells."""

    def already(self, case: BatchCase) -> None:
        """Its results were there."""

    def failed(self, case: BatchCase, category: str, reason: str) -> None:
        """It has failed."""

    def failed_before(self, case: BatchCase, known: dict[str, Any]) -> None:
        """It failed in an earlier run, and is not tried again."""

    def abandoned(self, case: BatchCase) -> None:
        """A worker had been given it, and it is left for the next run."""

    def note(self, what: str) -> None:
        """Something a reader of the run's log wants to know."""

    def tick(self) -> None:
        """Twice a second or so."""
