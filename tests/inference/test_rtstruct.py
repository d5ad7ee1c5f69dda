"""RT Structure Sets of artificial results, read with pydicom and filled by matplotlib, have the label map's voxels."""

import shutil
import subprocess

import numpy as np
import pydicom
import pytest
from dicom_files import write_enhanced_ct
from made_up_results import lesions_of, small_result, write_series
from matplotlib.path import Path as Polygon
from scipy import ndimage

from liverseg.imageio.dicom_select import choose_series, read_dicom_volume, read_dicom_with_shifts
from liverseg.inference.output.dicom_common import series_reference
from liverseg.inference.output.rtstruct import write_rtstruct
from liverseg.labels import INDETERMINATE, JOINT_LABELS, result_labels

LABELS = result_labels(5)
WEIGHTS = "ab" * 32
UP, DOWN = "1\\0\\0\\0\\1\\0", "1\\0\\0\\0\\-1\\0"
TURN = np.array([[0.9950041653, 0.0998334166, 0], [-0.0978433950, 0.9751703272, 0.1986693308]])
"""Directions of rows and columns of a patient who lies askew."""
TURNED = "\\".join(f"{number:.10f}" for number in TURN.ravel())
PATIENT = {"PatientName": "Doe^Jane", "PatientID": "4711", "PatientBirthDate": "19610203", "StudyDate": "20200405"}


def written(folder, path, keep_identifiers=False, make=small_result, **settings):
    """Write a structure set; return the series, the volume, the lesion map and whether there is a file."""
    series = choose_series(folder)
    volume = read_dicom_volume(series)
    lesions = make(volume, **settings)
    reference = series_reference(series, volume, keep_identifiers)
    return series, volume, lesions, write_rtstruct(path, reference, volume, lesions, LABELS, WEIGHTS)


def filled(dataset, series):
    """Return the voxels of each region of interest by its name, (slice, row, column) in the order of the series."""
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in series.files]
    places = {header.SOPInstanceUID: number for number, header in enumerate(headers)}
    names = {region.ROINumber: region.ROIName for region in dataset.StructureSetROISequence}
    rows, columns = headers[0].Rows, headers[0].Columns
    grid = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2)
    masks = {}
    for drawn in dataset.ROIContourSequence:
        mask = masks.setdefault(names[drawn.ReferencedROINumber], np.zeros((len(headers), rows, columns), bool))
        for contour in drawn.ContourSequence:
            (image,) = contour.ContourImageSequence
            number = places[image.ReferencedSOPInstanceUID]
            header = headers[number]
            assert image.ReferencedSOPClassUID == header.SOPClassUID
            assert contour.ContourGeometricType == "CLOSED_PLANAR"
            points = np.array(contour.ContourData, float).reshape(-1, 3) - np.array(header.ImagePositionPatient, float)
            assert len(points) == contour.NumberOfContourPoints >= 3
            across, down = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
            assert np.abs(points @ np.cross(across, down)).max() < 2e-3  # in the slice's plane
            between_rows, between_columns = header.PixelSpacing
            pixels = np.stack([points @ across / between_columns, points @ down / between_rows], axis=1)
            low, high = np.floor(pixels.min(axis=0)), np.ceil(pixels.max(axis=0))
            near = ((grid >= low) & (grid <= high)).all(axis=1)
            inside = np.zeros(len(grid), bool)
            inside[near] = Polygon(pixels).contains_points(grid[near])
            assert not (mask[number] & inside.reshape(rows, columns)).any()  # outlines of one region do not overlap
            mask[number] |= inside.reshape(rows, columns)
    return masks


@pytest.mark.integration
@pytest.mark.parametrize(
    ("orientation", "step"), [(UP, (0, 0, 3.0)), (DOWN, (0, 0, 3.0)), (TURNED, 3 * np.cross(*TURN))]
)
def test_outlines_are_filled_to_the_same_voxels(orientation, step, tmp_path):
    folder = write_series(tmp_path / "ct", orientation=orientation, spacing=(2, 1.5), step=step)
    series, volume, lesions, kept = written(folder, tmp_path / "rt.dcm")
    assert kept
    masks = filled(pydicom.dcmread(tmp_path / "rt.dcm"), series)
    ids = volume.from_axial(lesions.ids).transpose(2, 1, 0)
    assert [*masks] == ["liver", *(f"{LABELS[kind].name} {number}" for number, kind in enumerate(lesions.types, 1))]
    assert len(masks) == 4
    np.testing.assert_array_equal(masks["liver"], volume.from_axial(lesions.labels).transpose(2, 1, 0) > 0)
    for number, name in enumerate([*masks][1:], start=1):
        np.testing.assert_array_equal(masks[name], ids == number)


@pytest.mark.integration
@pytest.mark.parametrize("drift", [1.0, -0.7])
def test_outlines_of_a_tilted_gantry_are_on_the_slices_of_the_series(drift, tmp_path):
    series = choose_series(write_series(tmp_path / "ct", step=(0, drift, 3.0)))
    volume, found = read_dicom_with_shifts(series, untilt=True)
    lesions = small_result(volume)
    reference = series_reference(series, volume, shifts=found.shifts)
    assert write_rtstruct(tmp_path / "rt.dcm", reference, volume, lesions, LABELS, WEIGHTS)
    masks = filled(pydicom.dcmread(tmp_path / "rt.dcm"), series)
    rows = np.rint(found.shifts.shifts[:, 1]).astype(int)
    assert len(set(rows)) > 2
    for name, mask in masks.items():
        expected = lesions.labels > 0 if name == "liver" else lesions.ids == int(name.split()[1])
        for number, row in enumerate(rows):
            np.testing.assert_array_equal(mask[number], expected[number, row : row + mask.shape[1]])


@pytest.mark.integration
def test_outlines_of_an_enhanced_ct_refer_to_its_frames(tmp_path):
    order = [4, 0, 8, 1, 7, 2, 6, 3, 5]  # of the frames from feet to head
    stored = np.random.default_rng(3).integers(0, 200, (9, 34, 38)).astype(np.int16)
    (tmp_path / "ct").mkdir()
    write_enhanced_ct(tmp_path / "ct" / "enhanced.dcm", stored, [3.0 * number for number in order])
    _, volume, lesions, kept = written(tmp_path / "ct", tmp_path / "rt.dcm")
    assert kept
    uid = pydicom.dcmread(tmp_path / "ct" / "enhanced.dcm", stop_before_pixels=True).SOPInstanceUID
    labels = volume.from_axial(lesions.labels).transpose(2, 1, 0)
    liver = pydicom.dcmread(tmp_path / "rt.dcm").ROIContourSequence[0]
    found = set()
    for contour in liver.ContourSequence:
        (image,) = contour.ContourImageSequence
        assert image.ReferencedSOPInstanceUID == uid
        number = order[image.ReferencedFrameNumber - 1]
        np.testing.assert_allclose(np.array(contour.ContourData, float)[2::3], 3.0 * number)
        found.add(number)
    assert found == set(np.flatnonzero((labels > 0).any(axis=(1, 2))))


def irregular(volume):
    """Return a liver of a thousand outline points a slice, with vessels cut out, and round and spiculated lesions."""
    shape = volume.axial.shape
    k, j, i = np.indices(shape)
    noise = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=shape), (1, 3, 3))
    noise /= noise.std()
    labels = (((i - 200) / 150) ** 2 + ((j - 250) / 170) ** 2 + ((k - 3) / 8) ** 2 + 0.12 * noise < 1).astype(np.uint8)
    labels[ndimage.binary_opening(noise > 2.2) & (labels > 0)] = 0
    for label, x, y, radius in ((2, 150, 200, 30), (3, 250, 300, 12), (4, 180, 320, 45), (4, 120, 260, 3)):
        labels[((i - x) ** 2 + (j - y) ** 2 + 8 * (k - 3) ** 2 < radius**2 * (1 + 0.2 * noise)) & (labels > 0)] = label
    return lesions_of(labels, volume.voxel_ml)


@pytest.mark.integration
def test_liver_of_a_ct_of_full_size(tmp_path):
    folder = write_series(tmp_path / "ct", (6, 512, 512), spacing=(0.703125, 0.703125), step=(0, 0, 2.5))
    series, volume, lesions, _ = written(folder, tmp_path / "rt.dcm", make=irregular)
    dataset = pydicom.dcmread(tmp_path / "rt.dcm")
    masks = filled(dataset, series)
    liver = volume.from_axial(lesions.labels).transpose(2, 1, 0) > 0
    ids = volume.from_axial(lesions.ids).transpose(2, 1, 0)
    for name, mask in masks.items():
        expected = liver if name == "liver" else ids == int(name.split()[1])
        assert 2 * np.count_nonzero(mask & expected) / (mask.sum() + expected.sum()) > 0.999, name
    longest = max(len(contour["ContourData"].value) for contour in dataset.ROIContourSequence[0].ContourSequence)
    assert longest > 2000
    assert all(len(str(number)) <= 16 for number in dataset.ROIContourSequence[0].ContourSequence[0].ContourData)


@pytest.mark.integration
def test_structures_are_named_coloured_and_coded(tmp_path):
    folder = write_series(tmp_path / "ct")
    written(folder, tmp_path / "rt.dcm", min_confidence=0.7)
    made = pydicom.dcmread(tmp_path / "rt.dcm")
    assert made.file_meta.TransferSyntaxUID.is_implicit_VR
    assert (made.Modality, made.ApprovalStatus, made.SOPClassUID.name) == (
        *("RTSTRUCT", "UNAPPROVED"),
        "RT Structure Set Storage",
    )
    assert (made.StudyInstanceUID, made.FrameOfReferenceUID) == ("1.2.5", "1.2.6")
    (frame,) = made.ReferencedFrameOfReferenceSequence
    (study,) = frame.RTReferencedStudySequence
    (series,) = study.RTReferencedSeriesSequence
    assert (frame.FrameOfReferenceUID, study.ReferencedSOPInstanceUID, series.SeriesInstanceUID) == (
        *("1.2.6", "1.2.5"),
        "1.2.7",
    )
    assert {image.ReferencedSOPInstanceUID for image in series.ContourImageSequence} == {
        f"1.2.8.{number}" for number in range(1, 10)
    }
    labels = {label.name: label for label in LABELS}
    assert len(made.StructureSetROISequence) == 4
    for region, drawn, observation in zip(
        made.StructureSetROISequence, made.ROIContourSequence, made.RTROIObservationsSequence, strict=True
    ):
        assert region.ROINumber == drawn.ReferencedROINumber == observation.ReferencedROINumber
        assert (region.ReferencedFrameOfReferenceUID, region.ROIGenerationAlgorithm) == ("1.2.6", "AUTOMATIC")
        label = labels[region.ROIName.split()[0]]
        assert tuple(drawn.ROIDisplayColor) == label.color
        (code,) = observation.RTROIIdentificationCodeSequence
        assert (code.CodeValue, code.CodingSchemeDesignator) == (label.snomed_code, "SCT")
        assert observation.RTROIInterpretedType == ("ORGAN" if label.name == "liver" else "")


def test_unlikely_types_are_named_so(tmp_path):
    written(write_series(tmp_path / "ct"), tmp_path / "rt.dcm", min_confidence=0.9)
    names = [region.ROIName for region in pydicom.dcmread(tmp_path / "rt.dcm").StructureSetROISequence]
    assert names == ["liver", *(f"{INDETERMINATE.name} {number}" for number in (1, 2, 3))]


def test_without_lesions_or_liver(tmp_path):
    folder = write_series(tmp_path / "ct")
    written(folder, tmp_path / "rt.dcm", lesions=False)
    assert [region.ROIName for region in pydicom.dcmread(tmp_path / "rt.dcm").StructureSetROISequence] == ["liver"]
    *_, kept = written(folder, tmp_path / "none.dcm", lesions=False, liver=False)
    assert not kept
    assert not (tmp_path / "none.dcm").exists()


def test_the_same_result_is_the_same_object(tmp_path):
    folder = write_series(tmp_path / "ct", **PATIENT)
    made = {}
    for name, settings in (
        *(("first", {}), ("again", {}), ("kept", {"keep_identifiers": True})),
        ("less", {"min_lesion_ml": 1.5}),
    ):
        written(folder, tmp_path / f"{name}.dcm", **settings)
        made[name] = pydicom.dcmread(tmp_path / f"{name}.dcm")
        assert made[name].file_meta.MediaStorageSOPInstanceUID == made[name].SOPInstanceUID
        made[name].StructureSetDate = made[name].StructureSetTime = ""
    assert made["first"] == made["again"]
    assert len({made[name].SOPInstanceUID for name in ("first", "kept", "less")}) == 3
    assert made["first"].SeriesInstanceUID == made["less"].SeriesInstanceUID != made["kept"].SeriesInstanceUID


def test_by_default_nobody_is_named(tmp_path):
    folder = write_series(tmp_path / "ct", **PATIENT)
    for keep in (False, True):
        written(folder, tmp_path / "rt.dcm", keep_identifiers=keep)
        content, made = (tmp_path / "rt.dcm").read_bytes(), pydicom.dcmread(tmp_path / "rt.dcm")
        assert [text.encode() in content for text in PATIENT.values()] == [keep] * len(PATIENT)
        assert str(made.PatientName) == ("Doe^Jane" if keep else "")
        assert (made.get("PatientIdentityRemoved") == "YES") is not keep


def test_a_label_that_the_table_lacks_is_refused(tmp_path):
    series = choose_series(write_series(tmp_path / "ct"))
    volume = read_dicom_volume(series)
    unlikely, reference = small_result(volume, min_confidence=0.9), series_reference(series, volume)
    with pytest.raises(ValueError, match="which the label table does not have"):
        write_rtstruct(tmp_path / "rt.dcm", reference, volume, unlikely, JOINT_LABELS, WEIGHTS)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy of dicom3tools is not here")
@pytest.mark.parametrize("settings", [{}, {"lesions": False}, {"keep_identifiers": True}])
def test_the_standard_is_kept(settings, tmp_path):
    written(write_series(tmp_path / "ct", **PATIENT), tmp_path / "rt.dcm", **settings)
    result = subprocess.run(["dciodvfy", tmp_path / "rt.dcm"], capture_output=True, text=True)
    messages = result.stdout + result.stderr
    assert "RTStructureSet" in messages
    assert "Error" not in messages, messages
