"""Choice of a study's series, and its volume."""

import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
from ct_files import write_on_grid
from dicom_files import write_slice

from liverseg.errors import LiversegError
from liverseg.imageio.dicom_select import choose_series, read_dicom_volume
from liverseg.imageio.volume import read_volume

REAL = Path(os.environ.get("LIVERSEG_REAL_DATA") or Path(__file__).parents[3] / "shared" / "realdata")
CORONAL = "1\\0\\0\\0\\0\\-1"


def write_scan(folder, slices=3, uid="1.2.3", description="portal", image_type=None, without=None, seed=0, **settings):
    for number in range(slices):
        path, position = folder / f"{number}.dcm", (-10, -20, 2.5 * number)
        plane = np.random.default_rng(number + seed).integers(-1000, 1500, (4, 5)).astype(np.int16)
        write_slice(path, plane, position, uid=uid, description=description, **settings)
        if image_type or without:
            header = pydicom.dcmread(path)
            header.ImageType = image_type
            header.pop(without, None)
            header.save_as(path)
    return folder


@pytest.fixture
def study(tmp_path):
    """Two axial phases of different length, a localiser, a coronal reformation, a mask and hidden files."""
    write_scan(tmp_path / "one" / "portal", 4, "1.2.31", "Portal  venous")
    write_scan(tmp_path / "arterial", 3, "1.2.32", "Arterial")
    write_scan(tmp_path / "coronal", 9, "1.2.33", "Coronal", orientation=CORONAL)
    write_scan(tmp_path / "mask", 9, "1.2.34", "Mask", modality="SG")
    write_scan(tmp_path / "scout", 1, "1.2.35", "Arterial", image_type="ORIGINAL\\PRIMARY\\LOCALIZER")
    write_scan(tmp_path / ".hidden", 9, "1.2.36", "Hidden")
    return tmp_path


def test_the_longest_axial_series_is_chosen(study):
    chosen = choose_series(study)
    assert (chosen.uid, chosen.folder, len(chosen.files)) == ("1.2.31", study / "one" / "portal", 4)


@pytest.mark.parametrize("name", ["1.2.32", "arterial", " ARTERIAL ", "32"])
def test_a_series_by_name(name, study):
    assert choose_series(study, name).uid == "1.2.32"


def test_a_description_is_matched_by_its_words(study):
    assert choose_series(study, "portal venous").uid == "1.2.31"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "venous",
            r"series venous: no such CT series; there are Arterial \(3 slices, 1\.2\.32, in arterial\), Coronal",
        ),
        ("Coronal", r"Coronal \(9 slices, 1\.2\.33, in coronal\) leans 90 degrees from axial; name an axial series of"),
        ("35", r"Arterial \(1 slice, 1\.2\.35, in scout\) is a localiser"),
        ("Hidden", "series Hidden: no such CT series"),
        ("Mask", "series Mask: no such CT series"),
        ("", "an empty name of a series"),
    ],
)
def test_a_series_that_is_not_there(name, message, study):
    with pytest.raises(LiversegError, match=message) as caught:
        choose_series(study, name, keep_identifiers=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "venous",
            r"no such CT series; there are 1\.2\.32 \(3 slices, in arterial\), 1\.2\.33 .*, described with keep_",
        ),
        (
            "Coronal",
            r": 1\.2\.33 \(9 slices, in coronal\) leans 90 degrees from axial; name an axial series of 1\.2\.32 ",
        ),
        ("35", r": 1\.2\.35 \(1 slice, in scout\) is a localiser; name .*, described with keep_identifiers$"),
    ],
)
def test_descriptions_are_reported_only_on_request(name, message, study):
    with pytest.raises(LiversegError, match=message) as caught:
        choose_series(study, name)
    assert not {"Arterial", "Portal"} & set(str(caught.value).split())


def test_an_unreadable_slice_of_another_series(study):
    damaged = study / "arterial" / "1.dcm"
    damaged.write_bytes(damaged.read_bytes()[:-10])
    with pytest.raises(LiversegError, match=r"arterial/1\.dcm: a DICOM slice that cannot be read"):
        choose_series(study)
    with pytest.raises(LiversegError, match=r"arterial/1\.dcm: a DICOM slice that cannot be read"):
        choose_series(study, "arterial")
    assert len(choose_series(study, "portal venous").files) == 4


def test_slices_of_many_frames(tmp_path):
    write_scan(tmp_path, 1, without="ImageOrientationPatient")  # which an enhanced CT has per frame
    header = pydicom.dcmread(tmp_path / "0.dcm")
    header.NumberOfFrames = 1
    header.save_as(tmp_path / "0.dcm")
    with pytest.raises(LiversegError, match="has no image orientation"):
        choose_series(tmp_path)
    header.NumberOfFrames, header.PixelData = 3, 3 * header.PixelData
    header.save_as(tmp_path / "0.dcm")
    with pytest.raises(LiversegError, match="holds 3 frames in one file without a position of each; export it as one"):
        choose_series(tmp_path)


def test_a_tie_asks(study):
    write_scan(study / "late", 4, "1.2.37", "portal venous", seed=9)
    with pytest.raises(LiversegError, match=r"2 series of most slices, portal venous \(4 .*1\.2\.37.*; name one"):
        choose_series(study, keep_identifiers=True)
    with pytest.raises(
        LiversegError, match=r"2 series of most slices, 1\.2\.37 \(4 .*, described with keep_.*; name one as series"
    ):
        choose_series(study)
    with pytest.raises(LiversegError, match=r"2 series fit portal venous, 1\.2\.37 .*; give its complete UID"):
        choose_series(study, "portal venous")
    assert choose_series(study, "37").uid == "1.2.37"


def test_studies_without_an_axial_ct(tmp_path):
    with pytest.raises(LiversegError, match="no such folder"):
        choose_series(tmp_path / "none")
    with pytest.raises(LiversegError, match="no DICOM image in it or below"):
        choose_series(tmp_path)
    write_scan(tmp_path / "mr", modality="MR")
    with pytest.raises(LiversegError, match="modality MR; CT is needed"):
        choose_series(tmp_path)
    write_scan(tmp_path / "a", 2, "1.2.9", "a", orientation=CORONAL)
    write_scan(tmp_path / "b", 1, "1.2.8", "b", without="ImageOrientationPatient")
    with pytest.raises(LiversegError, match=r"no axial CT series; a \(.*\) leans 90 .*, b \(.*\) has no image orient"):
        choose_series(tmp_path, keep_identifiers=True)


@pytest.mark.parametrize(("degrees", "axial"), [(24, True), (-24, True), (26, False), (156, True)])
def test_how_far_a_series_may_lean(degrees, axial, tmp_path):
    angle = np.radians(degrees)
    orientation = f"1\\0\\0\\0\\{np.cos(angle):.6f}\\{np.sin(angle):.6f}"
    write_scan(tmp_path, 1, orientation=orientation)
    if axial:
        assert choose_series(tmp_path).uid == "1.2.3"
    else:
        with pytest.raises(LiversegError, match="leans 26 degrees from axial"):
            choose_series(tmp_path)


def test_the_volume_is_that_of_its_nifti(tmp_path):
    volume = read_dicom_volume(choose_series(write_scan(tmp_path / "ct")))
    assert volume.path == tmp_path / "ct"
    assert volume.array.dtype == volume.header.get_data_dtype() == np.int16
    assert (int(volume.header["sform_code"]), int(volume.header["qform_code"])) == (1, 1)
    assert volume.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(volume.header.get_sform(), volume.affine)
    np.testing.assert_allclose(volume.header.get_qform(), volume.affine, atol=1e-5)
    write_on_grid(tmp_path / "ct.nii.gz", volume.array, volume)
    written = read_volume(tmp_path / "ct.nii.gz")
    np.testing.assert_array_equal(written.array, volume.array)
    np.testing.assert_allclose(written.affine, volume.affine, atol=1e-5)


@pytest.mark.integration
def test_a_real_study(tmp_path):
    source = REAL / "hcc_048"
    if not source.is_dir():
        pytest.skip(f"{source} is not here; set LIVERSEG_REAL_DATA to the folder of real CT")
    chosen = choose_series(source, "recon 3: liver 2 phase (c/a/p)")
    assert len(chosen.files) == 89
    assert read_dicom_volume(chosen).axial.shape == (89, 512, 512)


def test_a_dicomdir_and_reports_beside_the_slices_are_passed_over(tmp_path):
    write_scan(tmp_path / "series")
    slice_header = pydicom.dcmread(tmp_path / "series" / "0.dcm")
    for name, kind in (("DICOMDIR", "1.2.840.10008.1.3.10"), ("report.dcm", "1.2.840.10008.5.1.4.1.1.88.33")):
        other = pydicom.Dataset()
        other.file_meta = pydicom.dataset.FileMetaDataset()
        other.file_meta.MediaStorageSOPClassUID = kind
        other.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
        other.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        other.ReferencedSOPClassUID = slice_header.SOPClassUID  # its bytes contain the class of CT slices
        other.save_as(tmp_path / "series" / name, enforce_file_format=True)
    chosen = choose_series(tmp_path)
    assert [path.name for path in chosen.files] == ["0.dcm", "1.dcm", "2.dcm"]


def test_a_series_spread_over_folders_is_one(tmp_path):
    write_scan(tmp_path / "all", slices=6)
    for number in range(6):
        (tmp_path / f"DIR{number % 2}").mkdir(exist_ok=True)
        (tmp_path / "all" / f"{number}.dcm").rename(tmp_path / f"DIR{number % 2}" / f"{number}.dcm")
    chosen = choose_series(tmp_path)
    assert len(chosen.files) == 6
    assert chosen.folder == tmp_path
    expected = np.stack([np.random.default_rng(n).integers(-1000, 1500, (4, 5)).astype(np.int16) for n in range(6)])
    np.testing.assert_array_equal(read_dicom_volume(chosen).array.transpose(2, 1, 0), expected)


@pytest.mark.parametrize("tag", ["PatientID", "StudyInstanceUID"])
def test_several_studies_are_not_one_case(tag, tmp_path):
    for number in (1, 2):
        folder = write_scan(tmp_path / str(number), uid=f"1.2.{number}", slices=2 + number)
        for path in folder.iterdir():
            header = pydicom.dcmread(path)
            setattr(header, tag, f"1.{number}")
            header.save_as(path)
    with pytest.raises(LiversegError, match=r"2 studies in it, .*; give the folder of one, or name the series$"):
        choose_series(tmp_path)
    assert len(choose_series(tmp_path, "1.2.2").files) == 4
    assert len(choose_series(tmp_path / "1").files) == 3
