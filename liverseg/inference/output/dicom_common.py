"""Parts that all DICOM results share: references to series and patient, UIDs, label codes, writing.

UIDs are hashes of an object's content: the same series, weights and result give the same UID, so that an archive that
receives a result twice keeps it once. They do not depend on the date and time of writing. Objects with and without
patient identifiers have different UIDs and belong to different series, since an archive may hold both.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.valuerep import DSfloat

from liverseg import __version__
from liverseg.errors import UnreadableError
from liverseg.imageio.boxes import Box, bounding_box, embed, full_box, to_global
from liverseg.imageio.dicom_header import read_tags, skip_validation
from liverseg.imageio.dicom_patient import (
    PATIENT_TAGS,
    REQUIRED_PATIENT_TAGS,
    derived_uid,
    empty_patient,
    patient_and_study,
)
from liverseg.imageio.dicom_series import DicomSeries
from liverseg.imageio.slice_shifts import SliceShifts
from liverseg.imageio.volume import Volume
from liverseg.labels import Label
from liverseg.utils.files import atomic_write

__all__ = [
    "LIVER_CODE",
    "SOFTWARE",
    "SeriesReference",
    "derived_uid",
    "equipment",
    "label_code",
    "map_sha256",
    "save_object",
    "series_reference",
]

SOFTWARE = "liverseg"
LIVER_CODE = Code("10200004", "SCT", "Liver")

_UIDS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
"""Required for references to an image."""
_GEOMETRY = ("Rows", "Columns", "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "SliceThickness")
_OTHERS = ("Modality", "LossyImageCompression")
_ENHANCED = [
    *("NumberOfFrames", "ImageType", "DimensionOrganizationSequence", "DimensionIndexSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
]


@dataclass(frozen=True)
class SeriesReference:
    """Attributes that a DICOM object copies from the slices of its series.

    Attributes:
        slices: a data set for each slice, in the order of the series, with UIDs and geometry (LPS+ mm); patient and
            study are empty.
        patient: patient and study, to be added to the finished object, since highdicom refuses or prints odd values in
            them. If identifiers are not kept, they are empty and marked as removed.
        identifiers_kept: whether patient and study are those of the slices.
        frames: for an enhanced CT, which is one data set in `slices`: the number of each slice's frame, from 1.
        shifts: where the slices lie on the grid of the volume, if a tilted gantry sheared them.
    """

    slices: list[Dataset]
    patient: Dataset
    identifiers_kept: bool
    frames: tuple[int, ...] | None = None
    shifts: SliceShifts | None = None

    @property
    def uid(self) -> str:
        """SeriesInstanceUID of the source series."""
        return str(self.slices[0].SeriesInstanceUID)

    def uid_parts(self, weights_sha256: str) -> tuple[str, ...]:
        """Return the texts that every UID derived from the series depends on."""
        return self.uid, weights_sha256, __version__, "kept" if self.identifiers_kept else "removed"

    @property
    def depth(self) -> int:
        """Number of slices."""
        return len(self.slices) if self.frames is None else len(self.frames)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of a slice."""
        return int(self.slices[0].Rows), int(self.slices[0].Columns)

    def source(self, number: int) -> tuple[str, str, int | None]:
        """Return SOPClassUID and SOPInstanceUID of a slice, and the number of its frame in an enhanced CT."""
        header = self.slices[number if self.frames is None else 0]
        return header.SOPClassUID, header.SOPInstanceUID, None if self.frames is None else self.frames[number]

    def position(self, number: int) -> np.ndarray:
        """Return the position of a slice's first pixel, LPS+ mm."""
        if self.frames is None:
            return np.array(self.slices[number].ImagePositionPatient, float)
        groups = self.slices[0].PerFrameFunctionalGroupsSequence[self.frames[number] - 1]
        return np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)

    def nearest_pixel(self, volume: Volume, position_mm: Sequence[float]) -> tuple[int, np.ndarray]:
        """Return the slice and the (column, row) of the pixel that is nearest to a point.

        Args:
            volume: (column, row, slice).
            position_mm: of the point, RAS+ mm.
        """
        inverse = np.linalg.inv(volume.affine)
        column, row, index = np.rint(inverse[:3, :3] @ np.asarray(position_mm) + inverse[:3, 3])
        number = int(np.clip(index, 0, self.depth - 1))
        shift = 0 if self.shifts is None else np.rint(self.shifts.shifts[number])
        return number, np.clip(np.array([column, row]) - shift, 0, np.array(self.shape[::-1]) - 1)

    def without_identifiers(self) -> SeriesReference:
        """Return a copy with an empty patient and study, marked as removed."""
        return replace(self, patient=empty_patient(), identifiers_kept=False)

    def check_shape(self, volume: Volume) -> None:
        """Check that a volume has the shape of the series.

        Args:
            volume: (column, row, slice).

        Raises:
            ValueError: if its shape is another, or its slices are not axial.
        """
        columns, rows = self.shape[::-1] if self.shifts is None else self.shifts.grid_size
        if volume.array.shape != (columns, rows, self.depth) or volume.slice_axis != 2:
            raise ValueError(
                f"a volume of shape {volume.array.shape} for a series of {self.depth} axial slices of "
                f"{columns}×{rows} pixels"
            )

    def to_slices(self, volume: Volume, inside: np.ndarray, box: Box) -> tuple[np.ndarray, Box]:
        """Return a part of `volume.axial` on the series' slices, (slice, row, column), and its box there.

        Args:
            volume: (column, row, slice).
            inside: labels, shape of the box.
            box: in axial order.
        """
        columns, rows, slices = volume.box_from_axial(box)
        found, where = volume.from_axial(inside).transpose(2, 1, 0), (slices, rows, columns)
        if self.shifts is None:
            return found, where
        on_slices = self.shifts.from_grid(embed(found, where, volume.array.shape[::-1]))
        return on_slices, full_box(on_slices.shape)


def label_code(label: Label) -> Code:
    """Return a label's SNOMED CT concept.

    Raises:
        ValueError: if it has none.
    """
    if label.snomed_code is None:
        raise ValueError(f"label {label.name} has no SNOMED CT code, which DICOM needs")
    return Code(label.snomed_code, "SCT", label.snomed_meaning or label.name)


def equipment(weights_sha256: str) -> dict[str, Any]:
    """Return highdicom's arguments on the device that made an object, and on the object's character set."""
    return {
        "manufacturer": SOFTWARE,
        "manufacturer_model_name": SOFTWARE,
        "software_versions": __version__,
        "device_serial_number": weights_sha256,  # the weights identify the device
        "specific_character_set": "ISO_IR 192",
    }


def save_object(path: str | os.PathLike, made: Dataset, patient: Dataset) -> None:
    """Write an object atomically, with patient and study from a `SeriesReference`.

    Raises:
        OutputError: if it cannot be written.
    """
    made.update(patient)
    with atomic_write(path) as temporary, skip_validation():
        made.save_as(temporary, enforce_file_format=True)


def map_sha256(inside: np.ndarray, box: Box) -> str:
    """Return the SHA-256, hexadecimal, of a label map's nonzero voxels and their place. It does not depend on the box.

    Args:
        inside: label map or lesion ids, shape of the box.
        box: of the volume; labels outside are 0.
    """
    found = bounding_box(inside)
    if found is None:
        return sha256().hexdigest()
    place = [int(end) for side in to_global(found, box) for end in (side.start, side.stop)]
    digest = sha256(repr(place).encode())
    digest.update(np.ascontiguousarray(inside[found]).data)
    return digest.hexdigest()


def series_reference(
    series: DicomSeries, volume: Volume, keep_identifiers: bool = False, shifts: SliceShifts | None = None
) -> SeriesReference:
    """Read the attributes that a DICOM object copies from the slices of its series.

    For an enhanced CT they are those of its file, with the functional groups of all frames. Otherwise orientation and
    pixel spacing are those of the first slice, and slice spacing is that of the volume, so that rounded
    tags, which `read_series` accepts, are accepted here too.

    Args:
        series: that the volume was read from.
        volume: (column, row, slice).
        keep_identifiers: copy patient and study. Otherwise they are not read; only UIDs, which references need, and
            geometry are.
        shifts: where the slices lie on the volume's grid, from `read_series_volume`.

    Raises:
        LiversegError: if a slice cannot be read, has no UIDs, or belongs to another series or study than the first.
        ValueError: if volume and series do not match, or the slices are not axial.
    """
    frames = _frame_numbers(series)
    tags = [*_UIDS, *_GEOMETRY, *_OTHERS, *(PATIENT_TAGS if keep_identifiers else ())]
    tags += [] if frames is None else _ENHANCED
    headers: list[Dataset] = []
    with skip_validation():  # validation would log odd values, such as a patient's birth date
        for path in series.files:
            header = read_tags(path, tags)
            for keyword in _UIDS:
                if not header.get(keyword):
                    raise UnreadableError(
                        f"{path}: no {keyword}, which a DICOM SEG or report needs to refer to it; export the series "
                        "with its UIDs"
                    )
            headers.append(header)
        first = headers[0]
        thickness = _number_or(first.get("SliceThickness"), volume.spacing[2])
        for path, header in zip(series.files, headers, strict=True):
            for keyword in _UIDS[2:]:
                if header[keyword].value != first[keyword].value:
                    raise UnreadableError(
                        f"{path}: another {keyword} than in {series.files[0].name}; a series has only one: remove the "
                        "files of the other"
                    )
            if frames is not None:
                continue
            header.ImageOrientationPatient = _decimal(first.ImageOrientationPatient)
            header.PixelSpacing = _decimal(first.PixelSpacing)
            header.SliceThickness, header.SpacingBetweenSlices = _decimal([thickness, volume.spacing[2]])
        patient = patient_and_study(first) if keep_identifiers else empty_patient()
        for header in headers:
            for keyword in PATIENT_TAGS:
                header.pop(keyword, None)
            for keyword in REQUIRED_PATIENT_TAGS:
                setattr(header, keyword, "")
    reference = SeriesReference(headers, patient, keep_identifiers, frames, shifts)
    reference.check_shape(volume)
    return reference


def _frame_numbers(series: DicomSeries) -> tuple[int, ...] | None:
    """Return the number of each slice's frame in an enhanced CT; None for one slice a file.

    Raises:
        UnreadableError: if its slices are frames of several files, to which highdicom cannot refer at once.
    """
    frames = [item.frame + 1 for item in series.slices if item.frame is not None]
    if not frames:
        return None
    if len(series.files) > 1:
        raise UnreadableError(
            f"{series.folder}: an enhanced CT in {len(series.files)} files; DICOM results refer to frames of one"
        )
    return tuple(frames)


def _number_or(value: Any, otherwise: float) -> float:
    """Return a tag's value if it is a number above 0; some files have "1,25" or "5mm"."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return otherwise
    return number if 0 < number < float("inf") else otherwise


def _decimal(values: Sequence[float]) -> list[DSfloat]:
    """Return numbers as decimal strings of at most 16 characters, as DICOM requires."""
    return [DSfloat(float(value), auto_format=True) for value in values]
