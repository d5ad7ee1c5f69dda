"""Workers as the dispatcher sees them: places for one each, and what each has been given."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from liverseg.batch.clocks import CaseClock
from liverseg.cases.case import BatchCase

__all__ = ["Given", "Hand", "Limits", "Start", "Tell", "Worker", "ended_in_words"]

Tell = Callable[[dict[str, Any]], None]
"""Takes an event: what happened, under `event`, and what belongs to it."""


class Worker(Protocol):
    """What computes cases, on this machine or another; tells the events of `CaseWorker`, and `gone` at last."""

    def send(self, case: BatchCase) -> None:
        """Give it a case more."""

    def finish(self) -> None:
        """There are no more cases."""

    def drain(self) -> None:
        """Compute none of the cases it has, but write what is computed; then end."""

    def kill(self) -> None:
        """End it now."""


Start = Callable[[Tell], Worker]
"""Begins a worker."""


@dataclass(frozen=True)
class Limits:
    """How long things may take, in seconds.

    Attributes:
        case: a case, in all its stages.
        grace: to finish the case in hand when the batch is told to stop.
        start: a worker, until it has loaded the weights.
    """

    case: float = 3600.0
    grace: float = 20.0
    start: float = 900.0


@dataclass
class Given:
    """A case a worker has been given.

    Attributes:
        case: the case.
        clock: how long it has been worked at.
        begun: the worker holds it.
        writing: it is computed.
    """

    case: BatchCase
    clock: CaseClock = field(default_factory=CaseClock)
    begun: bool = False
    writing: bool = False


@dataclass
class Hand:
    """A place for a worker.

    Attributes:
        worker: who is there; None where nobody is.
        given: what it has been given and is not settled, by name.
        ready: it has loaded the weights.
        since: when it was begun, seconds.
        oom_kills: how often the system had run out of memory by then.
        late: the case it was killed for.
        on_its_own: it has one case alone, to see whether that one ends it.
        closed_until: when it may be tried again to begin one here, seconds.
    """

    worker: Worker | None = None
    given: dict[str, Given] = field(default_factory=dict)
    ready: bool = False
    since: float = 0.0
    oom_kills: int = 0
    late: str | None = None
    on_its_own: bool = False
    closed_until: float = 0.0

    @property
    def in_front(self) -> int:
        """How many cases it has that are not being written."""
        return sum(not one.writing for one in self.given.values())

    def take(self, name: str) -> None:
        """A case is settled."""
        self.given.pop(name, None)
        if not self.given:
            self.on_its_own = False


def ended_in_words(code: int) -> str:
    """How a process ended, by its exit code, below 0 for a signal."""
    if code < 0:
        try:
            return f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"
    return f"ended with exit code {code}"
