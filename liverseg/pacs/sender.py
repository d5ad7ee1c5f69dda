"""Send results to the destination: C-STORE, and storage commitment."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from liverseg.errors import LiversegError, one_line
from liverseg.pacs.journal import AuditTrail, Journal
from liverseg.pacs.outgoing import SentObject, prepare_objects
from liverseg.pacs.receiver import explain_failure, report_commitment, tls_context
from liverseg.pacs.settings import NodeSettings
from liverseg.pacs.studies import Study, StudyStore, describe_patient, first_file, read_header

__all__ = ["Sender", "next_attempt"]

_FIRST_RETRY, _LONGEST_RETRY = 5.0, 900.0
"""Seconds before the second attempt, and at most between two: the time doubles from one to the other."""
_COMMIT_SECONDS = 3600.0
"""Wait for a report of storage commitment before it is asked for again."""
_CONNECT_SECONDS = 30.0
_WARNINGS = (0xB000, 0xB006, 0xB007)
"""Statuses of C-STORE with which an object is stored, PS3.4 B.2.3."""


def next_attempt(attempts: int) -> float:
    """Return the seconds to wait after a number of failed attempts."""
    return min(_LONGEST_RETRY, _FIRST_RETRY * 2.0 ** min(attempts - 1, 20)) if attempts > 0 else 0.0


class Sender:
    """Sends computed studies in a thread, until the destination has all of them.

    An object has the same SOPInstanceUID in each attempt, so an archive that receives it twice has it once.

    Args:
        settings: of the node, with a destination.
        store: the studies.
        journal: of the node.
        audit: audit trail of the node.
    """

    def __init__(self, settings: NodeSettings, store: StudyStore, journal: Journal, audit: AuditTrail) -> None:
        assert settings.destination is not None
        self._settings, self._store, self._journal, self._audit = settings, store, journal, audit
        self._destination = settings.destination
        self._tls = tls_context(settings, server=False) if settings.destination_tls else None
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._retry_at: dict[str, float] = {}
        self._unreachable, self._reachable_at = 0, 0.0
        self._thread = threading.Thread(target=self._run, name="send", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Look for computed studies now."""
        self._wake.set()

    def stop(self, seconds: float) -> None:
        """Stop after the current object."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(seconds)

    def on_commitment(self, transaction: str, committed: set[str], failed: set[str]) -> bool:
        """Take a report of storage commitment; objects that the destination has not kept are sent again.

        Returns:
            Whether the transaction is known.
        """
        for study in self._store.unfinished("stored"):
            if study.transaction != transaction:
                continue
            if failed or not {*study.stored} <= committed:
                self._journal.log("not committed", case=study.case, objects=len({*study.stored} - committed))
                self._fail(study, "the destination has not committed to all objects", state="computed", stored=())
            else:
                self._finish(study, "committed")
            return True
        return False

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(1.0)
            self._wake.clear()
            try:
                self._send_all()
            except Exception as error:  # a full disk, for example; the thread must go on
                self._journal.log("error", reason=f"sending: {type(error).__name__}: {one_line(error)}")
                self._stopping.wait(_FIRST_RETRY)

    def _send_all(self) -> None:
        for study in self._store.unfinished("computed", "stored"):
            if self._stopping.is_set():
                return
            tried = study.attempts or self._unreachable
            if tried and time.time() - study.since > self._settings.send_days * 86400:
                reason = study.reason or "the destination could not be reached"
                self._store.change(study, state="unsent", reason=reason)
                self._journal.log("unsent", case=study.case, reason=reason)
                continue
            now = time.monotonic()
            waiting = study.state == "stored" and time.time() - study.asked < _COMMIT_SECONDS
            if not waiting and now >= self._reachable_at and now >= self._retry_at.get(study.case, 0.0):
                self._send(study)

    def _send(self, study: Study) -> None:
        """Send what the destination does not have yet."""
        try:
            objects = prepare_objects(
                self._store.results / study.case,
                self._store.image(study),
                self._store.outgoing / study.case,
                self._settings.summary,
            )
        except LiversegError as error:
            self._fail(study, one_line(error))
            return
        if not objects:
            self._finish(study, "no object to send")
            return
        association = self._connect(objects)
        if association is None:
            return
        current: Study | None = study
        try:
            for item in objects:
                if self._stopping.is_set() or current is None:
                    return
                if item.uid in current.stored:
                    continue
                if (problem := self._store_object(association, item)) is not None:
                    self._fail(current, problem)
                    return
                current = self._store.change(current, stored=(*current.stored, item.uid))
            if current is not None:
                self._after_storing(current, association, objects)
        finally:
            if association.is_established:
                association.release()

    def _connect(self, objects: Sequence[SentObject]) -> Association | None:
        """Open an association; if that fails, no study is tried for a while."""
        settings = self._settings
        entity = AE(settings.ae_title)
        entity.acse_timeout = entity.connection_timeout = _CONNECT_SECONDS
        entity.dimse_timeout, entity.network_timeout = 120.0, 180.0
        for sop_class in sorted({item.sop_class for item in objects}):
            entity.add_requested_context(sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        if settings.commit:
            entity.add_requested_context(StorageCommitmentPushModel)
        to = self._destination
        try:
            association = entity.associate(
                to.host,
                to.port,
                ae_title=to.ae_title,
                max_pdu=settings.max_pdu,
                evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._on_report)],
                tls_args=None if self._tls is None else (self._tls, to.host),
            )
            if association.is_established:
                if self._unreachable:
                    self._journal.log("destination reachable", destination=str(to))
                self._unreachable = 0
                return association
            reason = explain_failure(association, to.host, to.port, self._tls)
        except (OSError, RuntimeError, ValueError) as error:
            reason = type(error).__name__
        self._unreachable += 1
        self._reachable_at = time.monotonic() + next_attempt(self._unreachable)
        self._journal.log("destination unreachable", destination=str(to), reason=reason, attempts=self._unreachable)
        return None

    def _store_object(self, association: Association, item: SentObject) -> str | None:
        """Send an object; return the problem, or None if the destination has it."""
        try:
            status = association.send_c_store(item.path)
        except (OSError, RuntimeError, ValueError, AttributeError) as error:
            kind = "its SOP class is not accepted" if isinstance(error, ValueError) else type(error).__name__
            return f"{item.path.name}: not sent, {kind}"
        code = status.get("Status")
        if code is None:
            return f"{item.path.name}: no answer"
        return None if code == 0 or code in _WARNINGS else f"{item.path.name}: refused with status 0x{code:04X}"

    def _after_storing(self, study: Study, association: Association, objects: Sequence[SentObject]) -> None:
        if study.state != "stored":
            self._audit_sent(study, len(objects))
        if not self._settings.commit:
            self._finish(study, "sent")
            return
        request = Dataset()
        request.TransactionUID = f"2.25.{uuid4().int}"
        request.ReferencedSOPSequence = []
        for item in objects:
            reference = Dataset()
            reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = item.sop_class, item.uid
            request.ReferencedSOPSequence.append(reference)
        # before the request: the report may come at once
        again = study.state == "stored" and study.asked > 0.0
        waiting = self._store.change(
            study,
            state="stored",
            transaction=str(request.TransactionUID),
            asked=time.time(),
            attempts=study.attempts + again,
            reason="no report of storage commitment" if again else study.reason,
        )
        if waiting is None:
            return
        try:
            status, _ = association.send_n_action(
                request, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
            )
        except ValueError:  # the destination has not accepted the presentation context
            self._finish(waiting, "sent; the destination offers no storage commitment")
            return
        except (RuntimeError, OSError):
            self._fail(waiting, "storage commitment could not be asked for", asked=0.0)
            return
        if (code := status.get("Status")) != 0:
            shown = "no answer" if code is None else f"status 0x{code:04X}"
            reason = f"storage commitment was refused ({shown}); does the destination know this node's title and port?"
            self._fail(waiting, reason, asked=0.0)
            return
        self._journal.log("commitment requested", case=study.case)
        deadline = time.monotonic() + 3.0  # some answer in the same association
        while time.monotonic() < deadline and association.is_established and not self._stopping.is_set():
            if not any(item.case == study.case for item in self._store.unfinished("stored")):
                return
            time.sleep(0.05)

    def _on_report(self, event: evt.Event) -> tuple[int, Dataset | None]:
        return (0x0000 if report_commitment(event, self.on_commitment) else 0x0112), None

    def _finish(self, study: Study, how: str) -> None:
        self._retry_at.pop(study.case, None)
        if self._store.change(study, state="sent", attempts=0, reason="") is not None:
            self._journal.log("sent", case=study.case, how=how, destination=str(self._destination))

    def _fail(self, study: Study, reason: str, **changes: Any) -> None:
        """Try a study again later."""
        attempts = study.attempts + 1
        self._retry_at[study.case] = time.monotonic() + next_attempt(attempts)
        if self._store.change(study, attempts=attempts, reason=reason, **changes) is None:
            self._retry_at.pop(study.case, None)
        self._journal.log("not sent", case=study.case, reason=reason, attempts=attempts)

    def _audit_sent(self, study: Study, instances: int) -> None:
        to, patient = self._destination, None
        if self._settings.keep_identifiers and (slice_file := first_file(self._store.image(study))) is not None:
            patient = describe_patient(read_header(slice_file))
        self._audit.record("sent", (to.ae_title, to.host), study=study.uid, instances=instances, patient=patient)
