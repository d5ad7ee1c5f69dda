"""Events of a batch: from its planner, its workers and its dispatcher; one line of JSON between processes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from liverseg.cases.case import BatchCase
from liverseg.cases.events import CaseDone, CaseEvent, CaseFailed, Event, StageEnded, StageStarted

__all__ = [
    "CaseAbandoned",
    "CaseAlreadyDone",
    "CaseFailedBefore",
    "CaseLockedElsewhere",
    "CasePlanned",
    "CaseStarted",
    "Heartbeat",
    "Note",
    "OutputUnwritable",
    "PlanningDone",
    "PlanningFailed",
    "WorkerExited",
    "WorkerReady",
    "WorkerRefused",
    "from_json",
    "to_json",
]


@dataclass(frozen=True)
class CasePlanned(Event):
    """A case has to be computed.

    Attributes:
        case: the case.
    """

    case: BatchCase


@dataclass(frozen=True)
class PlanningDone(Event):
    """Every case has been looked at: no `CasePlanned` follows."""


@dataclass(frozen=True)
class PlanningFailed(Event):
    """The planner has stopped with an unexpected error.

    Attributes:
        error: the exception.
    """

    error: Exception


@dataclass(frozen=True)
class WorkerReady(Event):
    """A worker has loaded the weights and waits for cases."""


@dataclass(frozen=True)
class WorkerRefused(Event):
    """A worker cannot compute any case, because of the weights, the bundle or the settings.

    Attributes:
        reason: one line.
        exit_code: exit code for the batch.
    """

    reason: str
    exit_code: int


@dataclass(frozen=True)
class WorkerExited(Event):
    """A worker has ended; always its last event.

    Attributes:
        code: exit code of the process; negative for a signal.
        cause: "out of memory" where the engine says so.
    """

    code: int
    cause: str | None = None


@dataclass(frozen=True)
class OutputUnwritable(Event):
    """The output folder cannot be written, so no case can be done.

    Attributes:
        case: name of the case that met the error.
        reason: one line.
    """

    case: str
    reason: str


@dataclass(frozen=True)
class CaseStarted(CaseEvent):
    """A worker has locked a case and starts to read it.

    Attributes:
        fingerprint: `case_fingerprint` of its input now.
    """

    fingerprint: str


@dataclass(frozen=True)
class CaseLockedElsewhere(CaseEvent):
    """Another run holds the lock of a case."""


@dataclass(frozen=True)
class CaseAlreadyDone(CaseEvent):
    """The results of a case are complete; nothing was computed."""


@dataclass(frozen=True)
class CaseFailedBefore(CaseEvent):
    """A case failed in another run with the same input, weights and settings; it is not tried again.

    Attributes:
        known: the failure, of `BatchState.find_failure`.
    """

    known: Mapping[str, Any]


@dataclass(frozen=True)
class CaseAbandoned(CaseEvent):
    """A worker had the case when the batch was stopped; it is left for the next run."""


@dataclass(frozen=True)
class Note(Event):
    """A remark for readers of the run's log.

    Attributes:
        text: one line.
    """

    text: str


@dataclass(frozen=True)
class Heartbeat(Event):
    """The dispatcher is running; sent about twice a second."""


_EVENTS: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        WorkerReady,
        WorkerRefused,
        WorkerExited,
        OutputUnwritable,
        StageStarted,
        StageEnded,
        CaseStarted,
        CaseDone,
        CaseFailed,
        CaseLockedElsewhere,
        CaseAlreadyDone,
        CaseFailedBefore,
        CaseAbandoned,
    )
}
"""Events that workers send to the dispatcher, by name."""
_LOCAL_FIELDS = ("error",)
"""Fields that do not leave the process."""


def to_json(event: Event) -> str:
    """Serialise an event to one line of JSON.

    Raises:
        TypeError: if workers do not send events of this class.
    """
    name = type(event).__name__
    if _EVENTS.get(name) is not type(event):
        raise TypeError(f"{name} is not an event of a worker")
    values = {item.name: getattr(event, item.name) for item in fields(event) if item.name not in _LOCAL_FIELDS}
    return json.dumps({"event": name, **values})


def from_json(line: str) -> Event:
    """Inverse of `to_json`.

    Raises:
        ValueError: if the line is not complete JSON, or its event or fields are unknown.
    """
    content = json.loads(line)
    try:
        kind = _EVENTS[content.pop("event")]
        return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in content.items()})
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not an event of a worker: {line[:200]}") from error
