"""DICOM SEG and SR of an artificial result have its voxels, codes and measurements."""

import shutil
import subprocess
import warnings
from dataclasses import replace

import highdicom as hd
import numpy as np
import pydicom
import pytest
from dicom_files import write_enhanced_ct, write_slice
from made_up_results import lesions_of
from matplotlib.path import Path as Polygon

from liverseg.errors import LiversegError
from liverseg.imageio.boxes import full_box
from liverseg.imageio.dicom_select import choose_series, read_dicom_volume, read_dicom_with_shifts
from liverseg.inference.measurements import lesion_table
from liverseg.inference.output.dicom_common import series_reference
from liverseg.inference.output.dicom_seg import write_dicom_seg
from liverseg.inference.output.dicom_sr import write_measurement_report
from liverseg.labels import INDETERMINATE, JOINT_LABELS, result_labels

LABELS = result_labels(5)
WEIGHTS = "ab" * 32
UP, DOWN = "1\\0\\0\\0\\1\\0", "1\\0\\0\\0\\-1\\0"
PATIENT = {"PatientID": "4711", "PatientName": "Doe^Jane", "PatientBirthDate": "19610203", "PatientSex": "F"}
PATIENT |= {"StudyDate": "20200405", "StudyTime": "101112", "StudyID": "7", "AccessionNumber": "A1"}
PATIENT |= {"ReferringPhysicianName": ""}


def write_ct(folder, orientation=UP, **changed):
    """Write nine slices of 34 × 38 pixels of one study; tags that are None are removed."""
    hu = np.random.default_rng(3).integers(-100, 200, (9, 34, 38)).astype(np.int16)
    own = {"StudyInstanceUID": "1.2.5", "FrameOfReferenceUID": "1.2.6", "SeriesInstanceUID": "1.2.7"}
    for number, plane in enumerate(hu):
        path = folder / f"{number}.dcm"
        write_slice(path, plane, (-10, -20, 3.0 * number), orientation=orientation, spacing=(2, 2))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # unusual values are intended
            header = pydicom.dcmread(path)
            for keyword, value in {"SOPInstanceUID": f"1.2.8.{number + 1}", **own, **PATIENT, **changed}.items():
                if value is None:
                    header.pop(keyword, None)
                else:
                    setattr(header, keyword, value)
            header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID or "1.2"
            header.save_as(path)
    return folder


def made_up(volume, lesions=True, liver=True, **settings):
    """Return a liver with a cyst in two parts on one slice, one with a hole, and a metastasis at the image's edge."""
    labels = np.zeros(volume.axial.shape, np.uint8)
    if liver:
        labels[1:8, 3:30, 0:30] = 1
    if lesions:
        labels[2:5, 5:12, 5:14] = 2
        labels[3, 5:12, 8:10] = 1
        labels[5, 16:24, 12:22] = 3
        labels[5, 18:20, 15:17] = 1
        labels[1:4, 20:24, 0:5] = 4
    return lesions_of(labels, volume.voxel_ml, **settings)


def written(folder, tmp_path, keep_identifiers=False, **settings):
    series = choose_series(folder)
    volume = read_dicom_volume(series)
    lesions = made_up(volume, **settings)
    table = lesion_table(lesions, volume, LABELS)
    reference = series_reference(series, volume, keep_identifiers)
    kept = write_dicom_seg(tmp_path / "seg.dcm", reference, volume, lesions, LABELS, WEIGHTS)
    write_measurement_report(tmp_path / "sr.dcm", reference, volume, lesions, table, LABELS, WEIGHTS)
    assert kept == (tmp_path / "seg.dcm").exists()
    return series, volume, lesions, table


def untilted(folder, tmp_path):
    """As `written`, for a series that has to be moved onto an upright grid."""
    series = choose_series(folder)
    volume, found = read_dicom_with_shifts(series, untilt=True)
    lesions = made_up(volume)
    reference = series_reference(series, volume, shifts=found.shifts)
    write_dicom_seg(tmp_path / "seg.dcm", reference, volume, lesions, LABELS, WEIGHTS)
    table = lesion_table(lesions, volume, LABELS)
    write_measurement_report(tmp_path / "sr.dcm", reference, volume, lesions, table, LABELS, WEIGHTS)
    return series, volume, found.shifts, lesions


@pytest.mark.parametrize("orientation", [UP, DOWN])
@pytest.mark.parametrize("drift", [0.0, 1.0, -0.7])
def test_a_point_is_in_the_pixel_to_which_labels_of_its_voxel_go(orientation, drift, tmp_path):
    folder = write_ct(tmp_path / "ct", orientation)
    for number in range(9):
        header = pydicom.dcmread(folder / f"{number}.dcm")
        header.ImagePositionPatient = [-10, -20 + drift * number, 3.0 * number]
        header.save_as(folder / f"{number}.dcm")
    series = choose_series(folder)
    volume, found = read_dicom_with_shifts(series, untilt=True)
    assert (found.shifts is None) == (drift == 0)
    reference = series_reference(series, volume, shifts=found.shifts)
    for voxel in ((0, 12, 15), (4, 20, 9), (8, 15, 30)):  # slice, row, column in axial order
        mask = np.zeros(volume.axial.shape, np.uint8)
        mask[voxel] = 1
        place = volume.axial_affine @ [*voxel, 1]
        (where,) = np.argwhere(reference.to_slices(volume, mask, full_box(mask.shape))[0])
        number, pixel = reference.nearest_pixel(volume, place[:3] + 0.4)  # mm, less than half a pixel
        np.testing.assert_array_equal([number, *pixel[::-1]], where)
    number, pixel = reference.nearest_pixel(volume, (1e4, 1e4, 1e4))  # outside: the nearest corner
    assert number in (0, 8) and set(pixel) <= {0, 37, 33}


@pytest.mark.integration
@pytest.mark.parametrize("drift", [1.0, -0.7])
def test_results_of_a_tilted_gantry_are_on_the_slices_of_the_series(drift, tmp_path):
    folder = write_ct(tmp_path / "ct")
    for number in range(9):
        header = pydicom.dcmread(folder / f"{number}.dcm")
        header.ImagePositionPatient = [-10, -20 + drift * number, 3.0 * number]
        header.save_as(folder / f"{number}.dcm")
    series, volume, shifts, lesions = untilted(folder, tmp_path)
    assert volume.array.shape[1] > 34
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    assert (seg.Rows, seg.Columns) == (34, 38)
    upright = lesions.labels  # in axial order, which this series has
    uids = source_uids(series)
    planes = seg.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    for number, plane in enumerate(planes):
        row = int(np.rint(shifts.shifts[number, 1]))
        np.testing.assert_array_equal(plane[..., 0], upright[number, row : row + 34] == 1)
    for frame in pydicom.dcmread(tmp_path / "seg.dcm").PerFrameFunctionalGroupsSequence:
        place = [float(value) for value in frame.PlanePositionSequence[0].ImagePositionPatient]
        number = round(place[2] / 3)
        np.testing.assert_allclose(place, [-10, -20 + drift * number, 3 * number], atol=1e-6)
    report = hd.sr.srread(tmp_path / "sr.dcm")
    for number, group in enumerate(report.content.get_volumetric_roi_measurement_groups(), start=1):
        for region in group.roi:
            source = uids.index(region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
            row = int(np.rint(shifts.shifts[source, 1]))
            rows = np.flatnonzero((lesions.ids[source, row : row + 34] == number).any(axis=1))
            assert rows.min() <= region.value[:, 1].min() + 0.51 and region.value[:, 1].max() <= rows.max() + 1.01


@pytest.mark.integration
@pytest.mark.parametrize("legacy", [True, False])
def test_results_of_an_enhanced_ct_refer_to_its_frames(legacy, tmp_path):
    hu = np.random.default_rng(3).integers(-100, 200, (9, 34, 38)).astype(np.int16)
    order = [4, 0, 8, 1, 7, 2, 6, 3, 5]  # of the frames from feet to head
    path = tmp_path / "ct" / "enhanced.dcm"
    if legacy:
        slices = [pydicom.dcmread(file) for file in sorted(write_ct(tmp_path / "single").iterdir())]
        slices = [slices[number] for number in order]
        for item in slices:
            item.PatientOrientation, item.AcquisitionNumber = ["L", "P"], 1
        made = hd.legacy.LegacyConvertedEnhancedCTImage(
            slices, series_instance_uid="1.2.77", series_number=3, sop_instance_uid="1.2.78", instance_number=1
        )
        path.parent.mkdir()
        made.save_as(path)
        order = [
            round(float(frame.PlanePositionSequence[0].ImagePositionPatient[2]) / 3)
            for frame in pydicom.dcmread(path).PerFrameFunctionalGroupsSequence
        ]
    else:
        path.parent.mkdir()
        write_enhanced_ct(path, hu[order] + 24, [3.0 * number for number in order])
    series, volume, lesions, table = written(path.parent, tmp_path)
    np.testing.assert_array_equal(volume.array, hu.transpose(2, 1, 0))
    assert (len(series.files), series.depth) == (1, 9)
    own = volume.from_axial(lesions.labels).transpose(2, 1, 0)
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    uid = pydicom.dcmread(path).SOPInstanceUID
    planes = seg.get_pixels_by_source_frame(
        uid, [1 + order.index(n) for n in range(9)], assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(planes[..., 0], own == 1)
    for number, label in enumerate((2, 3, 4), start=1):
        np.testing.assert_array_equal(planes[..., number], own == label)
    report = hd.sr.srread(tmp_path / "sr.dcm")
    groups = report.content.get_volumetric_roi_measurement_groups()
    ids = volume.from_axial(lesions.ids).transpose(2, 1, 0)
    for number, group in enumerate(groups, start=1):
        frames = {region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber for region in group.roi}
        assert {order[frame - 1] for frame in frames} == set(np.flatnonzero((ids == number).any(axis=(1, 2))))
    assert len(groups) == len(table) == 3
    assert pydicom.dcmread(tmp_path / "seg.dcm").PatientName == ""


def source_uids(series):
    return [pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in series.files]


@pytest.mark.integration
@pytest.mark.parametrize("orientation", [UP, DOWN])
def test_segments_are_read_back_to_the_same_voxels(orientation, tmp_path):
    series, volume, lesions, _ = written(write_ct(tmp_path / "ct", orientation), tmp_path)
    own = volume.from_axial(lesions.labels).transpose(2, 1, 0)
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    uids = source_uids(series)
    within = [index for index, plane in enumerate(own) if plane.any()]
    planes = seg.get_pixels_by_source_instance([uids[index] for index in within], assert_missing_frames_are_empty=True)
    for number, label in enumerate((1, 2, 3, 4)):
        np.testing.assert_array_equal(planes[..., number], own[within] == label)
    # and from each frame's position
    plain = pydicom.dcmread(tmp_path / "seg.dcm")
    assert plain.NumberOfFrames == sum((own == label).any(axis=(1, 2)).sum() for label in (1, 2, 3, 4))
    positions = [pydicom.dcmread(path, stop_before_pixels=True).ImagePositionPatient for path in series.files]
    for frame, pixels in zip(plain.PerFrameFunctionalGroupsSequence, plain.pixel_array, strict=True):
        index = positions.index(frame.PlanePositionSequence[0].ImagePositionPatient)
        label = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        np.testing.assert_array_equal(pixels, own[index] == label)
        (source,) = frame.DerivationImageSequence[0].SourceImageSequence
        assert source.ReferencedSOPInstanceUID == uids[index]


@pytest.mark.integration
def test_segments_say_what_they_are(tmp_path):
    written(write_ct(tmp_path / "ct"), tmp_path)
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    assert (seg.SegmentationType, seg.SegmentsOverlap, seg.Modality) == ("BINARY", "NO", "SEG")
    assert (seg.StudyInstanceUID, seg.FrameOfReferenceUID) == ("1.2.5", "1.2.6")
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == "1.2.7"
    for number, label in enumerate(LABELS[1:5], start=1):
        description = seg.get_segment_description(number)
        assert description.segment_label == label.name
        assert description.get("SegmentDescription") == ("liver without its lesions" if number == 1 else None)
        kind = description.segmented_property_type
        assert (kind.value, kind.scheme_designator) == (label.snomed_code, "SCT")
        assert description.segmented_property_category.value == ("123037004" if number == 1 else "49755003")
        assert [region.value for region in description.anatomic_regions] == ([] if number == 1 else ["10200004"])
        assert description.algorithm_type == hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC
        assert description.algorithm_identification.parameters == {"weights_sha256": WEIGHTS}
        shown = hd.color.CIELabColor.from_dicom_value(description.RecommendedDisplayCIELabValue)
        assert np.abs(np.subtract(shown.to_rgb(clip=True), label.color)).max() <= 2
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert (measures.PixelSpacing, measures.SliceThickness, measures.SpacingBetweenSlices) == ([2, 2], 2.5, 3)


@pytest.mark.integration
def test_unlikely_types_are_a_segment_of_their_own(tmp_path):
    written(write_ct(tmp_path / "ct"), tmp_path, min_confidence=0.9)
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    labels = [seg.get_segment_description(number).segment_label for number in seg.segment_numbers]
    assert labels == ["liver", INDETERMINATE.name]
    certainty = pydicom.sr.codedict.codes.DCM.CertaintyOfFinding  # uncertain types have none
    groups = hd.sr.srread(tmp_path / "sr.dcm").content.get_volumetric_roi_measurement_groups()
    assert len(groups) == 3 and not any(group.get_measurements(name=certainty) for group in groups)


@pytest.mark.integration
@pytest.mark.parametrize("orientation", [UP, DOWN])
def test_the_report_holds_the_table_and_the_outlines(orientation, tmp_path):
    series, volume, lesions, table = written(write_ct(tmp_path / "ct", orientation), tmp_path)
    report = hd.sr.srread(tmp_path / "sr.dcm")
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert len(groups) == len(table) == 3
    own = volume.from_axial(lesions.ids).transpose(2, 1, 0)
    uids = source_uids(series)
    columns, rows = np.meshgrid(np.arange(38) + 0.5, np.arange(34) + 0.5)
    for number, (group, row) in enumerate(zip(groups, table.records(), strict=True), start=1):
        assert group.tracking_identifier == f"lesion {number}"
        label = LABELS[lesions.types[number - 1]]
        assert (group.finding_type.value, group.finding_type.meaning) == (label.snomed_code, label.snomed_meaning)
        assert [site.value.value for site in group.finding_sites] == ["10200004"]
        found = [
            (m.name.value, m.value, m.unit.value, m.derivation and m.derivation.value) for m in group.get_measurements()
        ]
        assert found == [
            ("118565006", row["volume_ml"], "ml", None),
            ("103339001", row["longest_diameter_mm"], "mm", None),
            ("103340004", row["perpendicular_diameter_mm"], "mm", None),
            ("112031", row["mean_hu"], "[hnsf'U]", "373098007"),
            ("112031", row["std_hu"], "[hnsf'U]", "386136009"),
            ("111012", pytest.approx(100 * row[f"probability_{label.name}"]), "%", None),
        ]
        (longest,) = group.get_measurements(name=pydicom.sr.codedict.codes.SCT.LongAxis)
        assert longest.referenced_images[0].referenced_sop_instance_uid == uids[row["diameter_slice"]]
        drawn, area = np.zeros(own.shape, bool), 0.0
        for region in group.roi:
            source = region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
            points = region.value
            np.testing.assert_array_equal(points[0], points[-1])
            assert (points >= 0).all()
            area += abs(np.sum(points[:-1, 0] * points[1:, 1] - points[1:, 0] * points[:-1, 1])) / 2
            inside = Polygon(points).contains_points(np.stack([columns.ravel(), rows.ravel()], axis=1))
            drawn[uids.index(source)] |= inside.reshape(columns.shape)
        mask = own == number
        if label.name == "hemangioma":  # the hole is within its outline
            assert np.count_nonzero(drawn & ~mask) == 4
            mask |= drawn
        np.testing.assert_array_equal(drawn, mask)
        # the outline cuts the corners off, halfway between the centres of pixels
        padded = np.pad(mask, ((0, 0), (1, 1), (1, 1))).astype(int)
        corners = padded[:, 1:, 1:] + padded[:, :-1, 1:] + padded[:, 1:, :-1] + padded[:, :-1, :-1]
        assert area == np.array([0, 1 / 8, 1 / 2, 7 / 8, 1])[corners].sum()


@pytest.mark.integration
@pytest.mark.parametrize("orientation", [UP, DOWN])
def test_the_report_holds_the_ends_of_the_diameters(orientation, tmp_path):
    series, volume, lesions, table = written(write_ct(tmp_path / "ct", orientation), tmp_path)
    report = hd.sr.srread(tmp_path / "sr.dcm")
    liver, *groups = report.content.get_image_measurement_groups()
    assert len(groups) == len(table) == 3
    own = volume.from_axial(lesions.ids).transpose(2, 1, 0)
    uids = source_uids(series)
    for number, (group, row) in enumerate(zip(groups, table.records(), strict=True), start=1):
        name = f"lesion {number}"
        assert group.tracking_identifier == f"Cornerstone3DTools@^0.1.0:Bidirectional:{name}"
        assert group.finding_type.value == LABELS[lesions.types[number - 1]].snomed_code
        comments = [item.TextValue for item in group[0].ContentSequence if item.name.value == "121106"]
        assert comments == [f"{name}: {row['type']}, {row['volume_ml']:.1f} ml"]
        long, short = group.get_measurements()
        assert [item.name.meaning for item in (long, short)] == ["Long Axis", "Short Axis"]  # viewers search for them
        assert (long.value, short.value) == (row["longest_diameter_mm"], row["perpendicular_diameter_mm"])
        lines = []
        for item in (long, short):
            (line,) = item.referenced_coordinates
            (image,) = line.ContentSequence
            assert (line.graphic_type.value, line.value.shape) == ("POLYLINE", (2, 2))
            assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == uids[row["diameter_slice"]]
            assert np.linalg.norm(np.diff(line.value, axis=0) * 2.0) == pytest.approx(item.value, abs=0.006)
            lines.append(line.value)
        assert np.diff(lines[0], axis=0)[0] @ np.diff(lines[1], axis=0)[0] == pytest.approx(0, abs=1e-3)
        # both ends of the long axis are in the middle of an edge of a pixel of the lesion
        rows, columns = np.nonzero(own[row["diameter_slice"]] == number)
        centres = np.stack([columns, rows], axis=1) + 0.5
        for end in lines[0]:
            assert np.abs(centres - end).sum(axis=1).min() == pytest.approx(0.5, abs=1e-4)
    # the liver's largest area, with its outline, without which OHIF opens no report
    (area,) = liver.get_measurements(name=pydicom.sr.codedict.codes.SCT.Area)
    inside_liver = volume.from_axial(lesions.labels).transpose(2, 1, 0) > 0
    largest = np.count_nonzero(inside_liver, axis=(1, 2)).argmax()
    assert (area.value, area.unit.value) == (np.count_nonzero(inside_liver[largest]) * 4.0, "mm2")
    columns, rows = np.meshgrid(np.arange(38) + 0.5, np.arange(34) + 0.5)
    inside = np.zeros(columns.shape, bool)
    for outline in area.referenced_coordinates:
        assert outline.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == uids[largest]
        points = np.stack([columns.ravel(), rows.ravel()], axis=1)
        inside |= Polygon(outline.value).contains_points(points).reshape(columns.shape)
    np.testing.assert_array_equal(inside, inside_liver[largest])


@pytest.mark.integration
def test_highdicom_makes_the_same_report_from_the_complete_content(tmp_path):
    """The lesions' groups are added after highdicom's checks of content and evidence, and these accept them."""
    series, volume, _, table = written(write_ct(tmp_path / "ct"), tmp_path)
    report = hd.sr.srread(tmp_path / "sr.dcm")
    made = hd.sr.ComprehensiveSR(
        evidence=series_reference(series, volume).slices,
        content=report.content,
        series_instance_uid=report.SeriesInstanceUID,
        series_number=report.SeriesNumber,
        sop_instance_uid=report.SOPInstanceUID,
        instance_number=1,
    )
    assert made.ContentSequence == report.ContentSequence
    assert made.CurrentRequestedProcedureEvidenceSequence == report.CurrentRequestedProcedureEvidenceSequence
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert len(groups) == len(table)
    for region in (region for group in groups for region in group.roi):
        (source,) = region.ContentSequence
        (image,) = source.ReferencedSOPSequence
        source = hd.sr.SourceImageForRegion(image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID)
        assert region == hd.sr.ImageRegion(hd.sr.GraphicTypeValues.POLYLINE, region.value, source)


def statements(report):
    return [item.TextValue for item in report.ContentSequence[-1].ContentSequence]


@pytest.mark.integration
def test_the_report_is_no_readers(tmp_path):
    written(write_ct(tmp_path / "ct"), tmp_path)
    report = hd.sr.srread(tmp_path / "sr.dcm")
    flags = (report.CompletionFlag, report.PreliminaryFlag, report.VerificationFlag)
    assert flags == ("COMPLETE", "PRELIMINARY", "UNVERIFIED")
    (device,) = report.content.get_observer_contexts()
    assert device.observer_type.meaning == "Device"
    assert device.observer_identifying_attributes.name == "liverseg"
    found, research = statements(report)
    assert found.endswith("found in the liver.")
    assert research.startswith("Research result") and "Not verified" in research


@pytest.mark.parametrize(
    ("liver", "sentence"), [(True, "No lesion was found in the liver"), (False, "No liver was found")]
)
def test_without_lesions(liver, sentence, tmp_path):
    _, volume, lesions, _ = written(write_ct(tmp_path / "ct"), tmp_path, lesions=False, liver=liver)
    report = hd.sr.srread(tmp_path / "sr.dcm")
    assert report.content.get_volumetric_roi_measurement_groups() == []
    assert statements(report)[0] == f"{sentence}."
    (group,) = report.content.get_image_measurement_groups()
    assert [evaluation.value.meaning for evaluation in group.get_qualitative_evaluations()] == ["Absent"] * liver
    ml = np.count_nonzero(lesions.labels) * volume.voxel_ml
    area = np.count_nonzero(lesions.labels, axis=(1, 2)).max() * 4.0  # pixels of 2 × 2 mm
    assert [measurement.value for measurement in group.get_measurements()] == pytest.approx([ml, 0] + [area] * liver)
    assert group.get_measurements()[1].unit.value == "{lesions}"  # a viewer that leaves out 0 shows the unit alone
    if liver:
        assert hd.seg.segread(tmp_path / "seg.dcm").number_of_segments == 1
    else:
        assert not (tmp_path / "seg.dcm").exists()


def test_reports_of_other_livers_are_other_objects(tmp_path):
    folder, uids = write_ct(tmp_path / "ct"), set()
    for liver in (True, False):
        (tmp_path / str(liver)).mkdir()
        written(folder, tmp_path / str(liver), lesions=False, liver=liver)
        uids.add(pydicom.dcmread(tmp_path / str(liver) / "sr.dcm").SOPInstanceUID)
    assert len(uids) == 2


@pytest.mark.integration
def test_the_same_result_is_the_same_object(tmp_path):
    folder = write_ct(tmp_path / "ct")
    contents = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        written(folder, tmp_path / name)
        both = [pydicom.dcmread(tmp_path / name / file) for file in ("seg.dcm", "sr.dcm")]
        for content in both:
            for when in ("InstanceCreationDate", "InstanceCreationTime", "ContentDate", "ContentTime"):
                del content[when]
            content.ContributingEquipmentSequence[0].ContributionDateTime = ""
        contents.append(both)
    assert contents[0] == contents[1]
    (tmp_path / "less").mkdir()
    written(folder, tmp_path / "less", min_lesion_ml=1.0)
    for before, file in zip(contents[0], ("seg.dcm", "sr.dcm"), strict=True):
        after = pydicom.dcmread(tmp_path / "less" / file)
        assert after.SOPInstanceUID != before.SOPInstanceUID
        assert after.SeriesInstanceUID == before.SeriesInstanceUID


ODD = {"PatientID": "no_caret\\two", "PatientName": "JANCT000", "PatientBirthDate": "1961.02.03", "PatientAge": "60"}
ODD |= {"PatientSex": "female", "StudyTime": "10:11", "StudyDate": None, "AccessionNumber": ""}
ODD |= {"StudyID": "longer than sixteen characters", "ReferringPhysicianName": None, "SliceThickness": None}
ODD |= {"ClinicalTrialTimePointID": "13"}


@pytest.mark.parametrize("changed", [dict.fromkeys(PATIENT, ""), dict.fromkeys(PATIENT), ODD])
def test_odd_patients(changed, tmp_path, caplog, recwarn):
    folder = write_ct(tmp_path / "ct", **changed)
    caplog.clear()
    recwarn.clear()
    written(folder, tmp_path, keep_identifiers=True)
    assert [record.message for record in caplog.records] == []
    assert [str(warning.message) for warning in recwarn] == []
    for name in ("seg.dcm", "sr.dcm"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = pydicom.dcmread(tmp_path / name)
        for keyword in ("PatientBirthDate", "PatientSex", "StudyTime", "StudyDate", "AccessionNumber"):
            assert content[keyword].value in ("", None)
        assert content.PatientName == (changed["PatientName"] or "")
        assert "PatientAge" not in content
        assert "ClinicalTrialTimePointID" not in content


def test_names_in_another_character_set(tmp_path):
    folder = write_ct(tmp_path / "ct", SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Ärla")
    written(folder, tmp_path, keep_identifiers=True)
    for name in ("seg.dcm", "sr.dcm"):
        content = pydicom.dcmread(tmp_path / name)
        assert (content.SpecificCharacterSet, content.PatientName) == ("ISO_IR 192", "Müller^Ärla")


NAMED = "PatientName PatientID OtherPatientIDs PatientMotherBirthName PatientAddress PatientComments ImageComments "
NAMED += "IssuerOfPatientID ReferringPhysicianName PerformingPhysicianName OperatorsName InstitutionName StationName "
NAMED += "AccessionNumber StudyID StudyDescription SeriesDescription ProtocolName PositionReferenceIndicator "
NAMED += "DeidentificationMethod DeviceSerialNumber RequestingPhysician"
NAMED = dict.fromkeys(NAMED.split(), "Hartmann")
DATES = {"PatientBirthDate": "19610203", "StudyDate": "19870605", "StudyTime": "040404", "PatientAge": "061Y"}


def test_by_default_nobody_is_named(tmp_path):
    written(write_ct(tmp_path / "ct", **NAMED, **DATES, PatientIdentityRemoved="NO"), tmp_path)
    for name in ("seg.dcm", "sr.dcm"):
        content = (tmp_path / name).read_bytes()
        assert [text for text in ("Hartmann", *DATES.values()) if text.encode() in content] == []
        made = pydicom.dcmread(tmp_path / name)
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"):
            assert made[keyword].value in ("", None)  # required
        for keyword in ("StudyID", "AccessionNumber", "ReferringPhysicianName"):
            assert made[keyword].value in ("", None)
        assert (made.PatientIdentityRemoved, made.LongitudinalTemporalInformationModified) == ("YES", "REMOVED")
        assert "UIDs kept" in made.DeidentificationMethod and len(made.DeidentificationMethod) <= 64
        assert made.StudyInstanceUID == "1.2.5"


@pytest.mark.integration
def test_identifiers_are_kept_where_asked_for_in_other_objects_of_another_series(tmp_path):
    folder = write_ct(tmp_path / "ct", PatientIdentityRemoved="NO", IssuerOfPatientID="H")
    found = []
    for keep in (True, False):
        (tmp_path / str(keep)).mkdir()
        written(folder, tmp_path / str(keep), keep_identifiers=keep)
        found.append([pydicom.dcmread(tmp_path / str(keep) / name) for name in ("seg.dcm", "sr.dcm")])
    for kept, removed in zip(*found, strict=True):
        assert {keyword: str(kept[keyword].value) for keyword in PATIENT} == PATIENT
        assert (kept.PatientIdentityRemoved, kept.IssuerOfPatientID) == ("NO", "H")
        assert "DeidentificationMethod" not in kept
        assert kept.SOPInstanceUID != removed.SOPInstanceUID
        assert kept.SeriesInstanceUID != removed.SeriesInstanceUID
        assert kept.StudyInstanceUID == removed.StudyInstanceUID


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "SOPClassUID"])
def test_a_series_without_uids_is_refused(keyword, tmp_path):
    folder = write_ct(tmp_path / "ct", **{keyword: ""})
    with pytest.raises(LiversegError, match=rf"0\.dcm: no {keyword}, which a DICOM SEG or report needs") as caught:
        written(folder, tmp_path)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ct"]


def test_slices_of_two_studies_are_refused(tmp_path):
    folder = write_ct(tmp_path / "ct")
    header = pydicom.dcmread(folder / "3.dcm")
    header.StudyInstanceUID = "1.2.99"
    header.save_as(folder / "3.dcm")
    with pytest.raises(LiversegError, match=r"3\.dcm: another StudyInstanceUID than in 0\.dcm"):
        written(folder, tmp_path)


def test_what_does_not_belong_together(tmp_path):
    series = choose_series(write_ct(tmp_path / "ct"))
    volume = read_dicom_volume(series)
    lesions, reference = made_up(volume), series_reference(series, volume)
    table = lesion_table(lesions, volume, LABELS)
    with pytest.raises(ValueError, match="they must be the same"):
        fewer = replace(table, rows=table.rows[1:])
        write_measurement_report(tmp_path / "sr.dcm", reference, volume, lesions, fewer, LABELS, WEIGHTS)
    unlikely = made_up(volume, min_confidence=0.9)
    with pytest.raises(ValueError, match="which the label table does not have"):
        write_dicom_seg(tmp_path / "seg.dcm", reference, volume, unlikely, JOINT_LABELS, WEIGHTS)
    (tmp_path / "thin").mkdir()
    shutil.copy(series.files[0], tmp_path / "thin")
    with pytest.raises(ValueError, match="for a series of 1 axial slices"):
        series_reference(choose_series(tmp_path / "thin"), volume)


@pytest.mark.integration
def test_the_box_does_not_matter(tmp_path):
    """Objects of a result in a box around the liver equal those of a result of the complete volume."""
    series = choose_series(write_ct(tmp_path / "ct", DOWN))
    volume = read_dicom_volume(series)
    complete, reference = made_up(volume), series_reference(series, volume)
    boxes = [full_box(complete.shape), (slice(1, 9), slice(2, 31), slice(0, 33))]
    objects = []
    for box in boxes:
        lesions = replace(complete, inside=complete.inside[box], ids_inside=complete.ids_inside[box], box=box)
        table = lesion_table(lesions, volume, LABELS)
        write_dicom_seg(tmp_path / "seg.dcm", reference, volume, lesions, LABELS, WEIGHTS)
        write_measurement_report(tmp_path / "sr.dcm", reference, volume, lesions, table, LABELS, WEIGHTS)
        seg, report = pydicom.dcmread(tmp_path / "seg.dcm"), pydicom.dcmread(tmp_path / "sr.dcm")
        frames = seg.PerFrameFunctionalGroupsSequence
        objects.append((seg.SOPInstanceUID, seg.PixelData, frames, report.SOPInstanceUID, report.ContentSequence))
    assert objects[0] == objects[1]


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy of dicom3tools is not here")
@pytest.mark.parametrize("settings", [{}, {"lesions": False}, {"keep_identifiers": True}])
def test_the_standard_is_kept(settings, tmp_path):
    written(write_ct(tmp_path / "ct"), tmp_path, **settings)
    for name in ("seg.dcm", "sr.dcm"):
        result = subprocess.run(["dciodvfy", tmp_path / name], capture_output=True, text=True)
        messages = result.stdout + result.stderr
        assert ("Segmentation" in messages) or ("ComprehensiveSR" in messages)
        assert "Error" not in messages, messages
