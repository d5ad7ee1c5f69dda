"""Events of a case while it is computed, and the callbacks that receive them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = [
    "Callback",
    "CaseDone",
    "CaseEvent",
    "CaseFailed",
    "Event",
    "StageEnded",
    "StageProgress",
    "StageStarted",
]


@dataclass(frozen=True)
class Event:
    """Base class of all events."""


@dataclass(frozen=True)
class CaseEvent(Event):
    """Base class of the events of a case.

    Attributes:
        case: name of the case.
    """

    case: str


@dataclass(frozen=True)
class StageStarted(CaseEvent):
    """A stage of a case has started.

    Attributes:
        stage: "read", "compute" or "write"; in a batch also "claim".
    """

    stage: str


@dataclass(frozen=True)
class StageEnded(CaseEvent):
    """A stage of a case has ended, with or without success.

    Between two stages of a case, other cases may be processed.

    Attributes:
        stage: as in `StageStarted`.
    """

    stage: str


@dataclass(frozen=True)
class StageProgress(CaseEvent):
    """Part of a stage is done.

    Attributes:
        part: the part of the stage, as `StageTimer` names it.
        share: fraction of the part that is done, 0 to 1.
    """

    part: str
    share: float


@dataclass(frozen=True)
class CaseDone(CaseEvent):
    """All files of a case are written.

    Attributes:
        found: findings in words.
        seconds: duration by stage.
        warnings: caveats for readers of the results, one sentence each.
    """

    found: str
    seconds: Mapping[str, float]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class CaseFailed(CaseEvent):
    """A case failed and wrote no files.

    Attributes:
        stage: the stage that failed; None if the process ended or was killed.
        category: one of `FAILURE_CATEGORIES`, or "timeout".
        reason: one line.
        error: the exception, only in the process that raised it.
    """

    stage: str | None
    category: str
    reason: str
    error: Exception | None = field(default=None, compare=False, repr=False)


class Callback:
    """Receives the events of a run over cases.

    The base class ignores them. Receivers override `on_event` by a `functools.singledispatchmethod`.
    """

    def on_event(self, event: Event) -> None:
        """Handle an event. Called from several threads."""

    def should_run(self, case: str) -> bool:
        """Return whether to compute a case that has been read; if not, no further event of the case follows."""
        return True
