"""Prepare the DICOM objects of a computed case for an archive: `python -m liverseg.pacs.outgoing`.

Inference leaves patient and study out of its results, so that no identifier is in any file but the received objects.
An archive files by patient, so the objects that are sent get patient and study from a slice of the series, and UIDs of
their own, derived from those of the results: the same results always give the same objects. They run in a process of
their own, since parsers of DICOM and of pictures take memory and may fail in many ways.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from liverseg import __version__
from liverseg.errors import LiversegError, one_line
from liverseg.results.case_folder import read_case_record, write_json
from liverseg.utils.files import fsync_paths, read_json

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset

__all__ = ["SentObject", "prepare_objects", "read_objects"]

INDEX = "objects.json"
_RESULTS = ("segmentation.dcm", "measurements.dcm")
_SUMMARY = "summary.dcm"
_SUMMARY_SERIES_NUMBER = 9003
"""Our choice: after SEG and SR."""
_SECONDS = 600.0
_ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@dataclass(frozen=True)
class SentObject:
    """An object to send.

    Attributes:
        path: of the file.
        sop_class: SOPClassUID.
        uid: SOPInstanceUID.
    """

    path: Path
    sop_class: str
    uid: str


def read_objects(folder: Path) -> list[SentObject]:
    """Return the objects that `prepare_objects` has written to a folder.

    Raises:
        UnreadableError: if their list cannot be read.
    """
    return [SentObject(folder / item["file"], item["sop_class"], item["uid"]) for item in read_json(folder / INDEX)]


def prepare_objects(case: Path, image: Path, target: Path, summary: str = "none") -> list[SentObject]:
    """Write the objects of a case to a folder in a process, unless they are there, and return them.

    Args:
        case: case folder.
        image: folder of the study's DICOM files.
        target: folder of the objects. It appears complete or not at all.
        summary: `none`, `pdf` or `secondary-capture`, made of the case's preview.

    Raises:
        LiversegError: if they cannot be made. The message holds no text of the study.
    """
    if not (target / INDEX).is_file():
        command = [sys.executable, "-m", __name__, *map(str, (case, image, target, summary))]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, errors="replace")
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LiversegError(f"{case}: its DICOM objects cannot be prepared ({type(error).__name__})") from error
        if run.returncode:  # stderr may quote tags
            reason = run.stdout.strip() or f"exit code {run.returncode}"
            raise LiversegError(f"{case}: its DICOM objects cannot be prepared ({reason})")
    return read_objects(target)


def _prepare(case: Path, image: Path, target: Path, summary: str) -> None:
    import pydicom
    from pydicom import config

    from liverseg.imageio.dicom_patient import PATIENT_TAGS, patient_and_study

    # validation would print odd values, such as a patient's birth date
    config.settings.reading_validation_mode = config.settings.writing_validation_mode = config.IGNORE
    warnings.simplefilter("ignore")
    record = read_case_record(case)
    if record is None:
        raise LiversegError(f"{case}: no record of a computed case")
    source = image / record["input"]["files"][0]
    tags = [*PATIENT_TAGS, "StudyInstanceUID", "SeriesInstanceUID", "SpecificCharacterSet"]
    header = pydicom.dcmread(source, stop_before_pixels=True, specific_tags=tags)
    patient = patient_and_study(header)
    unfinished = target.with_name(f".unfinished-{target.name}")
    unfinished.mkdir(mode=0o750, exist_ok=True)
    objects = []
    for name in _RESULTS:
        if name in record["files"]:
            made = pydicom.dcmread(case / name)
            _add_patient(made, patient)
            made.save_as(unfinished / name, enforce_file_format=True)
            objects.append({"file": name, "sop_class": str(made.SOPClassUID), "uid": str(made.SOPInstanceUID)})
    if summary != "none" and "preview.png" in record["files"]:
        made = _summary(case / "preview.png", summary, header, patient, record["weights"]["sha256"])
        made.save_as(unfinished / _SUMMARY, enforce_file_format=True)
        objects.append({"file": _SUMMARY, "sop_class": str(made.SOPClassUID), "uid": str(made.SOPInstanceUID)})
    write_json(unfinished / INDEX, objects)
    fsync_paths(*unfinished.iterdir(), unfinished)
    unfinished.rename(target)
    fsync_paths(target.parent)


def _add_patient(made: Dataset, patient: Dataset) -> None:
    """Add patient and study to an object from which they were left out, which makes it another object."""
    from pydicom.uid import UID

    from liverseg.imageio.dicom_patient import PATIENT_TAGS, derived_uid

    if not str(made.get("DeidentificationMethod", "")).startswith("liverseg"):
        return
    for keyword in PATIENT_TAGS:
        made.pop(keyword, None)
    made.update(patient)
    made.SOPInstanceUID = UID(derived_uid("archived", made.SOPInstanceUID))
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.SeriesInstanceUID = derived_uid("archived", made.SeriesInstanceUID)


def _summary(picture: Path, kind: str, header: Dataset, patient: Dataset, weights_sha256: str) -> FileDataset:
    """Return the preview as an Encapsulated PDF (PS3.3 A.45.1) or as a Secondary Capture (PS3.3 A.8.1)."""
    from hashlib import sha256

    from PIL import Image
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    from liverseg.imageio.dicom_patient import derived_uid

    with Image.open(picture) as opened:
        image = opened.convert("RGB")
    sop_class = UID(_ENCAPSULATED_PDF if kind == "pdf" else _SECONDARY_CAPTURE)
    parts = (kind, str(header.SeriesInstanceUID), weights_sha256, __version__)
    uid = UID(derived_uid("summary", *parts, sha256(image.tobytes()).hexdigest()))
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SpecificCharacterSet = "ISO_IR 192"
    made.SOPClassUID, made.SOPInstanceUID = sop_class, uid
    made.StudyInstanceUID = header.StudyInstanceUID
    made.SeriesInstanceUID = derived_uid("summary series", *parts)
    made.SeriesNumber, made.InstanceNumber = _SUMMARY_SERIES_NUMBER, 1
    made.SeriesDescription = "liverseg: picture, research"
    made.Manufacturer = made.ManufacturerModelName = "liverseg"
    made.SoftwareVersions, made.DeviceSerialNumber = __version__, weights_sha256
    made.ConversionType = "WSD"
    made.BurnedInAnnotation = "NO"  # of patients: the picture's texts are those of the software
    now = datetime.now()
    made.ContentDate, made.ContentTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    made.InstanceCreationDate, made.InstanceCreationTime = made.ContentDate, made.ContentTime
    if kind == "pdf":
        made.Modality = "DOC"
        made.AcquisitionDateTime = None
        made.DocumentTitle = "Research result, not verified"
        made.ConceptNameCodeSequence = []
        made.MIMETypeOfEncapsulatedDocument = "application/pdf"
        buffer = BytesIO()
        image.save(buffer, "PDF", title="liverseg", producer="liverseg")
        document = buffer.getvalue()
        made.EncapsulatedDocumentLength = len(document)
        made.EncapsulatedDocument = document + b"\0" * (len(document) % 2)
    else:
        made.Modality = "OT"
        made.Laterality = made.PatientOrientation = ""
        made.DerivationDescription = "Research result, not verified"
        made.SamplesPerPixel, made.PhotometricInterpretation, made.PlanarConfiguration = 3, "RGB", 0
        made.Rows, made.Columns = image.height, image.width
        made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
        pixels = image.tobytes()
        made.PixelData = pixels + b"\0" * (len(pixels) % 2)
    made.update(patient)
    return made


def main(arguments: Sequence[str]) -> int:
    """Prepare the objects of a case; print one line without patients' data if that fails."""
    case, image, target, summary = arguments
    try:
        _prepare(Path(case), Path(image), Path(target), summary)
    except LiversegError as error:
        print(one_line(error))
        return 1
    except Exception as error:  # messages of pydicom quote values
        print(type(error).__name__)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
