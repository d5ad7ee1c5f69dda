"""Write the label map as a DICOM Segmentation on the slices of the CT series."""

from __future__ import annotations

import os
from collections.abc import Sequence

import highdicom as hd
import numpy as np
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian

from liverseg import __version__
from liverseg.imageio.volume import Volume
from liverseg.inference.lesions import LesionMap
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
from liverseg.labels import LIVER, Label

__all__ = ["write_dicom_seg"]

_ANATOMY = Code("123037004", "SCT", "Anatomical Structure")
_LESION = Code("49755003", "SCT", "Morphologically Altered Structure")
_SERIES_NUMBER = 9001
"""Our choice: above the series numbers of scanners, so that it is listed after the study's series."""


def write_dicom_seg(
    path: str | os.PathLike,
    series: SeriesReference,
    volume: Volume,
    lesions: LesionMap,
    labels: Sequence[Label],
    weights_sha256: str,
) -> bool:
    """Write liver and lesion types as one binary DICOM SEG on the slices of the series.

    The first segment is the liver without its lesions. A segment follows for each lesion type that is present, in the
    order of the label table. Segments do not overlap, because OHIF 3.13 shows only some of those that do. Slices
    without liver or lesion have no frame. Patient and study are those of the reference, in UTF-8: empty, or those of
    the CT, without dates, times and sexes that are invalid in DICOM.

    Args:
        path: of the file, which is written atomically; its folder must exist.
        series: reference to the series that the volume was read from.
        volume: (column, row, slice).
        lesions: of the volume, in axial order.
        labels: label table of the lesion map.
        weights_sha256: of the network's weights, hexadecimal.

    Returns:
        False, and no file, if there is neither liver nor lesion, since a SEG needs a segment.

    Raises:
        OSError: if the file cannot be written.
        ValueError: if volume and series do not match, or a present label has no code or is missing in the table.
    """
    types = set(map(int, lesions.types))
    if unknown := types - {label.index for label in labels}:
        raise ValueError(f"lesions of labels {sorted(unknown)}, which the label table does not have")
    series.check_shape(volume)
    found, (slices, rows, columns) = series.to_slices(volume, lesions.inside, lesions.box)
    kept = np.flatnonzero(found.any(axis=(1, 2)))
    if not len(kept):
        return False
    found = found[kept]
    present = [label for label in labels if label.index in types]
    # frames have the size of the slices they refer to; of an enhanced CT, highdicom takes all and leaves out empty ones
    if series.frames is None:
        sources, places, count = [series.slices[slices.start + n] for n in kept], np.arange(len(kept)), len(kept)
    else:
        sources, places = series.slices, np.array(series.frames)[slices.start + kept] - 1
        count = int(series.slices[0].NumberOfFrames)
    masks = np.zeros((1 + len(present), count, *series.shape), np.uint8)
    masks[0, places, rows, columns] = found == LIVER
    for number, label in enumerate(present, start=1):
        masks[number, places, rows, columns] = found == label.index
    uid_parts = series.uid_parts(weights_sha256)
    uid = derived_uid("SEG", *uid_parts, map_sha256(lesions.inside, lesions.box), repr(tuple(labels)))
    liver = next(label for label in labels if label.index == LIVER)
    seg = Segmentation(
        source_images=sources,
        pixel_array=np.moveaxis(masks, 0, -1),  # highdicom's order; in memory a segment is contiguous
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _segment(number, label, weights_sha256) for number, label in enumerate([liver, *present], start=1)
        ],
        series_instance_uid=derived_uid("SEG series", *uid_parts),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=uid,
        instance_number=1,
        **equipment(weights_sha256),
        content_label="LIVER_LESIONS",
        content_description="Research result, not verified",
        series_description="liverseg: liver and lesions",
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    dimensions = derived_uid("dimensions", uid)
    for item in (*seg.DimensionOrganizationSequence, *seg.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions
    save_object(path, seg, series.patient)
    return True


def _segment(number: int, label: Label, weights_sha256: str) -> SegmentDescription:
    is_liver = label.index == LIVER
    segment = SegmentDescription(
        segment_number=number,
        segment_label=label.name,
        segmented_property_category=_ANATOMY if is_liver else _LESION,
        segmented_property_type=label_code(label),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=SOFTWARE,
            family=codes.DCM.ArtificialIntelligence,
            version=__version__,
            parameters={"weights_sha256": weights_sha256},
        ),
        anatomic_regions=None if is_liver else [LIVER_CODE],  # the liver's type is an anatomy itself
        display_color=CIELabColor.from_rgb(*label.color),
    )
    if is_liver:
        segment.SegmentDescription = "liver without its lesions"
    return segment
