"""Read an examination: a case folder as `liverseg predict` writes it, and the CT that it is of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from liverseg.errors import GeometryError, LiversegError, UnreadableError, UsageError
from liverseg.imageio.boxes import bounding_box
from liverseg.imageio.volume import Volume, read_volume
from liverseg.inference.lesion_measurements import LesionMeasurements, MeasuredLesion, lesion_columns
from liverseg.inference.lesions import LesionMap
from liverseg.labels import INDETERMINATE, JOINT_LABELS, LESION, PRETRAIN_LABELS, Label
from liverseg.results.case_folder import RECORD, read_case_record
from liverseg.results.inputs import matches_input
from liverseg.utils.files import is_dir, list_folder, read_json, sha256_file

if TYPE_CHECKING:
    from liverseg.inference.output.dicom_common import SeriesReference

__all__ = ["Examination", "Identity", "check_pair", "is_case_folder", "read_examination"]

_TABLES: tuple[tuple[Label, ...], ...] = ((*JOINT_LABELS, INDETERMINATE), PRETRAIN_LABELS)
_SCHEMA, _FORMAT_VERSION = "liverseg case record", 1
_NOT_NUMBERS = ("type", "indeterminate_because", "touches_surface")
"""Columns of lesions.json in which null is not a measurement that could not be made."""


@dataclass(frozen=True, repr=False)
class Identity:
    """What DICOM headers say about whose CT it is, and of when. It is compared, and never shown.

    Attributes:
        patient: PatientID, birth date and sex; empty where not known.
        issuer: IssuerOfPatientID; patient IDs of two issuers say nothing of each other.
        study: StudyInstanceUID; empty if not known.
        acquired: date of the study, with its time if that is known; None if it is not.
        has_time: whether the time is known.
    """

    patient: tuple[str, str, str] = ("", "", "")
    issuer: str = ""
    study: str = ""
    acquired: datetime | None = None
    has_time: bool = False


@dataclass(frozen=True)
class Examination:
    """A CT with its results.

    Attributes:
        folder: the case folder.
        record: the content of its `record.json`.
        volume: the CT, HU.
        lesions: labels and lesions, in axial order.
        table: measurements of the lesions.
        labels: label table.
        identity: patient, study and date, of a CT read from DICOM.
        reference: for DICOM results; None if the CT is not DICOM.
        warnings: sentences about the CT and its results.
    """

    folder: Path
    record: Mapping[str, Any] = field(repr=False)
    volume: Volume = field(repr=False)
    lesions: LesionMap = field(repr=False)
    table: LesionMeasurements = field(repr=False)
    labels: tuple[Label, ...] = field(repr=False)
    identity: Identity = field(repr=False)
    reference: SeriesReference | None = field(repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights that the results were computed with, hexadecimal."""
        return str(self.record["weights"]["sha256"])


def is_case_folder(path: Path) -> bool:
    """Return whether a path is a folder with a case's record; a CT otherwise.

    Raises:
        UsageError: if it is a folder whose own folders are cases.
        UnreadableError: if it may not be read.
    """
    if not is_dir(path):
        return False
    if (path / RECORD).is_file():
        return True
    cases = [inner.name for inner in list_folder(path) if (inner / RECORD).is_file()]
    if cases:
        raise UsageError(f"{path}: holds results of {len(cases)} cases; give the folder of one, such as {cases[0]}")
    return False


def read_examination(
    folder: Path, ct: Path | None = None, keep_identifiers: bool = False, option: str = "--baseline-ct"
) -> Examination:
    """Read a case folder and its CT.

    Args:
        folder: of the case.
        ct: the CT; by default the path in the record. It must have the content that the record states, or at least the
            same grid, of which a warning is added.
        keep_identifiers: keep patient and study for DICOM results.
        option: how a user gives another path of the CT, for errors.

    Raises:
        LiversegError: if a file is missing, damaged or of another case, if labels and table do not match, if the CT is
            another one, or if there is no liver.
    """
    record = _read_record(folder)
    labels = _label_table(folder, record)
    path = Path(record["input"]["path"]) if ct is None else ct
    if not path.exists():
        advice = f"give the CT by {option}" if ct is None else "check the path"
        raise UnreadableError(f"{path}: the CT of {folder} is not there; {advice}")
    same = matches_input(path, record["input"])
    if ct is None and not same:
        raise UnreadableError(f"{path}: has changed since {folder} was computed; predict it again")
    data = _read_ct(path, record)
    volume: Volume = data["volume"]
    warnings = [*_changed_files(folder, record)]
    if not same:
        warnings.append(f"{path}: not the file that the results were computed from; only its grid is the same")
    lesions, table = _read_lesions(folder, volume, labels, other_ct=ct is not None)
    reference: SeriesReference | None = data.get("reference")
    identity = Identity()
    if reference is not None:
        identity = _identity(reference)
        if not keep_identifiers:
            reference = reference.without_identifiers()
    return Examination(folder, record, volume, lesions, table, labels, identity, reference, tuple(warnings))


def check_pair(baseline: Examination, followup: Examination) -> tuple[list[str], int | None]:
    """Refuse two examinations that cannot be compared.

    Returns:
        Warnings, and the days from baseline to follow-up, None if a date is not known.

    Raises:
        LiversegError: if they are one examination or of two patients, the follow-up is the earlier one, or their label
            tables differ. Messages hold nothing from the headers.
    """
    first, second = baseline.identity, followup.identity
    pair = f"{baseline.folder} and {followup.folder}"
    same_file = baseline.record["input"]["sha256"] == followup.record["input"]["sha256"]
    # noise is never the same twice, so these are copies, such as a compressed one
    if same_file or np.array_equal(baseline.volume.array, followup.volume.array):
        raise LiversegError(f"{pair}: results of the same CT; give two examinations")
    if first.study and first.study == second.study:
        raise LiversegError(f"{pair}: two series of one study; give two examinations")
    other_issuer = first.issuer and second.issuer and first.issuer != second.issuer
    for name, own, other in zip(("patient IDs", "birth dates", "sexes"), first.patient, second.patient, strict=True):
        if own and other and own != other and not (name == "patient IDs" and other_issuer):
            raise LiversegError(f"{pair}: the DICOM headers state different {name}; give CTs of one patient")
    if [label.name for label in baseline.labels] != [label.name for label in followup.labels]:
        raise LiversegError(
            f"{pair}: different label tables, {_names(baseline)} and {_names(followup)}; predict both with the same "
            "weights"
        )
    warnings = []
    days = None
    if first.acquired is None or second.acquired is None:
        warnings.append("the dates of the examinations are not known; the first one given is taken as the earlier one")
    else:
        days = (second.acquired.date() - first.acquired.date()).days
        timed = first.has_time and second.has_time
        if days < 0 or (timed and second.acquired < first.acquired):
            raise UsageError(f"{followup.folder}: earlier than the baseline by its DICOM headers; swap the two")
        if days == 0:
            warnings.append("both examinations are of the same day")
    if baseline.weights_sha256 != followup.weights_sha256:
        warnings.append(
            "the examinations were computed with different weights; a change may be one of the weights: predict both "
            "with the same"
        )
    return warnings, days


def _names(examination: Examination) -> str:
    return ", ".join(label.name for label in examination.labels[LESION:])


def _read_record(folder: Path) -> Mapping[str, Any]:
    record = read_case_record(folder)
    if record is None or record.get("schema") != _SCHEMA:
        raise UnreadableError(f"{folder / RECORD}: not the record of a case; give a folder that liverseg predict wrote")
    if record.get("format_version") != _FORMAT_VERSION:
        raise UnreadableError(
            f"{folder / RECORD}: format {record.get('format_version')}, format {_FORMAT_VERSION} is read; use the "
            "version of liverseg that wrote it"
        )
    for keys in (("input", "path"), ("input", "sha256"), ("weights", "sha256"), ("labels",), ("files",), ("case",)):
        value: Any = record
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if value is None:
            raise UnreadableError(f"{folder / RECORD}: no {'.'.join(keys)} in it; predict the CT again")
    return record


def _label_table(folder: Path, record: Mapping[str, Any]) -> tuple[Label, ...]:
    for table in _TABLES:
        if record["labels"] == {str(label.index): label.name for label in table}:
            return table
    names = ", ".join(map(str, record["labels"].values()))
    raise UnreadableError(f"{folder / RECORD}: an unknown label table, {names}; predict the CT again")


def _changed_files(folder: Path, record: Mapping[str, Any]) -> list[str]:
    """Return a warning for each file whose content is not the one that was written."""
    names = ("labels.nii.gz", "lesions.nii.gz", "lesions.json")
    return [
        f"{folder / name}: changed since it was written"
        for name in names
        if name in record["files"] and sha256_file(folder / name) != record["files"][name]
    ]


def _read_ct(path: Path, record: Mapping[str, Any]) -> dict[Any, Any]:
    from liverseg.inference.transforms import ReadCTd  # imports torch

    series = (record["input"].get("series") or {}).get("uid")
    # with identifiers, which are compared; results get them only if they are kept
    return ReadCTd(keep_identifiers=True)({"image": str(path), "case": record["case"], "series": series})


def _identity(reference: SeriesReference) -> Identity:
    from liverseg.imageio.dicom_header import skip_validation

    with skip_validation():
        patient = reference.patient
        number, born, sex, issuer = (
            str(patient.get(keyword) or "").strip()
            for keyword in ("PatientID", "PatientBirthDate", "PatientSex", "IssuerOfPatientID")
        )
        study = str(reference.slices[0].get("StudyInstanceUID") or "")
        date, time = str(patient.get("StudyDate") or ""), str(patient.get("StudyTime") or "")
    try:
        acquired: datetime | None = datetime.strptime(date.strip(), "%Y%m%d")
    except ValueError:
        acquired = None
    has_time = False
    if acquired is not None and len(time) >= 4:
        try:
            clock = datetime.strptime(time.strip()[:4], "%H%M")
            acquired, has_time = acquired.replace(hour=clock.hour, minute=clock.minute), True
        except ValueError:
            pass
    return Identity((number, born, sex), issuer, study, acquired, has_time)


def _read_lesions(
    folder: Path, volume: Volume, labels: tuple[Label, ...], other_ct: bool
) -> tuple[LesionMap, LesionMeasurements]:
    """Return the lesions of a case folder."""
    maps = {}
    for name in ("labels.nii.gz", "lesions.nii.gz"):
        maps[name] = read_volume(folder / name)
        if not maps[name].grid.matches(volume.grid):
            advice = "give the CT that it was computed from" if other_ct else "predict the CT again"
            raise GeometryError(f"{folder / name}: on another grid than {volume.path}; {advice}")
    marks, ids = (maps[name].axial for name in maps)
    box = bounding_box(marks)
    if box is None:
        raise LiversegError(f"{folder / 'labels.nii.gz'}: no liver in it; two livers are needed for a comparison")
    table = _read_table(folder / "lesions.json", labels)
    inside = np.ascontiguousarray(marks[box]).astype(np.uint8)
    ids_inside = np.ascontiguousarray(ids[box]).astype(np.uint16)
    voxels = np.bincount(ids_inside.ravel(), minlength=len(table) + 1)[1:]
    types = np.zeros(len(voxels) + 1, np.int64)
    types[ids_inside] = inside
    indices = {label.name: label.index for label in labels}
    stated = [indices.get(row.type) for row in table.rows]
    if not voxels.all() or types[1:].tolist() != stated or (ids != 0).sum() != (inside >= LESION).sum():
        raise UnreadableError(
            f"{folder}: labels.nii.gz, lesions.nii.gz and lesions.json are of different results; predict the CT again"
        )
    shares = [list(row.probabilities.values()) or [1.0] for row in table.rows]
    return LesionMap(
        inside=inside,
        ids_inside=ids_inside,
        box=box,
        shape=(marks.shape[0], marks.shape[1], marks.shape[2]),
        voxels=voxels,
        types=types[1:],
        probabilities=np.array(shares).reshape(len(table), -1),
        dropped=0,
        scores=np.array([row.lesion_score for row in table.rows], float),
        below_threshold=0,
        outside_liver=0,
        reasons={row.id: row.indeterminate_because for row in table.rows if row.indeterminate_because},
    ), table


def _read_table(path: Path, labels: tuple[Label, ...]) -> LesionMeasurements:
    columns = lesion_columns(labels)
    prefix = "probability_"
    try:
        rows = []
        for number, values in enumerate(read_json(path), start=1):
            known: dict[str, Any] = {
                name: math.nan if values[name] is None and name not in _NOT_NUMBERS else values[name]
                for name in columns
            }
            shares = {name.removeprefix(prefix): known.pop(name) for name in columns if name.startswith(prefix)}
            rows.append(MeasuredLesion(probabilities=shares, **known))
            if rows[-1].id != number:
                raise ValueError(f"lesion {rows[-1].id} in row {number}")
    except (KeyError, TypeError, ValueError) as error:
        raise UnreadableError(f"{path}: not a lesion table of these labels; predict the CT again") from error
    return LesionMeasurements(columns, tuple(rows))
