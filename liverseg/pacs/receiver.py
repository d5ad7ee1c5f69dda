"""The node's server: C-ECHO, C-STORE, and reports of storage commitment.

pynetdicom speaks the protocol. The classes below add what a server on a hospital's network needs: a limit on the bytes
that a peer can make it hold, time limits on every read, TLS handshakes that do not keep others from connecting, and
addresses that may connect.
"""

from __future__ import annotations

import errno
import ipaddress
import itertools
import shutil
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pynetdicom._config
from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    CTImageStorage,
    EnhancedCTImageStorage,
    InstanceAvailabilityNotification,
    LegacyConvertedEnhancedCTImageStorage,
    StorageCommitmentPushModel,
    Verification,
)
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from liverseg.errors import LiversegError, OutputError, UnreadableError, one_line
from liverseg.pacs.journal import AuditTrail, Journal, Peer
from liverseg.pacs.settings import NodeSettings
from liverseg.pacs.studies import Refused, StudyStore, describe_patient, read_header

__all__ = [
    "CT_CLASSES",
    "Receiver",
    "explain_failure",
    "local_address",
    "remove_stale",
    "report_commitment",
    "tls_context",
]

CT_CLASSES = (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
"""SOP classes that are stored."""
_TRANSFER_SYNTAXES = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEGLosslessSV1,
    JPEGLossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEG2000Lossless,
    JPEG2000,
    RLELossless,
    JPEGExtended12Bit,
]
"""In the order in which the node prefers them. Deflated data sets are missing: they can inflate to any size."""

_NETWORK_SECONDS = 60.0
"""Close a connection on which nothing arrives for this time."""
_ASSOCIATE_SECONDS = 15.0
"""Close a connection without a TLS handshake or an association request after this time."""
_LEAST_PDU_LIMIT = 1 << 20
"""Longest PDU in bytes, unless a longer one is set: association requests may be longer than `max_pdu`."""
_DISK_CHECK_BYTES = 64 << 20
"""Free space is checked when this much more of an object has arrived."""
_EXTRA_CONNECTIONS = 16
"""Connections beyond `max_associations`, so that an association that is one too many is rejected and not cut off."""

_BIND_HINTS = {
    errno.EADDRINUSE: "is another node running there?",
    errno.EACCES: "ports below 1024 need a privilege: choose a higher --port",
}

_SUCCESS, _DISCARDED, _OUT_OF_RESOURCES, _NO_MATCH, _NOT_UNDERSTOOD = 0x0000, 0xB006, 0xA700, 0xA900, 0xC000

CommitmentReport = Callable[[str, set[str], set[str]], bool]
"""Takes a transaction UID, the committed and the failed SOPInstanceUIDs; returns whether the transaction is known."""


def tls_context(settings: NodeSettings, server: bool) -> ssl.SSLContext:
    """Return the TLS context of the server, or of connections to the destination: TLS 1.2 or newer.

    Raises:
        LiversegError: if a certificate or key cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for path in (settings.tls_cert, settings.tls_key, settings.tls_ca):
        if path is not None and not path.exists():
            raise LiversegError(f"{path}: no such file; TLS needs its certificate, key and authorities as PEM files")
    files = f"{settings.tls_cert} and {settings.tls_key}"
    try:
        if settings.tls_cert is not None:
            context.load_cert_chain(settings.tls_cert, settings.tls_key, password=lambda: b"")
        files = str(settings.tls_ca)
        if settings.tls_ca is not None:
            context.load_verify_locations(settings.tls_ca)
        elif not server:
            context.load_default_certs()
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or one_line(error)
        raise LiversegError(
            f"{files}: cannot be used for TLS ({reason}); PEM files are needed: a certificate, its key without a "
            "password, and certificates of authorities"
        ) from error
    if server and settings.tls_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def explain_failure(association: Association, host: str, port: int, tls: ssl.SSLContext | None) -> str:
    """Return why an association with another application was not established.

    pynetdicom reports a failed connection only to its log, so this connects once more.

    Args:
        association: the failed one.
        host: name or address of the other application.
        port: its TCP port.
        tls: context of the connection; None without TLS.
    """
    if association.is_rejected:
        return f"the association was rejected: {getattr(association.acceptor.primitive, 'reason_str', 'no reason')}"
    try:
        with socket.create_connection((host, port), timeout=_ASSOCIATE_SECONDS) as connection:
            if tls is not None:
                with tls.wrap_socket(connection, server_hostname=host) as encrypted:
                    encrypted.settimeout(1.0)
                    encrypted.recv(1)  # with TLS 1.3, the peer refuses a certificate after the handshake
    except TimeoutError:
        pass  # connected, and the peer waits; or nothing answers at all
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not valid: {error.verify_message}"
    except OSError as error:
        return f"no connection: {getattr(error, 'reason', None) or error.strerror or type(error).__name__}"
    return "no answer, or the connection was closed"


class Receiver:
    """Server of the node.

    Args:
        settings: of the node.
        store: receives the instances.
        journal: of the node.
        audit: audit trail of the node.
        on_commitment: receives reports of storage commitment.

    Attributes:
        port: TCP port, after `start`.
    """

    def __init__(
        self,
        settings: NodeSettings,
        store: StudyStore,
        journal: Journal,
        audit: AuditTrail,
        on_commitment: CommitmentReport,
    ) -> None:
        self._settings, self._store, self._journal, self._audit = settings, store, journal, audit
        self._on_commitment = on_commitment
        self._numbers = itertools.count(1)
        self._sessions: dict[Association, _Session] = {}
        self._server: Any = None
        self.port = settings.port
        # received objects go to the disk and not to memory; data of patients do not go to logs
        pynetdicom._config.STORE_RECV_CHUNKED_DATASET = True
        pynetdicom._config.LOG_HANDLER_LEVEL = "none"

    def start(self) -> None:
        """Listen, and serve each association in a thread.

        Raises:
            LiversegError: if the address is not free or not local, or TLS cannot be set up.
        """
        settings = self._settings
        entity = AE(settings.ae_title)
        entity.maximum_associations = settings.max_associations
        entity.maximum_pdu_size = settings.max_pdu
        entity.acse_timeout, entity.network_timeout = _ASSOCIATE_SECONDS, _NETWORK_SECONDS
        entity.dimse_timeout = _NETWORK_SECONDS
        entity.require_called_aet = True
        entity.require_calling_aet = list(settings.allow_ae)
        entity.add_supported_context(Verification)
        for sop_class in CT_CLASSES:
            entity.add_supported_context(sop_class, _TRANSFER_SYNTAXES)
        if settings.others == "ignore":
            for context in AllStoragePresentationContexts:
                if context.abstract_syntax is not None and context.abstract_syntax not in CT_CLASSES:
                    entity.add_supported_context(
                        context.abstract_syntax, [*_TRANSFER_SYNTAXES, DeflatedExplicitVRLittleEndian]
                    )
        entity.add_supported_context(InstanceAvailabilityNotification)
        entity.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        handlers: list[Any] = [
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_N_CREATE, self._on_availability),
            (evt.EVT_N_EVENT_REPORT, self._on_report),
            (evt.EVT_ACCEPTED, self._on_accepted),
            (evt.EVT_REJECTED, self._on_rejected),
        ]
        tls = tls_context(settings, server=True) if settings.tls_cert is not None else None
        try:
            self._server = entity.make_server(
                (settings.address, settings.port),
                ae_title=settings.ae_title,
                evt_handlers=handlers,
                server_class=_Server,
                request_handler=_Handler,
            )
        except (OSError, OverflowError) as error:
            hint = _BIND_HINTS.get(getattr(error, "errno", None) or 0, "--address needs an address of this machine")
            raise LiversegError(
                f"{settings.address}, port {settings.port}: cannot be listened at "
                f"({getattr(error, 'strerror', None) or error}); {hint}"
            ) from error
        entity._servers.append(self._server)  # as AE.start_server does, for AE.active_associations
        self._server.receiver, self._server.tls = self, tls
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True).start()

    def stop(self, grace: float) -> None:
        """Accept no more associations, and abort those that do not end within some seconds."""
        if self._server is None:
            return
        active = self._server.active_associations
        self._server.shutdown()
        deadline = time.monotonic() + grace
        while (alive := [association for association in active if association.is_alive()]) and (
            time.monotonic() < deadline
        ):
            time.sleep(0.05)
        for association in alive:
            with suppress(Exception):
                association.abort()
        self.end_sessions()

    def end_sessions(self) -> None:
        """Report the associations that have ended. To be called about once a second.

        A connection may be closed while its last object is still written, so the end of its thread counts.
        """
        for association in [association for association in list(self._sessions) if not association.is_alive()]:
            self._end_session(self._sessions.pop(association))

    def allows(self, address: str) -> bool:
        """Return whether an address may connect; record a refusal."""
        networks = self._settings.allow_address
        try:
            own = ipaddress.ip_address(address)
        except ValueError:
            own = None
        mapped = getattr(own, "ipv4_mapped", None) or own
        if not networks or any(mapped is not None and mapped in network for network in networks):
            return True
        self.refuse(("", address), "address not allowed")
        return False

    def refuse(self, peer: Peer, reason: str) -> None:
        """Record that a connection was refused."""
        self._journal.log("connection refused", ae_title=peer[0], address=peer[1], reason=reason)
        self._audit.record("refused", peer, outcome="minor failure", reasons=[reason])

    def check_space(self) -> None:
        """Check that the disk has enough free space.

        Raises:
            Refused: if it has not.
        """
        if shutil.disk_usage(self._store.folder).free < self._settings.min_free_bytes:
            raise Refused(_OUT_OF_RESOURCES, "too little free space on the disk")

    # Handlers of pynetdicom's events, each in the thread of its association

    def _on_accepted(self, event: evt.Event) -> None:
        session = _Session(next(self._numbers), _peer(event.assoc))
        self._sessions[event.assoc] = session
        self._journal.log("association", ae_title=session.peer[0], address=session.peer[1])
        self._audit.record("connected", session.peer)

    def _on_rejected(self, event: evt.Event) -> None:
        peer, allowed = _peer(event.assoc), self._settings.allow_ae
        called = _printable(getattr(event.assoc.requestor.primitive, "called_ae_title", None) or "")
        if allowed and peer[0] not in {title.strip() for title in allowed}:
            reason = "calling AE title not allowed"
        elif called != self._settings.ae_title.strip():
            reason = f"called AE title is {called}, not {self._settings.ae_title.strip()}"
        else:
            reason = "too many associations"
        self.refuse(peer, f"association rejected: {reason}")

    def on_unwritable(self, association: Association, error: OSError) -> None:
        """Record that an object could not be written while it arrived; the association has ended."""
        title, address = _peer(association)
        reason = f"an object cannot be written while it arrives ({error.strerror or type(error).__name__})"
        self._journal.log("error", reason=reason, ae_title=title, address=address)

    def _end_session(self, session: _Session) -> None:
        self._store.end_association(session.number)
        if session.ignored:
            self._journal.log("ignored", instances=session.ignored, ae_title=session.peer[0])
        for study in sorted({*session.accepted, *session.refused}):
            accepted, refused = session.accepted[study], session.refused.get(study, Counter())
            self._journal.log(
                "received", study=study, instances=accepted, refused=dict(refused), ae_title=session.peer[0]
            )
            self._audit.record(
                "received",
                session.peer,
                outcome="minor failure" if refused else "success",
                study=study,
                instances=accepted,
                patient=session.patients.get(study),
                reasons=refused,
            )

    def _on_store(self, event: evt.Event) -> int:
        session = self._sessions.get(event.assoc) or _Session(0, _peer(event.assoc))
        _restart_count(event.assoc)
        study = ""
        try:
            self.check_space()
            request: Any = event.request
            if request.AffectedSOPClassUID not in CT_CLASSES:
                session.ignored += 1
                return _DISCARDED
            path = event.dataset_path
            try:
                header = read_header(path)
            except UnreadableError as error:
                raise Refused(_NOT_UNDERSTOOD, "not a readable DICOM object") from error
            study = header.study
            stated = str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID)
            if (header.sop_class, header.instance) != stated:
                raise Refused(_NO_MATCH, "SOP class or instance differ from those of the request")
            self._store.receive(path, header, session.number)
        except Refused as refusal:
            session.refused.setdefault(study, Counter())[refusal.reason] += 1
            return refusal.status
        except (OSError, OutputError) as error:
            session.refused.setdefault(study, Counter())["cannot be written"] += 1
            self._journal.log("error", reason=f"an instance cannot be written ({one_line(error)})")
            return _OUT_OF_RESOURCES
        session.accepted[study] += 1
        if self._settings.keep_identifiers:
            session.patients[study] = describe_patient(header)
        return _SUCCESS

    def _on_availability(self, event: evt.Event) -> tuple[int, Dataset | None]:
        """Take an Instance Availability Notification as a sign that a study is complete, if all of it is here."""
        try:
            notice = event.attribute_list
            study = str(notice.StudyInstanceUID)
            referenced = {
                str(item.ReferencedSOPInstanceUID)
                for series in notice.ReferencedSeriesSequence
                for item in series.ReferencedSOPSequence
                if item.ReferencedSOPClassUID in CT_CLASSES
            }
        except Exception:  # whatever a peer sends
            return 0x0110, None
        if referenced and self._store.has_instances(study, referenced):
            self._store.mark_complete(study)
        return _SUCCESS, None

    def _on_report(self, event: evt.Event) -> tuple[int, Dataset | None]:
        known = report_commitment(event, self._on_commitment)
        return (_SUCCESS if known else 0x0112), None


def report_commitment(event: evt.Event, on_commitment: CommitmentReport) -> bool:
    """Pass an N-EVENT-REPORT of storage commitment on; return whether its transaction is known."""
    try:
        report = event.event_information
        committed, failed = (
            {str(item.ReferencedSOPInstanceUID) for item in report.get(keyword) or ()}
            for keyword in ("ReferencedSOPSequence", "FailedSOPSequence")
        )
        return on_commitment(str(report.TransactionUID), committed, failed)
    except Exception:  # whatever a peer sends
        return False


class _Session:
    """What an association has brought, by StudyInstanceUID."""

    def __init__(self, number: int, peer: Peer) -> None:
        self.number, self.peer = number, peer
        self.accepted: Counter[str] = Counter()
        self.refused: dict[str, Counter[str]] = {}
        self.patients: dict[str, Any] = {}
        self.ignored = 0


def _peer(association: Association) -> Peer:
    requestor = association.requestor
    return _printable(requestor.ae_title), str(requestor.address)


def _printable(title: str) -> str:
    """Return an AE title of a peer without characters that could disturb a log."""
    return "".join(char if char.isprintable() and char.isascii() else "?" for char in title.strip())[:16]


def _restart_count(association: Association) -> None:
    """Start to count the bytes of the next object."""
    connection = association.dul.socket
    if isinstance(connection, _BoundedSocket):
        connection.received = 0


class _Server(ThreadedAssociationServer):
    """A server that checks addresses, limits connections, and does TLS handshakes in each connection's thread.

    pynetdicom does the handshake where it accepts connections, so a peer that sends nothing would keep all others out.
    """

    receiver: Receiver | None = None
    tls: ssl.SSLContext | None = None
    daemon_threads = True
    request_queue_size = 64

    def verify_request(self, request: Any, client_address: Any) -> bool:
        receiver = self.receiver
        if receiver is None or not receiver.allows(str(client_address[0])):
            return False
        if len(self.active_associations) >= receiver._settings.max_associations + _EXTRA_CONNECTIONS:
            receiver.refuse(("", str(client_address[0])), "too many connections")
            return False
        return True

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            request.settimeout(_ASSOCIATE_SECONDS)
            if self.tls is not None:
                request = self.tls.wrap_socket(request, server_side=True)
            request.settimeout(_NETWORK_SECONDS)
        except (OSError, ValueError) as error:
            if self.receiver is not None:
                reason = getattr(error, "reason", None) or type(error).__name__
                self.receiver.refuse(("", str(client_address[0])), f"no TLS connection: {reason}")
            self.shutdown_request(request)
            return
        super().process_request_thread(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: the connection is closed, and its end is in the journal."""


class _Handler(RequestHandler):
    """Makes associations that read from a `_BoundedSocket`."""

    def _create_association(self) -> Association:
        association = super()._create_association()
        assert isinstance(self.server, _Server) and self.server.receiver is not None
        connection: Any = association.dul.socket
        connection.__class__ = _BoundedSocket  # pynetdicom has no argument for it
        receiver = connection.receiver = self.server.receiver
        connection.received, connection.checked = 0, 0
        reactor: Any = association.dul
        run = reactor.run

        def run_and_report() -> None:
            try:
                run()
            except OSError as error:  # pynetdicom writes the object in this thread, and has no handler for it
                receiver.on_unwritable(association, error)

        reactor.run = run_and_report
        return association


class _BoundedSocket(AssociationSocket):
    """A connection whose peer cannot make the node hold a PDU or an object of any size.

    Attributes:
        receiver: of the node.
        received: bytes since the last object.
        checked: `received` when free space was checked last.
    """

    receiver: Receiver
    received: int
    checked: int

    def recv(self, nr_bytes: int) -> bytearray:
        settings = self.receiver._settings
        if nr_bytes > max(settings.max_pdu, _LEAST_PDU_LIMIT):
            raise OSError(f"a PDU of {nr_bytes} bytes")
        self.received += nr_bytes
        if self.received > settings.max_study_bytes + _LEAST_PDU_LIMIT:
            raise OSError("an object larger than a study may be")
        if self.received < self.checked:
            self.checked = 0
        if self.received - self.checked > _DISK_CHECK_BYTES:
            self.checked = self.received
            free = shutil.disk_usage(self.receiver._store.folder).free
            if free < settings.min_free_bytes // 2:
                raise OSError("too little free space on the disk")
        return super().recv(nr_bytes)


def remove_stale(folder: Path, seconds: float) -> None:
    """Remove files of connections that were cut off: those that nobody has written to for some seconds."""
    limit = time.time() - seconds
    for path in folder.glob("*.dcm"):
        with suppress(OSError):
            if path.stat().st_mtime < limit:
                path.unlink()


def local_address(settings: NodeSettings) -> str:
    """Return the address at which a process on this machine reaches the node."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(settings.address, settings.address)
