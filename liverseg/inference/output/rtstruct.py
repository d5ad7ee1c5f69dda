"""Write liver and lesions as a DICOM RT Structure Set on the slices of the CT series.

A structure is a set of closed outlines on slices. They run nearly halfway between the centres of pixels in and outside
the structure, so that a program that fills them gets the voxels of the label map. A hole is joined to its outline by a
channel without width, the keyhole technique of PS3.3 C.8.8.6.3, which every reader of CLOSED_PLANAR outlines
understands; two outlines, one in the other, mean a hole to some readers only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import datetime

import cc3d
import numpy as np
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import Tag
from pydicom.uid import UID, ImplicitVRLittleEndian, RTStructureSetStorage

from liverseg import __version__
from liverseg.imageio.boxes import Box, full_box, to_global
from liverseg.imageio.volume import Volume
from liverseg.inference.lesions import LesionMap
from liverseg.inference.output.dicom_common import (
    SOFTWARE,
    SeriesReference,
    derived_uid,
    label_code,
    map_sha256,
    save_object,
)
from liverseg.inference.output.outlines import join_holes, trace_polygons
from liverseg.inference.output.structures import Structure, list_structures
from liverseg.labels import Label

__all__ = ["write_rtstruct"]

_SERIES_NUMBER = 9003
"""Our choice: after those of SEG and SR."""
_STUDY_CLASS = UID("1.2.840.10008.3.1.2.3.1")
"""Detached Study Management: retired, but this reference has no other class, and readers expect it."""
_CONTOUR_DATA = Tag("ContourData")
_OUTWARD = 0.49
"""Distance of outlines from the centres of a structure's pixels, in pixels. Below half a pixel, so that programs that
round points to pixels, as rt-utils, get pixels of the structure; 0.01 pixels are more than the points' decimals."""
_LIVER_TYPE = "ORGAN"
_LESION_TYPE = ""
"""RT ROI Interpreted Type may be empty. Whether a lesion is a target (GTV) is a physician's decision."""


def write_rtstruct(
    path: str | os.PathLike,
    series: SeriesReference,
    volume: Volume,
    lesions: LesionMap,
    labels: Sequence[Label],
    weights_sha256: str,
) -> bool:
    """Write the liver and each lesion as one RT Structure Set: automatic, unapproved, on the slices of the series.

    The first region of interest is the liver including its lesions. One follows for each lesion, named by type and id
    as in the lesion table, in the order of ids, with the colour and SNOMED CT code of its type. Points are in LPS+ mm
    with three decimals. UIDs are derived from the content, and patient and study are those of the reference, as in the
    SEG.

    Args:
        path: of the file, which is written atomically; its folder must exist.
        series: reference to the series that the volume was read from.
        volume: (column, row, slice).
        lesions: of the volume, in axial order.
        labels: label table of the lesion map.
        weights_sha256: of the network's weights, hexadecimal.

    Returns:
        False, and no file, if there is neither liver nor lesion.

    Raises:
        OSError: if the file cannot be written.
        ValueError: if volume and series do not match, or a present label has no code or is missing in the table.
    """
    structures = list_structures(lesions, labels)
    series.check_shape(volume)
    if not structures:
        return False
    uid_parts = series.uid_parts(weights_sha256)
    maps = map_sha256(lesions.inside, lesions.box), map_sha256(lesions.ids_inside, lesions.box)
    uid = derived_uid("RTSTRUCT", *uid_parts, *maps, repr(tuple(labels)))
    made = _structure_set(series, uid, derived_uid("RTSTRUCT series", *uid_parts), weights_sha256)
    inside, where = series.to_slices(volume, lesions.inside, lesions.box)
    ids = np.ascontiguousarray(series.to_slices(volume, lesions.ids_inside, lesions.box)[0])
    boxes = cc3d.statistics(ids)["bounding_boxes"]
    for structure in structures:
        if structure.lesion_id == 0:
            box, mask = full_box(ids.shape), inside > 0
        else:
            box = boxes[structure.lesion_id]
            mask = ids[box] == structure.lesion_id
        contours = list(_contours(mask, to_global(box, where), series, volume))
        _add_structure(made, structure, contours)
    save_object(path, made, series.patient)
    return True


def _structure_set(series: SeriesReference, uid: str, series_uid: str, weights_sha256: str) -> FileDataset:
    """Make a structure set without structures."""
    first, now = series.slices[0], datetime.now()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = RTStructureSetStorage, UID(uid)
    # explicit VR allows values of 64 kB, which the points of a liver's outline can exceed
    meta.TransferSyntaxUID = ImplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SpecificCharacterSet = "ISO_IR 192"
    made.SOPClassUID, made.SOPInstanceUID = RTStructureSetStorage, uid
    made.StudyInstanceUID = first.StudyInstanceUID
    made.Modality, made.OperatorsName = "RTSTRUCT", ""
    made.SeriesInstanceUID, made.SeriesNumber = series_uid, _SERIES_NUMBER
    made.SeriesDescription = "liverseg: liver and lesions, research"
    made.FrameOfReferenceUID = first.FrameOfReferenceUID
    made.Manufacturer = made.ManufacturerModelName = SOFTWARE
    made.SoftwareVersions, made.DeviceSerialNumber = __version__, weights_sha256
    made.InstanceNumber = 1
    made.StructureSetLabel, made.StructureSetDescription = "LIVER_LESIONS", "Research result, not verified"
    made.StructureSetDate, made.StructureSetTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    made.ApprovalStatus = "UNAPPROVED"
    of_series, of_study, frame = Dataset(), Dataset(), Dataset()
    of_series.SeriesInstanceUID = first.SeriesInstanceUID
    of_series.ContourImageSequence = [_reference(series, number) for number in range(series.depth)]
    of_study.ReferencedSOPClassUID, of_study.ReferencedSOPInstanceUID = _STUDY_CLASS, first.StudyInstanceUID
    of_study.RTReferencedSeriesSequence = [of_series]
    frame.FrameOfReferenceUID = first.FrameOfReferenceUID
    frame.RTReferencedStudySequence = [of_study]
    made.ReferencedFrameOfReferenceSequence = [frame]
    made.StructureSetROISequence = DicomSequence()
    made.ROIContourSequence = DicomSequence()
    made.RTROIObservationsSequence = DicomSequence()
    return made


def _reference(series: SeriesReference, number: int) -> Dataset:
    """Refer to a slice."""
    image = Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID, frame = series.source(number)
    if frame is not None:
        image.ReferencedFrameNumber = frame
    return image


def _add_structure(made: Dataset, structure: Structure, contours: list[Dataset]) -> None:
    number = len(made.StructureSetROISequence) + 1
    region, drawn, observation, code = Dataset(), Dataset(), Dataset(), Dataset()
    region.ROINumber, region.ROIName = number, structure.name
    region.ReferencedFrameOfReferenceUID = made.FrameOfReferenceUID
    region.ROIGenerationAlgorithm = "AUTOMATIC"
    region.ROIGenerationDescription = f"{SOFTWARE} {__version__}, not verified"
    drawn.ReferencedROINumber, drawn.ROIDisplayColor = number, list(structure.label.color)
    drawn.ContourSequence = contours
    concept = label_code(structure.label)
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = concept.value, "SCT", concept.meaning
    observation.ObservationNumber = observation.ReferencedROINumber = number
    observation.RTROIIdentificationCodeSequence = [code]
    observation.RTROIInterpretedType = _LESION_TYPE if structure.lesion_id else _LIVER_TYPE
    observation.ROIInterpreter = ""
    made.StructureSetROISequence.append(region)
    made.ROIContourSequence.append(drawn)
    made.RTROIObservationsSequence.append(observation)


def _contours(mask: np.ndarray, box: Box, series: SeriesReference, volume: Volume) -> Iterator[Dataset]:
    """Make the contours of a structure, slice by slice.

    Args:
        mask: (slice, row, column), shape of the box.
        box: in the order of the series' slices.
        series: the slices.
        volume: (column, row, slice).
    """
    axes = volume.affine[:3, :2].T * (-1.0, -1.0, 1.0)  # of a column and of a row, LPS+ mm
    corner = np.array([box[2].start, box[1].start])
    for number, plane in enumerate(mask, start=box[0].start):
        if not plane.any():
            continue
        image, origin = _reference(series, number), series.position(number)
        for rings in trace_polygons(plane, _OUTWARD):
            points = origin + (join_holes(rings) + corner) @ axes
            contour = Dataset()
            contour.ContourImageSequence = [image]
            contour.ContourGeometricType = "CLOSED_PLANAR"
            contour.NumberOfContourPoints = len(points)
            # as text: pydicom takes seconds to convert the numbers of a liver one by one
            text = "\\".join(f"{coordinate:.3f}" for coordinate in points.ravel().tolist())
            value = (text + " " * (len(text) % 2)).encode("ascii")
            contour[_CONTOUR_DATA] = RawDataElement(_CONTOUR_DATA, "DS", len(value), value, 0, True, True)
            yield contour
