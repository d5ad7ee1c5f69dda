"""`liverseg predict` on DICOM: a folder, a zip and the NIfTI file of the same series have the same labels."""

import base64
import gzip
import json
import shutil
import zipfile

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from ct_files import write_on_grid
from dicom_files import compress, write_slice
from pydicom.uid import JPEG2000Lossless, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

import liverseg
from liverseg.cli.main import main
from liverseg.errors import UnreadableError
from liverseg.imageio.dicom_select import choose_series, read_dicom_volume
from liverseg.imageio.volume import read_volume
from liverseg.inference.transforms import ReadCTd
from liverseg.results.case_folder import CASE_FILES

DICOM_FILES = {"segmentation.dcm", "measurements.dcm"}


@pytest.fixture
def study(tmp_path):
    """A folder with a CT series in the order head to feet, and a localiser."""
    folder = tmp_path / "study"
    planes = np.random.default_rng(0).integers(-200, 250, (5, 40, 48)).astype(np.int16)
    planes[:, :6] = -1000
    for number, plane in enumerate(planes):
        write_slice(folder / "ct" / f"{number}.dcm", plane, (-15, -12, 300 - 2.5 * number), uid="1.2.3.4")
    write_slice(folder / "scout" / "1.dcm", planes[0], (0, 0, 0), orientation="1\\0\\0\\0\\0\\-1", uid="1.2.3.5")
    for path in sorted(folder.rglob("*.dcm")):
        header = pydicom.dcmread(path)
        header.StudyInstanceUID, header.FrameOfReferenceUID = "1.2.3", "1.2.3.9"
        header.PatientName, header.PatientID = "Doe^Jane", "4711"
        header.save_as(path)
    return folder


def predict(*arguments):
    return main(["predict", *map(str, arguments)])


@pytest.mark.integration
def test_folder_zip_and_nifti_agree_and_dicom_gets_dicom(study, weights, tmp_path, capsys):
    zips = tmp_path / "zips"
    zips.mkdir()
    with zipfile.ZipFile(zips / "packed.zip", "w") as archive:
        for path in sorted(study.rglob("*.dcm")):
            archive.write(path, path.relative_to(study))
    volume = read_dicom_volume(choose_series(study))
    write_on_grid(zips / "nifti.nii.gz", volume.array, volume)
    assert predict(study, tmp_path / "out", "--weights", weights, "--liver", "none") == 0
    assert predict(zips, tmp_path / "out", "--weights", weights, "--liver", "none", "--statistics") == 0
    found = {case: nib.load(tmp_path / "out" / case / "labels.nii.gz") for case in ("study", "packed", "nifti")}
    for case, image in found.items():
        np.testing.assert_array_equal(np.asarray(image.dataobj), np.asarray(found["nifti"].dataobj), err_msg=case)
        np.testing.assert_allclose(image.affine, volume.affine, atol=1e-4)
        files = {path.name for path in (tmp_path / "out" / case).iterdir()}
        assert files == set(CASE_FILES) | (set() if case == "nifti" else DICOM_FILES)
    labels = np.asarray(found["study"].dataobj)
    assert (labels > 1).any()

    seg = hd.seg.segread(tmp_path / "out" / "study" / "segmentation.dcm")
    assert seg.StudyInstanceUID == "1.2.3"
    frames = seg.get_volume(segment_numbers=[1], combine_segments=True, rescale_fractional=False)
    assert frames.array.sum() == (labels == 1).sum()
    record = json.loads((tmp_path / "out" / "study" / "record.json").read_text(encoding="utf-8"))
    assert record["input"]["series"] == {"uid": "1.2.3.4", "description": None, "slices": 5}
    assert "study: series 1.2.3.4 of 5 slices: liver" in capsys.readouterr().out
    packed = json.loads((tmp_path / "out" / "packed" / "record.json").read_text(encoding="utf-8"))
    assert packed["input"]["path"] == str(zips / "packed.zip")
    summary = (tmp_path / "out" / "summary.csv").read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[0] for line in summary] == ["case", "nifti", "packed"]


@pytest.mark.integration
def test_compressed_slices_give_the_same_labels(study, weights, tmp_path):
    options = ["--weights", weights, "--liver", "none", "--no-preview"]
    assert predict(study, tmp_path / "plain", *options) == 0
    syntaxes = (RLELossless, JPEGLSLossless, JPEGLosslessSV1, JPEGLossless, JPEG2000Lossless)
    hu = read_dicom_volume(choose_series(study)).array
    for path, syntax in zip(sorted((study / "ct").iterdir()), syntaxes, strict=True):
        compress(path, syntax)
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(read_dicom_volume(choose_series(study)).array, hu)
    assert predict(study, tmp_path / "compressed", *options) == 0
    plain, compressed = (
        np.asarray(nib.load(tmp_path / name / "study" / "labels.nii.gz").dataobj) for name in ("plain", "compressed")
    )
    assert (plain > 1).any()
    np.testing.assert_array_equal(compressed, plain)


TEXTS = ("PatientName", "PatientID", "OtherPatientIDs", "PatientComments", "InstitutionName", "AccessionNumber")
TEXTS += ("ReferringPhysicianName", "StudyID", "StudyDescription", "SeriesDescription", "ProtocolName")


@pytest.mark.integration
@pytest.mark.parametrize("keep", [False, True])
def test_what_headers_say_of_the_patient(keep, study, weights, tmp_path, capfd):
    """Neither files nor messages contain it, unless requested."""
    for path in study.rglob("*.dcm"):
        header = pydicom.dcmread(path)
        for keyword in TEXTS:
            setattr(header, keyword, "Hartmann")
        header.save_as(path)
    options = ["--weights", weights, *(["--keep-identifiers"] if keep else [])]
    written = ["--liver", "none", "--report", "--statistics", "--series", "hartmann"]
    assert predict(study, tmp_path / "out", *options, *written) == 0
    captured = capfd.readouterr()
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    named = {path.name for path in files if b"Hartmann" in content_of(path)}
    assert len(files) == len(CASE_FILES) + len(DICOM_FILES) + 3
    assert named == ({*DICOM_FILES, "record.json", "report.html"} if keep else set())
    assert ("Hartmann" in captured.out, "Hartmann" in captured.err) == (keep, False)
    seg = pydicom.dcmread(tmp_path / "out" / "study" / "segmentation.dcm")
    assert str(seg.PatientName) == ("Hartmann" if keep else "")
    picture = base64.b64encode((tmp_path / "out" / "study" / "preview.png").read_bytes())
    assert picture in (tmp_path / "out" / "study" / "report.html").read_bytes()
    record = json.loads((tmp_path / "out" / "study" / "record.json").read_text(encoding="utf-8"))
    assert record["settings"]["keep_identifiers"] == keep
    assert record["input"]["series"]["description"] == ("Hartmann" if keep else None)

    shutil.copytree(study / "ct", study / "late")
    for path in (study / "late").iterdir():
        header = pydicom.dcmread(path)
        header.SeriesInstanceUID, header.PixelData = "1.2.3.6", header.PixelData[96:] + header.PixelData[:96]
        header.save_as(path)
    for wrong in ([], ["--series", "1.2.3.5"], ["--series", "none of them"], ["--series", "HARTMANN"]):
        assert predict(study, tmp_path / "wrong", *options, *wrong) == 1
        (line,) = capfd.readouterr().err.splitlines()
        assert ("Hartmann" in line, "described with keep_identifiers" in line) == (keep, not keep), line


def content_of(path):
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


@pytest.mark.integration
def test_dicom_results_can_be_left_out_and_old_ones_go(study, weights, tmp_path):
    for options, more in (([], DICOM_FILES), (["--no-dicom", "--no-preview", "--report"], {"report.html"})):
        assert predict(study, tmp_path / "out", "--weights", weights, "--liver", "none", *options) == 0
        files = {path.name for path in (tmp_path / "out" / "study").iterdir()}
        assert files == (set(CASE_FILES) - ({"preview.png"} if options else set())) | more
    assert b"data:image/png;base64,iVBOR" in (tmp_path / "out" / "study" / "report.html").read_bytes()


@pytest.mark.integration
def test_slices_without_uids_are_computed_with_a_warning(study, weights, tmp_path, capsys):
    for path in (study / "ct").iterdir():
        header = pydicom.dcmread(path)
        del header.FrameOfReferenceUID
        header.save_as(path)
    assert predict(study, tmp_path / "out", "--weights", weights, "--liver", "none") == 0
    record = json.loads((tmp_path / "out" / "study" / "record.json").read_text(encoding="utf-8"))
    starts = [warning.split(":")[0] for warning in record["warnings"] if "FrameOfReferenceUID" in warning]
    assert starts == ["no DICOM results"]
    assert not (tmp_path / "out" / "study" / "segmentation.dcm").exists()


@pytest.mark.integration
def test_a_named_series_and_what_cannot_be_read(study, weights, tmp_path, capsys):
    shutil.copytree(study / "ct", study / "again")
    for path in (study / "again").iterdir():
        header = pydicom.dcmread(path)
        header.SeriesInstanceUID, header.SeriesDescription = "1.2.3.6", "late"
        header.save_as(path)
    assert predict(study, tmp_path / "chosen", "--weights", weights, "--liver", "none") == 0
    record = json.loads((tmp_path / "chosen" / "study" / "record.json").read_text(encoding="utf-8"))
    assert record["input"]["series"]["uid"] == "1.2.3.4"
    choice = "2 axial stacks of comparable length; read is that portal by its header, left out: 1 delayed"
    assert choice in record["warnings"]
    assert predict(study, tmp_path / "chosen", "--weights", weights, "--phase", "native") == 1
    assert "no series in the native phase (found: 1 delayed, 1 portal)" in capsys.readouterr().err
    assert predict(study, tmp_path / "out", "--weights", weights, "--liver", "none", "--series", "late") == 0
    capsys.readouterr()
    assert predict(study, tmp_path / "out", "--weights", weights, "--liver", "none", "--series", "portal") == 1
    assert "holds the results of another series" in capsys.readouterr().err
    (study / "again" / "2.dcm").unlink()
    capsys.readouterr()
    assert predict(study, tmp_path / "gap", "--weights", weights, "--series", "late") == 1
    assert "1 missing: copy the series again" in capsys.readouterr().err


def test_a_fault_inside_a_zip_is_reported_with_the_name_of_the_zip(study, weights, tmp_path, capsys):
    (study / "ct" / "2.dcm").unlink()
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        for path in sorted(study.rglob("*.dcm")):
            archive.write(path, path.relative_to(study))
    assert predict(tmp_path / "packed.zip", tmp_path / "out", "--weights", weights) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"liverseg: {tmp_path / 'packed.zip'}/ct: a gap of 5 mm between 3.dcm and 1.dcm")


def test_a_phase_of_what_is_not_dicom_is_a_warning(study, tmp_path):
    volume = read_dicom_volume(choose_series(study))
    write_on_grid(tmp_path / "ct.nii.gz", volume.array, volume)
    warning = "the CT is not DICOM: whether it is arterial was not checked"
    for image in (tmp_path / "ct.nii.gz", read_volume(tmp_path / "ct.nii.gz")):
        assert warning in ReadCTd(phase="arterial")({"image": image})["warnings"]
        assert warning not in ReadCTd()({"image": image})["warnings"]


def test_the_temporary_folder_of_a_zip_is_not_named(study, tmp_path):
    path = tmp_path / "packed.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number, uid in enumerate(("1.2.3.4", "1.2.3.5")):
            for file in (study / "ct").iterdir():
                header = pydicom.dcmread(file)
                header.SeriesInstanceUID, header.SOPInstanceUID = uid, f"{header.SOPInstanceUID}.{number}"
                header.PixelData = header.PixelData[96 * number :] + header.PixelData[: 96 * number]
                del header.FrameOfReferenceUID
                header.save_as(tmp_path / "slice.dcm")
                archive.write(tmp_path / "slice.dcm", f"{number}{file.name}")
    read = ReadCTd("image", dicom_results=True)
    with pytest.raises(UnreadableError, match=r"packed\.zip: 2 series of most slices, .* slices, in packed\.zip\), "):
        read({"image": path})
    (warning,) = [text for text in read({"image": path, "series": "1.2.3.5"})["warnings"] if "DICOM results" in text]
    assert warning.startswith(f"no DICOM results: {path}/1")


@pytest.mark.integration
def test_a_tilted_gantry_at_both_front_doors(study, weights, tmp_path, capsys):
    for path in sorted((study / "ct").iterdir()):
        header = pydicom.dcmread(path)
        x, y, z = header.ImagePositionPatient
        header.ImagePositionPatient = [x, float(y) + 0.3 * (300 - float(z)), z]
        header.save_as(path)
    assert predict(study, tmp_path / "out", "--weights", weights, "--liver", "none") == 1
    line = capsys.readouterr().err
    assert "gantry tilt of 16.7 degrees" in line
    assert line.endswith("which --untilt does (untilt=True in Python)\n")
    assert predict(study, tmp_path / "out", "--weights", weights, "--liver", "none", "--untilt") == 0
    record = json.loads((tmp_path / "out" / "study" / "record.json").read_text(encoding="utf-8"))
    assert record["settings"]["untilt"] is True and 16.6 < record["input"]["series"]["tilt_degrees"] < 16.8
    assert any("onto an upright grid, which NIfTI results have" in warning for warning in record["warnings"])
    labels = sitk.ReadImage(str(tmp_path / "out" / "study" / "labels.nii.gz"))
    assert labels.GetSize() == (48, 44, 5)
    seg = pydicom.dcmread(tmp_path / "out" / "study" / "segmentation.dcm")
    assert (seg.Rows, seg.Columns) == (40, 48)
    places = {tuple(map(float, pydicom.dcmread(path).ImagePositionPatient)) for path in (study / "ct").iterdir()}
    for frame in seg.PerFrameFunctionalGroupsSequence:
        assert tuple(map(float, frame.PlanePositionSequence[0].ImagePositionPatient)) in places
    found = liverseg.predict(study, weights=weights, liver="none", untilt=True)
    np.testing.assert_array_equal(found.labels, sitk.GetArrayFromImage(labels).transpose(2, 1, 0))
