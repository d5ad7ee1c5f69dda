"""Studies on the node's disk: instances as they are received, and the state of each study.

    FOLDER/incoming/                    objects while they are received
    FOLDER/studies/KEY/instances/       received instances, named by a hash of their SOPInstanceUID
    FOLDER/studies/KEY/versions/N/      hard links to the instances of the N-th version, the input of inference
    FOLDER/studies/KEY/study.json       state of the latest version
    FOLDER/results/KEY-N/               case folder of the N-th version
    FOLDER/outgoing/KEY-N/              objects to send

KEY is a hash of the StudyInstanceUID: no name on the disk is text from the network. Every step is one renaming or one
hard link, after the data are flushed, so that a process that is killed at any moment loses nothing:

    received -> queued -> computed -> stored -> sent
                   `-> failed   `-> unsent

A study is `received` if it has instances that its latest version lacks. With storage commitment, a result is `stored`
until the destination has committed to it. Without a destination, `computed` is the last state. `unsent` results could
not be sent within `send_days`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pydicom

from liverseg.errors import OutputError, UnreadableError
from liverseg.utils.files import atomic_write, fsync_paths, read_json_object, sha256_file

__all__ = [
    "FINAL_STATES",
    "InstanceHeader",
    "Refused",
    "Study",
    "StudyStore",
    "describe_patient",
    "first_file",
    "read_header",
    "study_key",
]

FINAL_STATES = ("sent", "failed", "unsent")
"""States that nothing follows but a new version."""
_UNFINISHED = ("queued", "computed", "stored")
_RECEIVED, _QUEUED = "received", "queued"
_UID = re.compile(r"[0-9.]{1,64}")
_HASH = re.compile(r"[0-9a-f]{32}")
_DELETED = ".deleted-"
_TAGS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "PatientName")


class Refused(Exception):
    """An instance is not accepted.

    Args:
        status: of the C-STORE response, PS3.4 B.2.3.
        reason: without text from the object.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class InstanceHeader:
    """Identifiers of a received object.

    Attributes:
        sop_class: SOPClassUID.
        instance: SOPInstanceUID.
        study: StudyInstanceUID.
        series: SeriesInstanceUID.
        patient_id: PatientID, which may be empty.
        patient_name: PatientName, which may be empty.
    """

    sop_class: str
    instance: str
    study: str
    series: str
    patient_id: str
    patient_name: str


def read_header(path: Path) -> InstanceHeader:
    """Read the identifiers of a DICOM file.

    Raises:
        UnreadableError: if it is no DICOM file, or lacks a UID, or a UID has characters that UIDs cannot have.
    """
    try:
        content = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
        values = [str(content.get(keyword) or "").strip(" \0") for keyword in _TAGS]
    except Exception as error:  # pydicom raises many kinds for damaged files
        raise UnreadableError(f"{path.name}: its header cannot be read") from error
    if not all(_UID.fullmatch(uid) for uid in values[:4]):
        raise UnreadableError(f"{path.name}: a UID is missing or invalid")
    return InstanceHeader(*values)


def study_key(study_uid: str) -> str:
    """Return the name of a study's folder: the start of the SHA-256 of its UID."""
    return sha256(study_uid.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Study:
    """State of the latest version of a study.

    Attributes:
        key: name of its folder.
        uid: StudyInstanceUID.
        version: number of the version, from 1.
        state: see the module's description.
        instances: number of instances of the version.
        changed: time of the state's last change, seconds since 1970.
        reason: why it failed or was not sent; what was found, if it was computed.
        category: failure category.
        stored: SOPInstanceUIDs that the destination has accepted.
        attempts: failed attempts to send.
        since: time when the results were computed, seconds since 1970.
        transaction: transaction UID of the storage commitment that was asked for.
        asked: time when it was asked for, seconds since 1970.
    """

    key: str
    uid: str
    version: int
    state: str
    instances: int
    changed: float
    reason: str = ""
    category: str = ""
    stored: tuple[str, ...] = ()
    attempts: int = 0
    since: float = 0.0
    transaction: str = ""
    asked: float = 0.0

    @property
    def case(self) -> str:
        """Name of the version's case folder."""
        return f"{self.key}-{self.version}"


@dataclass
class _Reception:
    """A study of which instances are being received; `patient` is the hash of its PatientID."""

    instances: int = 0
    size: int = 0
    patient: str = ""
    last: float = field(default_factory=time.monotonic)
    associations: set[int] = field(default_factory=set)
    complete: bool = False


class StudyStore:
    """The studies of a node. All methods may be called from any thread.

    Args:
        folder: of the node.
        max_instances: of a study.
        max_bytes: of a study.
    """

    def __init__(self, folder: Path, max_instances: int, max_bytes: int) -> None:
        self.folder = folder
        self.incoming, self.studies = folder / "incoming", folder / "studies"
        self.results, self.outgoing = folder / "results", folder / "outgoing"
        self._max_instances, self._max_bytes = max_instances, max_bytes
        self._lock = threading.RLock()
        self._receptions: dict[str, _Reception] = {}
        self._unfinished: dict[str, Study] = {}

    def open(self) -> None:
        """Make the folders, remove what a killed process has left, and read the states of all studies.

        Raises:
            OutputError: if a folder cannot be written.
        """
        try:
            shutil.rmtree(self.incoming, ignore_errors=True)
            for path in (self.incoming, self.studies, self.results, self.outgoing):
                path.mkdir(parents=True, exist_ok=True, mode=0o750)
            for path in self.studies.glob(f"{_DELETED}*"):
                shutil.rmtree(path)
            fsync_paths(self.folder)
        except OSError as error:
            raise OutputError(
                f"{self.folder}: cannot be written ({error.strerror or error}); is the disk full or read-only?"
            ) from error
        for key, study in self.scan():
            if study is not None and study.state in _UNFINISHED:
                self._unfinished[key] = study
            if self._count(key) > (study.instances if study else 0):
                self._reception(key)

    def scan(self) -> Iterator[tuple[str, Study | None]]:
        """Yield every study of the disk by its key, with its state; None before its first version."""
        with os.scandir(self.studies) as entries:
            keys = [entry.name for entry in entries if _HASH.fullmatch(entry.name)]
        for key in keys:
            yield key, self.read(key)

    def read(self, key: str) -> Study | None:
        """Return the state of a study from the disk; None before its first version, or after its deletion."""
        content = read_json_object(self._state_file(key))
        if content is None:
            return None
        with suppress(TypeError):
            return Study(**{**content, "stored": tuple(content.get("stored", ()))})
        return None

    # Receiving

    def receive(self, path: Path, header: InstanceHeader, association: int) -> bool:
        """Take a received file over: when this returns, the instance is on the disk and survives a loss of power.

        Args:
            path: the file, on the same file system. It stays; the caller removes it.
            header: of the file.
            association: number of the association that brought it.

        Returns:
            False if the same instance was there.

        Raises:
            Refused: if a limit of the study would be exceeded, the study is of another patient, or an instance with the
                same UID and other content is there.
            OSError: if it cannot be written.
        """
        key, size = study_key(header.study), path.stat().st_size
        target = self._instances(key) / f"{sha256(header.instance.encode()).hexdigest()[:40]}.dcm"
        fsync_paths(path)  # before the lock: other associations go on meanwhile
        with self._lock:
            reception = self._reception(key)
            reception.last = time.monotonic()
            reception.associations.add(association)
            if reception.instances and reception.patient != _patient_hash(header):
                raise Refused(0xC002, "another patient than the study's")
            if target.exists():
                if sha256_file(target) != sha256_file(path):
                    raise Refused(0xC001, "another instance with this UID is there")
                return False
            if reception.instances >= self._max_instances:
                raise Refused(0xA700, "too many instances in the study")
            if reception.size + size > self._max_bytes:
                raise Refused(0xA700, "the study is too large")
            if not target.parent.is_dir():
                target.parent.mkdir(parents=True, mode=0o750)
                fsync_paths(target.parent.parent, self.studies)
            os.link(path, target)
            fsync_paths(target.parent)
            reception.instances += 1
            reception.size += size
            reception.patient = _patient_hash(header)
            return True

    def has_instances(self, study_uid: str, instances: set[str]) -> bool:
        """Return whether exactly these instances of a study have been received."""
        folder = self._instances(study_key(study_uid))
        names = {f"{sha256(uid.encode()).hexdigest()[:40]}.dcm" for uid in instances}
        with suppress(OSError):
            return {entry.name for entry in os.scandir(folder)} == names
        return False

    def mark_complete(self, study_uid: str) -> None:
        """Do not wait for more instances of a study: the sender says that it is complete."""
        with self._lock:
            if (reception := self._receptions.get(study_key(study_uid))) is not None:
                reception.complete = True

    def end_association(self, association: int) -> None:
        """Record that an association is closed; its studies are complete after a time without instances."""
        with self._lock:
            for reception in self._receptions.values():
                if association in reception.associations:
                    reception.associations.discard(association)
                    reception.last = time.monotonic()

    def quiet(self, seconds: float, longest: float) -> list[str]:
        """Return the keys of the studies that are complete.

        Args:
            seconds: without an instance, for studies whose associations are closed.
            longest: without an instance, for the others.
        """
        now = time.monotonic()
        with self._lock:
            return [
                key
                for key, reception in self._receptions.items()
                if reception.complete or now - reception.last >= (longest if reception.associations else seconds)
            ]

    def queue(self, key: str) -> Study | None:
        """Make a version of all instances of a study; None if the latest version has them all.

        Raises:
            OSError: if it cannot be written.
        """
        with self._lock:
            earlier = self.read(key)
            names = sorted(entry.name for entry in os.scandir(self._instances(key))) if self._count(key) else []
            self._receptions.pop(key, None)
            if len(names) <= (earlier.instances if earlier else 0):
                return None
            try:
                return self._queue(key, names, earlier)
            except BaseException:
                self._reception(key)  # try again later
                raise

    def _queue(self, key: str, names: list[str], earlier: Study | None) -> Study:
        number = earlier.version + 1 if earlier else 1
        target = self._version(key, number)
        unfinished = target.with_name(f".unfinished-{number}")
        for path in (unfinished, target):  # left by a killed process
            if path.exists():
                shutil.rmtree(path)
        unfinished.mkdir(parents=True, mode=0o750)
        for name in names:
            os.link(self._instances(key) / name, unfinished / name)
        fsync_paths(unfinished)
        unfinished.rename(target)
        fsync_paths(target.parent, target.parent.parent)
        uid = earlier.uid if earlier else read_header(target / names[0]).study
        study = Study(key, uid, number, _QUEUED, len(names), time.time())
        self._write(study)
        return study

    # States

    def unfinished(self, *states: str) -> list[Study]:
        """Return the studies in one of these states, those that wait longest first."""
        with self._lock:
            found = [study for study in self._unfinished.values() if study.state in states]
        return sorted(found, key=lambda study: study.changed)

    def find_case(self, case: str) -> Study | None:
        """Return the unfinished study of a case; None if a newer version has replaced it."""
        study = self._unfinished.get(case.rpartition("-")[0])
        return study if study is not None and study.case == case else None

    def change(self, study: Study, **changes: Any) -> Study | None:
        """Change attributes of a study; None, and no change, if a newer version has replaced it.

        Raises:
            OutputError: if it cannot be written.
        """
        with self._lock:
            current = self._unfinished.get(study.key)
            if current is None or current.version != study.version:
                return None
            changed = replace(current, **changes)
            if changed.state != current.state:
                changed = replace(changed, changed=time.time())
            self._write(changed)
            return changed

    def requeue(self, study: Study) -> Study:
        """Queue a failed or unsent study again: to be computed, or to be sent.

        Raises:
            OutputError: if it cannot be written.
        """
        with self._lock:
            state = _QUEUED if study.state == "failed" else "computed"
            now = time.time()
            again = replace(study, state=state, changed=now, since=now, reason="", category="", attempts=0, asked=0.0)
            self._write(again)
            return again

    def image(self, study: Study) -> Path:
        """Return the folder of a version's instances."""
        return self._version(study.key, study.version)

    def discard_older(self, study: Study) -> None:
        """Remove input, results and objects of the versions before this one."""
        for number in range(1, study.version):
            for path in (
                self._version(study.key, number),
                self.results / f"{study.key}-{number}",
                self.outgoing / f"{study.key}-{number}",
            ):
                if path.exists():
                    shutil.rmtree(path, ignore_errors=True)

    def delete(self, study: Study) -> bool:
        """Delete a study and its results; return False if new instances have come.

        Raises:
            OSError: if it cannot be deleted.
        """
        with self._lock:
            if self._count(study.key) > study.instances or study.key in self._receptions:
                return False
            for folder in (self.results, self.outgoing):
                for path in folder.glob(f"{study.key}-*"):
                    shutil.rmtree(path)
            deleted = self.studies / f"{_DELETED}{study.key}"
            (self.studies / study.key).rename(deleted)
            self._unfinished.pop(study.key, None)
        shutil.rmtree(deleted)
        return True

    def counts(self) -> dict[str, int]:
        """Return the number of studies by state, from the disk."""
        counts = dict.fromkeys((_RECEIVED, *_UNFINISHED, *FINAL_STATES), 0)
        for key, study in self.scan():
            waiting = self._count(key) > (study.instances if study else 0)
            state = _RECEIVED if waiting or study is None else study.state
            counts[state] = counts.get(state, 0) + 1
        return counts

    def _write(self, study: Study) -> None:
        path = self._state_file(study.key)
        with atomic_write(path, "the state of a study") as temporary:
            temporary.write_text(json.dumps(asdict(study), indent=1) + "\n", encoding="utf-8")
            fsync_paths(temporary)
        fsync_paths(path.parent)
        if study.state in _UNFINISHED:
            self._unfinished[study.key] = study
        else:
            self._unfinished.pop(study.key, None)

    def _reception(self, key: str) -> _Reception:
        """Return what is known of a study's received instances, from the disk the first time."""
        reception = self._receptions.get(key)
        if reception is None:
            reception = _Reception()
            folder = self._instances(key)
            with suppress(FileNotFoundError):
                for entry in os.scandir(folder):
                    reception.instances += 1
                    reception.size += entry.stat().st_size
                    if not reception.patient:
                        reception.patient = _patient_hash(read_header(folder / entry.name))
            self._receptions[key] = reception
        return reception

    def _count(self, key: str) -> int:
        try:
            with os.scandir(self._instances(key)) as entries:
                return sum(1 for _ in entries)
        except FileNotFoundError:
            return 0

    def _instances(self, key: str) -> Path:
        return self.studies / key / "instances"

    def _version(self, key: str, number: int) -> Path:
        return self.studies / key / "versions" / str(number)

    def _state_file(self, key: str) -> Path:
        return self.studies / key / "study.json"


def _patient_hash(header: InstanceHeader) -> str:
    return sha256(header.patient_id.encode("utf-8", "backslashreplace")).hexdigest()


def first_file(folder: Path) -> Path | None:
    """Return the first file of a version by name; None if there is none."""
    return min(folder.glob("*.dcm"), default=None)


def describe_patient(header: InstanceHeader) -> Mapping[str, str]:
    """Return name and id of a patient for the audit trail, if identifiers are kept."""
    return {"ParticipantObjectID": header.patient_id, "ParticipantObjectName": header.patient_name}
