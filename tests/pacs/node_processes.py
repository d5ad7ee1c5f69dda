"""A node in a process, the peers that it talks to, and the studies they send."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pydicom
from default_signals import use_default_signals
from dicom_files import write_slice
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    Verification,
)

LONGEST = 120
"""Upper limit of a wait in seconds, also on a busy machine."""
IDENTIFIERS = {
    "PatientName": "Quasimodo^Esmeralda",
    "PatientID": "PID-0815-4711",
    "PatientBirthDate": "19470821",
    "AccessionNumber": "ACC99887766",
    "StudyDate": "20210314",
    "StudyID": "STID5544",
    "StudyDescription": "Abdomen of Quasimodo",
    "SeriesDescription": "Portal of Esmeralda",
    "ReferringPhysicianName": "Frollo^Jehan",
    "InstitutionName": "Hospital Notre-Dame",
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def write_ct_study(folder, number=1, slices=5, seed=None, **tags):
    """Write a CT series of small random slices as DICOM files and return their paths, in order."""
    random = np.random.default_rng(number if seed is None else seed)
    planes = random.integers(-200, 250, (slices, 40, 48)).astype(np.int16)
    planes[:, :6] = -1000
    study = f"1.2.826.0.1.3680043.10.1000.{number}"
    paths = []
    for index, plane in enumerate(planes):
        path = folder / f"{index}.dcm"
        write_slice(path, plane, (-15, -12, 2.5 * index), uid=f"{study}.1")
        header = pydicom.dcmread(path)
        header.StudyInstanceUID, header.SeriesInstanceUID = study, f"{study}.1"
        header.FrameOfReferenceUID = f"{study}.2"
        header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = f"{study}.1.{index + 1}"
        for keyword, value in {**IDENTIFIERS, "PatientID": f"PID-{number}", **tags}.items():
            setattr(header, keyword, value)
        header.save_as(path)
        paths.append(path)
    return paths


class Node:
    """`liverseg listen` in a process."""

    def __init__(self, folder, *options, port=None, **environment):
        self.folder, self.port = Path(folder), port or free_port()
        self._options, self._environment = options, environment
        self.start()

    def start(self, wait=True):
        starts = len(self.log("run begun"))
        words = ["listen", self.folder, "--port", self.port, "--quiet-seconds", "0.5", "--min-free-gb", "0"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "liverseg.cli.main", *map(str, [*words, *self._options])],
            env={**os.environ, "OMP_NUM_THREADS": "1", **self._environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=use_default_signals,
        )
        if wait:
            self.wait(lambda: len(self.log("run begun")) > starts)

    def wait(self, condition, alive=True):
        """Wait until a condition holds and return its value."""
        deadline = time.monotonic() + LONGEST
        while not (value := condition()):
            assert time.monotonic() < deadline, f"{LONGEST} s are over: {self.log()[-5:]}"
            assert not alive or self.process.poll() is None, self.process.communicate()
            time.sleep(0.02)
        return value

    def wait_for(self, event, times=1):
        """Wait until the journal has an event a number of times; return its lines."""
        return self.wait(lambda: len(found := self.log(event)) >= times and found)

    def log(self, event=None):
        """Return the lines of the journal, or those of an event."""
        path = self.folder / "run.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [line for line in map(json.loads, lines) if event in (None, line["event"])]

    def audit(self):
        path = self.folder / "audit.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def states(self):
        """Return the state of every study by its UID."""
        content = [json.loads(path.read_text(encoding="utf-8")) for path in self.folder.glob("studies/*/study.json")]
        return {item["uid"]: item["state"] for item in content}

    def instances(self):
        return sorted(self.folder.glob("studies/*/instances/*.dcm"))

    def stop(self, number=signal.SIGTERM):
        """End the node; return exit code and output."""
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=LONGEST)
        return self.process.returncode, out

    def kill(self):
        self.process.kill()
        self.process.communicate()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.kill()


def connect(port, ae_title="MODALITY", called="LIVERSEG", classes=(CTImageStorage,), syntaxes=None, **options):
    """Open an association as a modality would."""
    entity = AE(ae_title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = 20
    for sop_class in (*classes, Verification):
        entity.add_requested_context(sop_class, syntaxes) if syntaxes else entity.add_requested_context(sop_class)
    return entity.associate("127.0.0.1", port, ae_title=called, **options)


def send(port, paths, **options):
    """Send files in one association; return their statuses."""
    association = connect(port, **options)
    assert association.is_established
    statuses = [association.send_c_store(pydicom.dcmread(path)).get("Status") for path in paths]
    association.release()
    return statuses


class Archive:
    """A destination in this process that keeps what it receives, as `objects` in order of arrival.

    Args:
        status: returns the status of a C-STORE for the object and the number of earlier attempts.
        commit: "same" or "new" association for reports of storage commitment; "refused once" for the same association
            after a refusal; None to offer none.
        node: port of the node that gets the reports.
    """

    def __init__(self, port=None, status=lambda item, count: 0, commit=None, node=None, ssl_context=None):
        self.port, self.objects, self.requests, self._status = port or free_port(), [], [], status
        self._commit, self._node, self._tries, self.lost = commit, node, 0, set()
        self.entity = AE("ARCHIVE")
        for context in AllStoragePresentationContexts:
            self.entity.add_supported_context(context.abstract_syntax)
        if commit:
            self.entity.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        self._server = self.entity.start_server(
            ("127.0.0.1", self.port),
            block=False,
            evt_handlers=[(evt.EVT_C_STORE, self._on_store), (evt.EVT_N_ACTION, self._on_action)],
            ssl_context=ssl_context,
        )

    def _on_store(self, event):
        item = event.dataset
        item.file_meta = event.file_meta
        status = self._status(item, self._tries)
        self._tries += 1
        if status == 0:
            self.objects.append(item)
        return status

    def _on_action(self, event):
        if self._commit == "refused once":
            self._commit = "same"
            return 0x0110, None
        request = event.action_information
        self.requests.append(request)
        report = pydicom.Dataset()
        report.TransactionUID = request.TransactionUID
        stored = {item.SOPInstanceUID for item in self.objects} - self.lost
        items = request.ReferencedSOPSequence
        report.ReferencedSOPSequence = [item for item in items if item.ReferencedSOPInstanceUID in stored]
        failed = [item for item in items if item.ReferencedSOPInstanceUID not in stored]
        if failed:
            report.FailedSOPSequence = failed
        threading.Thread(target=self._report, args=(event.assoc, report, 2 if failed else 1)).start()
        return 0, None

    def _report(self, association, report, kind):
        time.sleep(0.2)
        words = (report, kind, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
        if self._commit == "same":
            association.send_n_event_report(*words)
            return
        from pynetdicom import build_role

        entity = AE("ARCHIVE")
        entity.add_requested_context(StorageCommitmentPushModel)
        role = build_role(StorageCommitmentPushModel, scp_role=True, scu_role=True)
        own = entity.associate("127.0.0.1", self._node, ae_title="LIVERSEG", ext_neg=[role])
        if own.is_established:
            own.send_n_event_report(*words)
            own.release()

    def uids(self):
        return [str(item.SOPInstanceUID) for item in self.objects]

    def close(self):
        self.entity.shutdown()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
