"""Run the node: receive studies, compute them, send the results; and check a running one."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from liverseg import __version__
from liverseg.batch.workers import TimeLimits
from liverseg.errors import LiversegError, OutputError, one_line
from liverseg.pacs.journal import AuditTrail, Journal
from liverseg.pacs.settings import NodeSettings
from liverseg.utils.files import ensure_writable
from liverseg.utils.locks import FileLock
from liverseg.utils.shutdown import GracefulShutdown

__all__ = ["check_node", "end_process", "run_node"]

_TICK_SECONDS = 0.25
_HEARTBEAT_SECONDS = 10.0
_RETENTION_SECONDS = 600.0
"""Time between two searches for studies to delete, and for files of connections that were cut off."""
_OPEN_FACTOR = 10.0
"""A study whose associations stay open is complete after this many times `quiet_seconds` without an instance."""
_STALE_SECONDS = 900.0


def run_node(
    settings: NodeSettings,
    *,
    weights: Path | None = None,
    bundle: Path | None = None,
    workers: int | None = None,
    cpus: float | None = None,
    limits: TimeLimits | None = None,
    retry_failed: bool = False,
    **overrides: Any,
) -> None:
    """Receive studies, compute them and send the results until a signal stops it.

    Args:
        settings: of the node.
        weights: trained weights; by default as for `run_inference`.
        bundle: folder of the bundle; by default the joint bundle.
        workers: number of worker processes, by default 1.
        cpus: processors of each; by default an equal share.
        limits: time limits of a case and of the end.
        retry_failed: queue failed studies and unsent results again.
        overrides: of the keys of the bundle's `configs/inference.yaml`; None keeps the config's value.

    Raises:
        LiversegError: if the folder, the address, the weights or a setting cannot be used.
    """
    with GracefulShutdown() as shutdown:
        stop = threading.Event()
        with shutdown.on_signal(stop.set):
            _Node(settings, limits or TimeLimits(), retry_failed).run(
                stop,
                weights=weights,
                bundle=bundle,
                workers=workers or 1,
                cpus=cpus,
                overrides={**overrides, "keep_identifiers": settings.keep_identifiers or None},
            )


class _Node:
    """The parts of the node, and the thread that connects them."""

    def __init__(self, settings: NodeSettings, limits: TimeLimits, retry_failed: bool) -> None:
        self._settings, self._limits, self._retry_failed = settings, limits, retry_failed
        folder = settings.folder.absolute()
        self._folder = folder
        self._alive = folder / "alive"
        self._journal = Journal(folder / "run.jsonl")
        self._audit = AuditTrail(Journal(folder / "audit.jsonl"), (settings.ae_title, settings.address))

    def run(self, stop: threading.Event, **compute: Any) -> None:
        """Run until `stop` is set."""
        ensure_writable(self._folder)
        try:
            lock = FileLock.try_acquire(self._folder / "node.lock")
        except OSError as error:
            raise OutputError(
                f"{self._folder}: cannot be locked ({error.strerror or error}); does its file system support locks?"
            ) from error
        if lock is None:
            raise LiversegError(f"{self._folder}: another node uses this folder; give each node its own")
        try:
            self._run(stop, compute)
        finally:
            lock.release()

    def _run(self, stop: threading.Event, compute: Mapping[str, Any]) -> None:
        # these import pydicom and pynetdicom, an extra
        try:
            from liverseg.pacs.receiver import Receiver
            from liverseg.pacs.sender import Sender
        except ImportError as error:
            raise LiversegError(f"the node needs pynetdicom ({error}): pip install 'liverseg[pacs]'") from error
        from liverseg.pacs.computing import Computing
        from liverseg.pacs.studies import StudyStore

        settings = self._settings
        store = StudyStore(self._folder, settings.max_instances, settings.max_study_bytes)
        sender = Sender(settings, store, self._journal, self._audit) if settings.destination is not None else None
        computing = Computing(
            store,
            self._journal,
            sender.wake if sender is not None else lambda: None,
            limits=self._limits,
            **compute,
        )
        receiver = Receiver(
            settings,
            store,
            self._journal,
            self._audit,
            sender.on_commitment if sender is not None else lambda *_: False,
        )
        with _process_settings(store.incoming):
            store.open()
            self._serve(stop, store, receiver, computing, sender)

    def _serve(self, stop: threading.Event, store: Any, receiver: Any, computing: Any, sender: Any) -> None:
        """Start all threads, and stop them in order when `stop` is set."""
        self._requeue(store)
        receiver.start()
        computing.start()
        if sender is not None:
            sender.start()
        self._touch()
        self._journal.log("run begun", version=__version__, ae_title=self._settings.ae_title, port=receiver.port)
        self._audit.record("start")
        _say(f"{self._settings.ae_title} listens at {self._settings.address}, port {receiver.port}")
        try:
            self._loop(stop, store, receiver, computing)
        finally:
            _say("stopping: current associations and cases may finish")
            # the receiver first: whatever it accepts is on the disk
            receiver.stop(self._limits.grace)
            computing.stop()
            if sender is not None:
                sender.stop(self._limits.grace)
            self._journal.log("run ended")
            self._audit.record("stop")
            with suppress(OSError):
                self._alive.unlink(missing_ok=True)

    def _loop(self, stop: threading.Event, store: Any, receiver: Any, computing: Any) -> None:
        from liverseg.pacs.receiver import remove_stale

        touched = cleaned = -_RETENTION_SECONDS
        quiet = self._settings.quiet_seconds
        while not stop.wait(_TICK_SECONDS):
            now = time.monotonic()
            receiver.end_sessions()
            for key in store.quiet(quiet, _OPEN_FACTOR * quiet):
                try:
                    study = store.queue(key)
                except (OSError, LiversegError) as error:
                    self._journal.log("error", reason=f"a study cannot be queued ({one_line(error)})")
                    continue
                if study is not None:
                    self._journal.log("queued", case=study.case, study=study.uid, instances=study.instances)
                    computing.submit(study)
            if now - touched > _HEARTBEAT_SECONDS:
                touched = now
                self._touch()
            if now - cleaned > _RETENTION_SECONDS:
                cleaned = now
                remove_stale(store.incoming, _STALE_SECONDS)
                self._delete_old(store)

    def _requeue(self, store: Any) -> None:
        if self._retry_failed:
            for _, study in store.scan():
                if study is not None and study.state in ("failed", "unsent"):
                    store.requeue(study)
                    self._journal.log("queued again", case=study.case)

    def _delete_old(self, store: Any) -> None:
        """Delete the studies that have been finished for `keep_days`."""
        days = self._settings.keep_days
        if days is None:
            return
        final = {"sent", "failed"} if self._settings.destination is not None else {"computed", "sent", "failed"}
        for _, study in store.scan():
            if study is None or study.state not in final or time.time() - study.changed < days * 86400:
                continue
            try:
                if store.delete(study):
                    self._journal.log("deleted", case=study.case, study=study.uid)
                    self._audit.record("deleted", study=study.uid, instances=study.instances)
            except OSError as error:
                self._journal.log("error", reason=f"{study.case} cannot be deleted ({one_line(error)})")

    def _touch(self) -> None:
        with suppress(OSError):
            self._alive.touch()


def check_node(settings: NodeSettings) -> None:
    """Send a C-ECHO to the node of a folder and print the number of studies in each state.

    Raises:
        LiversegError: if it does not answer.
    """
    try:
        from pynetdicom import AE
        from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

        from liverseg.pacs.receiver import explain_failure, local_address, tls_context
        from liverseg.pacs.studies import StudyStore
    except ImportError as error:
        raise LiversegError(f"the node needs pynetdicom ({error}): pip install 'liverseg[pacs]'") from error
    store = StudyStore(settings.folder.absolute(), settings.max_instances, settings.max_study_bytes)
    if not store.studies.is_dir():
        raise LiversegError(f"{settings.folder}: not the folder of a node")
    counts = store.counts()
    print("\n".join(f"{state}: {count}" for state, count in counts.items()))
    free = shutil.disk_usage(settings.folder).free
    print(f"free on the disk: {free / (1 << 30):.1f} GiB")
    entity = AE(settings.allow_ae[0] if settings.allow_ae else settings.ae_title)
    entity.acse_timeout = entity.dimse_timeout = entity.connection_timeout = 10.0
    entity.add_requested_context(Verification)
    host = local_address(settings)
    context = None
    if settings.tls_cert is not None:
        context = tls_context(settings, server=False)
        context.check_hostname = False  # on this machine the name in the certificate is another
    tls = None if context is None else (context, host)
    association = entity.associate(host, settings.port, ae_title=settings.ae_title, tls_args=tls)
    problem = "" if association.is_established else f" ({explain_failure(association, host, settings.port, context)})"
    answer = association.send_c_echo().get("Status") if association.is_established else None
    if association.is_established:
        association.release()
    if answer != 0:
        raise LiversegError(
            f"{settings.ae_title} at {host}, port {settings.port}: no answer to C-ECHO{problem}; is the node running, "
            "does --check have its options, and do --allow-ae and --allow-address let this machine connect?"
        )
    print(f"{settings.ae_title} at {host}, port {settings.port} answers")
    if free < settings.min_free_bytes:
        raise LiversegError(
            f"{settings.folder}: less than {settings.min_free_gb:g} GiB are free; instances are refused"
        )


@contextmanager
def _process_settings(temporary: Path) -> Iterator[None]:
    """Change what modules share in a process, and restore it after the node: it may run in a process of others."""
    from pydicom import config

    modes = config.settings.reading_validation_mode, config.settings.writing_validation_mode
    folder = tempfile.tempdir
    # validation would print odd values, such as a patient's birth date
    config.settings.reading_validation_mode = config.settings.writing_validation_mode = config.IGNORE
    # received objects and workers' temporary files: removed at the next start, and on the studies' file system
    tempfile.tempdir = str(temporary)
    try:
        yield
    finally:
        tempfile.tempdir = folder
        config.settings.reading_validation_mode, config.settings.writing_validation_mode = modes


def _say(line: str) -> None:
    with suppress(OSError):
        print(f"liverseg: {line}", file=sys.stderr, flush=True)


def end_process(code: int) -> None:
    """End the process at once: a connection whose peer hangs may keep a thread."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
