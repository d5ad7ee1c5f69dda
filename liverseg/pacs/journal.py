"""Logs of the node: JSON lines in files of bounded size. The journal is for operators, the audit trail for auditors."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from liverseg.utils.files import append_json_line

__all__ = ["AuditTrail", "Journal", "Peer"]

MAX_LOG_BYTES = 32 << 20
"""A log file is renamed when it is larger."""
MAX_LOG_FILES = 10
"""Renamed files that are kept of a log, `.1` being the latest."""

Peer = tuple[str, str]
"""AE title and address of another application."""

_EVENTS = {
    "start": ("110120", "Application Start", "E"),
    "stop": ("110121", "Application Stop", "E"),
    "received": ("110104", "DICOM Instances Transferred", "C"),
    "sent": ("110104", "DICOM Instances Transferred", "R"),
    "deleted": ("110105", "DICOM Study Deleted", "D"),
    "refused": ("110113", "Security Alert", "E"),
    "connected": ("110114", "User Authentication", "E"),
}
"""Code, meaning and action of DICOM PS3.15 A.5.3 by our names of events; 110120 and 110121 are types of 110100."""
_OUTCOMES = {"success": 0, "minor failure": 4, "serious failure": 8}


class Journal:
    """A log file of JSON lines that is renamed when it is large; old ones are deleted.

    Args:
        path: of the file; its folder must exist.
        max_bytes: size above which it is renamed.
        max_files: number of renamed files to keep.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_LOG_BYTES, max_files: int = MAX_LOG_FILES) -> None:
        self._path, self._max_bytes, self._max_files = path, max_bytes, max_files
        self._lock = threading.Lock()
        self._failed = False

    def log(self, event: str, **details: Any) -> None:
        """Append a line; the first failure is printed, later ones are ignored. Safe in any thread.

        Args:
            event: name of the event.
            details: further fields, serialisable as JSON.
        """
        self.append({"time": _now(), "event": event, "host": socket.gethostname(), "pid": os.getpid(), **details})

    def append(self, line: Mapping[str, Any]) -> None:
        """Append a line without fields of its own."""
        with self._lock:
            try:
                if append_json_line(self._path, line, mode=0o640) > self._max_bytes:
                    self._rotate()
            except OSError as error:
                if not self._failed:
                    self._failed = True
                    with suppress(OSError):
                        print(f"{self._path}: cannot be written ({error.strerror or error})", file=sys.stderr)

    def _rotate(self) -> None:
        names = [self._path, *(Path(f"{self._path}.{number}") for number in range(1, self._max_files + 1))]
        for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
            with suppress(FileNotFoundError):
                newer.replace(older)


class AuditTrail:
    """Who connected, what was accepted, refused, sent and deleted: the fields of a DICOM audit message (PS3.15 A.5).

    Args:
        journal: file of the trail.
        node: AE title and address of this node.
    """

    def __init__(self, journal: Journal, node: Peer) -> None:
        self._journal, self._node = journal, node

    def record(
        self,
        event: str,
        peer: Peer | None = None,
        outcome: str = "success",
        study: str | None = None,
        patient: Mapping[str, str] | None = None,
        instances: int | None = None,
        reasons: Mapping[str, int] | Sequence[str] = (),
    ) -> None:
        """Append an event.

        Args:
            event: a key of the table of events.
            peer: the other application; it opened the connection unless the event is "sent".
            outcome: "success", "minor failure" or "serious failure".
            study: StudyInstanceUID.
            patient: name and id, only if identifiers are kept.
            instances: number of instances.
            reasons: why something was refused, with counts.
        """
        code, meaning, action = _EVENTS[event]
        sent = event == "sent"
        participants = [_participant(self._node, "Source" if sent else "Destination", peer is None or sent)]
        if peer is not None:
            participants.append(_participant(peer, "Destination" if sent else "Source", not sent))
        objects: list[dict[str, Any]] = []
        if study is not None:
            objects.append({"ParticipantObjectTypeCode": 2, "ParticipantObjectID": study, "Instances": instances})
        if patient is not None:
            objects.append({"ParticipantObjectTypeCode": 1, **patient})
        self._journal.append(
            {
                "EventDateTime": _now(),
                "EventID": {"csd-code": code, "codeSystemName": "DCM", "originalText": meaning},
                "EventActionCode": action,
                "EventOutcomeIndicator": _OUTCOMES[outcome],
                "EventOutcomeDescription": dict(reasons) if isinstance(reasons, Mapping) else list(reasons),
                "AuditSourceID": socket.gethostname(),
                "ActiveParticipants": participants,
                "ParticipantObjects": objects,
            }
        )


def _participant(peer: Peer, role: str, requestor: bool) -> dict[str, Any]:
    return {"UserID": peer[0], "NetworkAccessPointID": peer[1], "RoleIDCode": role, "UserIsRequestor": requestor}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
