"""Write the lesion table as a DICOM Structured Report by template TID 1500, Measurement Report.

A lesion's region is given as polygons on the CT's slices, not as a segment of the SEG: the SEG has one segment per
type, so two cysts share a segment, while a measurement is of one lesion. Polygons do not need the SEG, and
two-dimensional ones need only Comprehensive SR, which most archives and viewers read. A polygon is the boundary of the
lesion, half a voxel beyond the outermost voxel centres, as for the diameters. It includes holes, which only the SEG
leaves out. Measurements are those of the table, which are of voxels.

A second group of each lesion has the ends of its two diameters, by template TID 1501, since measurements of a region
have no coordinates of their own. Viewers built on Cornerstone3D, such as OHIF, list it as a measurement and draw it.
They recognise it by its tracking identifier and take its name from its comment. They cannot open a report in which a
group has no coordinates, so the liver's group has an outline too.

A lesion of an earlier examination that is not found any more has two groups by template TID 1501: one with the
evaluation that it is absent and a diameter of 0 mm, as in RECIST, at the point where it would be, and one with that
point for viewers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cc3d
import highdicom as hd
import numpy as np
from highdicom import sr
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from liverseg import __version__
from liverseg.imageio.boxes import Box, to_global
from liverseg.imageio.volume import Volume
from liverseg.inference.diameters import axial_diameters
from liverseg.inference.lesion_measurements import LesionMeasurements
from liverseg.inference.lesions import LesionMap, liver_volume_ml
from liverseg.inference.output.dicom_common import (
    LIVER_CODE,
    SOFTWARE,
    SeriesReference,
    derived_uid,
    equipment,
    label_code,
    map_sha256,
    save_object,
)
from liverseg.inference.output.outlines import trace_polygons
from liverseg.labels import Label

__all__ = ["ABSENT", "AbsentLesion", "write_measurement_report"]

_SERIES_NUMBER = 9002
"""Our choice: after the SEG's."""

ABSENT = codes.SCT.Absent
"""Value of the evaluation of a lesion that is not found any more."""
_LESION_OF_LIVER = Code("300331000", "SCT", "Lesion of liver")
_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
_ML = Code("ml", "UCUM", "milliliter")
_MM2 = Code("mm2", "UCUM", "square millimeter")
_COUNT = Code("{lesions}", "UCUM", "lesions")
"""Not the code 1 of plain numbers: OHIF 3.13 shows no value where it is 0, but the unit's code."""
_TWO_DIAMETERS, _ARROW = "Cornerstone3DTools@^0.1.0:Bidirectional", "Cornerstone3DTools@^0.1.0:ArrowAnnotate"
"""Prefixes of the tracking identifiers of measurements that Cornerstone3D takes for its tools of these names."""
_LONG_AXIS, _SHORT_AXIS = Code("103339001", "SCT", "Long Axis"), Code("103340004", "SCT", "Short Axis")
"""As `pydicom.sr.codedict.codes.SCT.LongAxis` and `ShortAxis`, in the spelling that Cornerstone3D searches for."""
_RESEARCH = (
    "Research result of software that is not a medical device, computed without a human reader. Not verified. "
    "Not for diagnosis or treatment."
)


@dataclass(frozen=True)
class AbsentLesion:
    """A lesion of an earlier examination that is not found in this one.

    Attributes:
        tracking: tracking UID and identifier of the lesion.
        label: of its type at the earlier examination.
        position_mm: where it would be in this CT, RAS+ mm.
    """

    tracking: tuple[str, str]
    label: Label
    position_mm: tuple[float, ...]


def write_measurement_report(
    path: str | os.PathLike,
    series: SeriesReference,
    volume: Volume,
    lesions: LesionMap,
    table: LesionMeasurements,
    labels: Sequence[Label],
    weights_sha256: str,
    tracking: Mapping[int, tuple[str, str]] | None = None,
    absent: Sequence[AbsentLesion] = (),
) -> None:
    """Write the lesions' measurements and outlines as one Comprehensive SR: complete, preliminary and not verified.

    The observer is the software. The first group holds the volume of the liver including its lesions, their number, and
    the liver's largest axial area in mm² with its outline. Two groups follow for each lesion. The first has the
    finding, volume in ml, longest axial diameter and the one perpendicular to it in mm, both with the slice they were
    measured on, mean and standard deviation of HU, the probability of its type in percent as the certainty of the
    finding, and its outline on every slice. The second has the two diameters with their ends, and a comment with
    number, type and volume. Two further groups follow for each absent lesion. Without lesions, a comment says so. UIDs
    are derived from the content, as in the SEG.

    Args:
        path: of the file, which is written atomically; its folder must exist.
        series: reference to the series that the volume was read from.
        volume: (column, row, slice).
        lesions: of the volume, in axial order.
        table: `lesion_table` of them.
        labels: label table of the lesion map.
        weights_sha256: of the network's weights, hexadecimal.
        tracking: tracking UID and identifier by lesion id, of lesions that an earlier report has; others get new ones.
        absent: lesions of an earlier examination that are not found in this one.

    Raises:
        OSError: if the file cannot be written.
        ValueError: if volume, series, lesions and table do not match, or a lesion's label has no code.
    """
    if [row.id for row in table.rows] != list(range(1, len(lesions.voxels) + 1)):
        raise ValueError(f"a table of {len(table)} rows for {len(lesions.voxels)} lesions; they must be the same")
    series.check_shape(volume)
    uid_parts = series.uid_parts(weights_sha256)
    total_ml = liver_volume_ml(lesions, volume.voxel_ml)
    # the report holds the types in the table, the outlines of the ids, and of the liver only its volume
    content_parts = (
        map_sha256(lesions.ids_inside, lesions.box),
        table.to_frame().to_json(),
        repr(tuple(labels)),
        f"{total_ml:.6f}",
        *([repr(sorted(tracking.items()))] if tracking else []),
        *([repr(tuple(absent))] if absent else []),
    )
    uid = derived_uid("SR", *uid_parts, *content_parts)
    content = sr.MeasurementReport(
        observation_context=_observer(weights_sha256),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=[_liver(uid, total_ml, len(table), _liver_area(series, volume, lesions))],
    )
    measurements = content[0].ContentSequence[-1]
    content[0].ContentSequence.append(_remarks(total_ml, len(table), len(absent)))
    report = sr.ComprehensiveSR(
        evidence=series.slices,
        content=content,
        series_instance_uid=derived_uid("SR series", *uid_parts),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=uid,
        instance_number=1,
        **equipment(weights_sha256),
        series_description="liverseg: measurements, research",
        is_complete=True,
        is_final=False,
        is_verified=False,
    )
    # after the constructor, which would copy the lesions' groups and search them several times
    for group in _groups(uid, series, volume, lesions, table, labels, tracking or {}):
        measurements.ContentSequence.extend(group)
    for lesion in absent:
        for group in _absent(lesion, series, volume):
            measurements.ContentSequence.extend(group)
    save_object(path, report, series.patient)


def _observer(weights_sha256: str) -> sr.ObservationContext:
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=derived_uid("device", __version__, weights_sha256),
        name=SOFTWARE,
        manufacturer_name=SOFTWARE,
        model_name=f"{SOFTWARE} {__version__}",
        serial_number=weights_sha256,
    )
    context = sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    return sr.ObservationContext(observer_device_context=context)


def _liver(
    uid: str, total_ml: float, count: int, area: list[sr.Measurement]
) -> sr.MeasurementsAndQualitativeEvaluations:
    measurements = [
        sr.Measurement(name=codes.SCT.Volume, value=round(total_ml, 4), unit=_ML),
        sr.Measurement(name=Code("246206008", "SCT", "Number of lesions"), value=count, unit=_COUNT),
        *area,
    ]
    # without a liver, lesions in it are neither present nor absent
    presence = codes.SCT.Present if count else codes.SCT.Absent
    evaluations = [sr.QualitativeEvaluation(name=_LESION_OF_LIVER, value=presence)] if total_ml > 0 else None
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(derived_uid("liver", uid), "liver"),
        finding_type=LIVER_CODE,
        finding_sites=[sr.FindingSite(anatomic_location=LIVER_CODE)],
        measurements=measurements,
        qualitative_evaluations=evaluations,
    )


def _liver_area(series: SeriesReference, volume: Volume, lesions: LesionMap) -> list[sr.Measurement]:
    """Measure the largest axial area of the liver with its lesions; an empty list without a liver."""
    found, (slices, rows, columns) = series.to_slices(volume, lesions.inside, lesions.box)
    areas = np.count_nonzero(found, axis=(1, 2))
    if not areas.any():
        return []
    largest = int(areas.argmax())
    source = sr.SourceImageForRegion(*_reference(series, slices.start + largest))
    corner = np.array([columns.start, rows.start])
    mm2 = float(areas[largest]) * volume.spacing[0] * volume.spacing[1]
    outlines = [
        sr.CoordinatesForMeasurement(sr.GraphicTypeValues.POLYLINE, outline + corner, source)
        for outline in _closed_outlines(found[largest] > 0)
    ]
    return [
        sr.Measurement(
            name=codes.SCT.Area,
            value=round(mm2, 2),
            unit=_MM2,
            derivation=codes.SCT.Maximum,
            referenced_coordinates=outlines,
        )
    ]


def _groups(
    uid: str,
    series: SeriesReference,
    volume: Volume,
    lesions: LesionMap,
    table: LesionMeasurements,
    labels: Sequence[Label],
    tracking: Mapping[int, tuple[str, str]],
) -> Iterator[sr.VolumetricROIMeasurementsAndQualitativeEvaluations | sr.MeasurementsAndQualitativeEvaluations]:
    """Make two measurement groups for each lesion, in order of id."""
    if not len(table):
        return
    found, where = series.to_slices(volume, lesions.ids_inside, lesions.box)
    ids = np.ascontiguousarray(found)
    boxes = cc3d.statistics(ids)["bounding_boxes"]
    by_index = {label.index: label for label in labels}
    sources = [sr.SourceImageForRegion(*_reference(series, number)) for number in range(series.depth)]
    for number, (row, kind) in enumerate(zip(table.records(), lesions.types, strict=True), start=1):
        taken_on = [sr.SourceImageForMeasurement(*_reference(series, row["diameter_slice"]))]
        mask, box = ids[boxes[number]] == number, to_global(boxes[number], where)
        label = by_index[int(kind)]
        tracked = tracking.get(number, (derived_uid(f"lesion {number}", uid), f"lesion {number}"))
        yield sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(*tracked),
            referenced_regions=list(_regions(mask, box, sources)),
            finding_category=Code("49755003", "SCT", "Morphologically Altered Structure"),
            finding_type=label_code(label),
            finding_sites=[sr.FindingSite(anatomic_location=LIVER_CODE)],
            measurements=_measurements(row, taken_on),
        )
        yield _diameters(tracked, row, label, mask[row["diameter_slice"] - box[0].start], box, series, volume)


def _diameters(
    tracked: tuple[str, str],
    row: Mapping[str, Any],
    label: Label,
    plane: np.ndarray,
    box: Box,
    series: SeriesReference,
    volume: Volume,
) -> sr.MeasurementsAndQualitativeEvaluations:
    """Make the group of a lesion's diameters with their ends.

    Args:
        tracked: tracking UID and identifier of the lesion.
        row: of the table.
        label: of the lesion's type.
        plane: mask of the lesion on the slice of its diameters, rows and columns of the box.
        box: in the order of the series.
        series: the slices.
        volume: (column, row, slice).
    """
    across, down = volume.affine[:3, 0], volume.affine[:3, 1]
    found = axial_diameters(plane[None], down, across)
    source = sr.SourceImageForRegion(*_reference(series, row["diameter_slice"]))
    corner = np.array([box[2].start, box[1].start]) + 0.5  # DICOM's integers are edges of pixels, ours are centres
    measurements = [
        sr.Measurement(
            name=name,
            value=row[column],
            unit=codes.UCUM.Millimeter,
            referenced_coordinates=[
                sr.CoordinatesForMeasurement(sr.GraphicTypeValues.POLYLINE, ends[:, ::-1] + corner, source)
            ],
        )
        for name, column, ends in (
            (_LONG_AXIS, "longest_diameter_mm", found.longest_ends),
            (_SHORT_AXIS, "perpendicular_diameter_mm", found.perpendicular_ends),
        )
    ]
    name = f"lesion {row['id']}"
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            derived_uid("diameters", tracked[0]), f"{_TWO_DIAMETERS}:{tracked[1]}"
        ),
        finding_category=Code("49755003", "SCT", "Morphologically Altered Structure"),
        finding_type=label_code(label),
        finding_sites=[sr.FindingSite(anatomic_location=LIVER_CODE)],
        measurements=measurements,
    )
    comment = f"{name}: {label.name}, {row['volume_ml']:.1f} ml"
    group[0].ContentSequence.append(_comment(comment))
    return group


def _absent(
    lesion: AbsentLesion, series: SeriesReference, volume: Volume
) -> Iterator[sr.MeasurementsAndQualitativeEvaluations]:
    """Make two measurement groups for a lesion that is absent.

    Args:
        lesion: of an earlier examination.
        series: the slices.
        volume: (column, row, slice).
    """
    number, pixel = series.nearest_pixel(volume, lesion.position_mm)
    place = sr.CoordinatesForMeasurement(
        sr.GraphicTypeValues.POINT, pixel[None] + 0.5, sr.SourceImageForRegion(*_reference(series, number))
    )
    uid, identifier = lesion.tracking
    for tracked, evaluations in (
        ((uid, identifier), [sr.QualitativeEvaluation(name=_LESION_OF_LIVER, value=ABSENT)]),
        ((derived_uid("place", uid), f"{_ARROW}:{identifier}"), None),
    ):
        group = sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(*tracked),
            finding_category=Code("49755003", "SCT", "Morphologically Altered Structure"),
            finding_type=label_code(lesion.label),
            finding_sites=[sr.FindingSite(anatomic_location=LIVER_CODE)],
            measurements=[
                sr.Measurement(
                    name=codes.SCT.LongAxis,
                    value=0,
                    unit=codes.UCUM.Millimeter,
                    referenced_coordinates=[place],
                )
            ],
            qualitative_evaluations=evaluations,
        )
        if evaluations is None:
            group[0].ContentSequence.append(_comment(f"{identifier}: {lesion.label.name}, not found any more"))
        yield group


def _reference(series: SeriesReference, number: int) -> tuple[str, str, list[int] | None]:
    """Return the arguments of highdicom's references to a slice."""
    sop_class, instance, frame = series.source(number)
    return sop_class, instance, None if frame is None else [frame]


def _measurements(row: Mapping[str, Any], taken_on: Sequence[sr.SourceImageForMeasurement]) -> list[sr.Measurement]:
    """Make the measurements of a row of the table, and the certainty of its type if there are several types."""
    mm, hu = codes.UCUM.Millimeter, codes.UCUM.HounsfieldUnit
    longest, across = row["longest_diameter_mm"], row["perpendicular_diameter_mm"]
    measurements = [
        sr.Measurement(name=codes.SCT.Volume, value=row["volume_ml"], unit=_ML),
        sr.Measurement(name=codes.SCT.LongAxis, value=longest, unit=mm, referenced_images=taken_on),
        sr.Measurement(name=codes.SCT.ShortAxis, value=across, unit=mm, referenced_images=taken_on),
    ]
    for value, derivation in ((row["mean_hu"], codes.SCT.Mean), (row["std_hu"], codes.SCT.StandardDeviation)):
        name = codes.DCM.AttenuationCoefficient
        measurements.append(sr.Measurement(name=name, value=value, unit=hu, derivation=derivation))
    probability = row.get(f"probability_{row['type']}")
    if probability is not None:
        percent = round(100 * probability, 2)
        measurements.append(sr.Measurement(name=codes.DCM.CertaintyOfFinding, value=percent, unit=codes.UCUM.Percent))
    return measurements


def _regions(mask: np.ndarray, box: Box, sources: Sequence[sr.SourceImageForRegion]) -> Iterator[sr.ImageRegion]:
    """Make a lesion's outlines, each a closed polyline on its slice. The mask has the shape of the box."""
    corner = np.array([box[2].start, box[1].start])
    for plane, source in zip(mask, sources[box[0]], strict=True):
        for outline in _closed_outlines(plane):
            coordinates = sr.ScoordContentItem(
                name=codes.DCM.ImageRegion,
                graphic_type=sr.GraphicTypeValues.POLYLINE,
                graphic_data=outline + corner,
                relationship_type=sr.RelationshipTypeValues.CONTAINS,
            )
            # the constructor of ImageRegion searches the standard for the attributes of the image's class
            region = sr.ImageRegion.from_dataset(coordinates, copy=False)
            region.ContentSequence = [source]
            yield region


def _closed_outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Trace the outer outlines of a slice's mask (row, column): each (points, 2), column and row, first point repeated.

    Coordinates are DICOM's (PS3.3 C.18.6): integers are the edges of pixels, and centres are half a pixel further.
    """
    return [np.concatenate([outline, outline[:1]]) + 0.5 for outline, *_ in trace_polygons(mask)]


def _comment(text: str) -> sr.TextContentItem:
    return sr.TextContentItem(name=codes.DCM.Comment, value=text, relationship_type=sr.RelationshipTypeValues.CONTAINS)


def _remarks(total_ml: float, count: int, absent: int) -> sr.ContainerContentItem:
    """Make the container of TID 1500 for comments on the report."""
    if total_ml == 0:
        found = "No liver was found."
    elif count == 0:
        found = "No lesion was found in the liver."
    else:
        found = f"{count} lesion{'s' if count > 1 else ''} found in the liver."
    if absent:
        found += f" {absent} lesion{'s' if absent > 1 else ''} of the earlier examination not found."
    within = hd.sr.RelationshipTypeValues.CONTAINS
    container = sr.ContainerContentItem(name=_EVALUATIONS, relationship_type=within)
    container.ContentSequence = sr.ContentSequence([_comment(text) for text in (found, _RESEARCH)])
    return container
