"""Where a CT series comes from: zips that are unpacked or refused, the series that is chosen, its volume."""

import os
import stat
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import write_slice

from liverseg import dicom_sources
from liverseg.dicom_sources import choose_series, read_dicom_volume, unpacked
from liverseg.errors import LiversegError
from liverseg.volumes import read_volume, write_like

REAL = Path(os.environ.get("LIVERSEG_REAL_DATA") or Path(__file__).parents[2] / "shared" / "realdata")
CORONAL = "1\\0\\0\\0\\0\\-1"


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where zips are unpacked; nothing may be left in it."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def write_scan(folder, slices=3, uid="1.2.3", description="portal", image_type=None, without=None, **settings):
    for number in range(slices):
        path, position = folder / f"{number}.dcm", (-10, -20, 2.5 * number)
        plane = np.random.default_rng(number).integers(-1000, 1500, (4, 5)).astype(np.int16)
        write_slice(path, plane, position, uid=uid, description=description, **settings)
        if image_type or without:
            header = pydicom.dcmread(path)
            header.ImageType = image_type
            header.pop(without, None)
            header.save_as(path)
    return folder


def test_a_folder_stays_where_it_is(tmp_path, temporary):
    with unpacked(tmp_path) as folder:
        assert folder == tmp_path


def test_a_zip_is_a_folder_for_a_while(tmp_path, temporary):
    path = zipped(tmp_path / "Study.ZIP", [("a/", ""), ("a/1", b"one"), ("b\\2", b"two"), ("b\\", b"")])
    with unpacked(path) as folder:
        assert folder.parent == temporary
        files = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        assert files == {"a/1": b"one", "b/2": b"two"}
    assert path.exists()


def test_an_error_inside_is_not_the_zips(tmp_path, temporary):
    with pytest.raises(RuntimeError, match="mine"), unpacked(zipped(tmp_path / "a.zip", [("1", b"one")])):
        raise RuntimeError("mine")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/etc/passwd", "absolute path"),
        ("\\\\server\\share", "absolute path"),
        ("C:\\a", "absolute path"),
        ("c:a", "absolute path"),
        ("a/../../b", "path that leads upwards"),
        ("..\\b", "path that leads upwards"),
    ],
)
def test_members_that_lead_elsewhere(name, message, tmp_path, temporary):
    path = zipped(tmp_path / "a.zip", [("fine", b"1"), (name, b"2")])
    with pytest.raises(LiversegError, match=rf"a\.zip: member .* {message}; pack plain files") as told, unpacked(path):
        pass
    assert "\n" not in str(told.value)


def test_links_are_refused(tmp_path, temporary):
    link = zipfile.ZipInfo("link")
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = zipped(tmp_path / "a.zip", [(link, "/etc/passwd"), ("link/b", b"2")])
    with pytest.raises(LiversegError, match="member link is a link or a device"), unpacked(path):
        pass


def test_encrypted_members_are_refused(tmp_path, temporary):
    path = zipped(tmp_path / "a.zip", [("secret", b"1")])
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1  # the flag in the zip's directory
    path.write_bytes(content)
    with pytest.raises(LiversegError, match="member secret is encrypted"), unpacked(path):
        pass


def test_limits(tmp_path, temporary, monkeypatch):
    path = zipped(tmp_path / "a.zip", [(str(number), bytes(5000)) for number in range(4)])
    monkeypatch.setattr(dicom_sources, "MAX_FILES", 3)
    with pytest.raises(LiversegError, match="4 members, 3 are allowed"), unpacked(path):
        pass
    monkeypatch.setattr(dicom_sources, "MAX_FILES", 4)
    monkeypatch.setattr(dicom_sources, "MAX_BYTES", 19_999)
    with pytest.raises(LiversegError, match="holds more than"), unpacked(path):
        pass
    monkeypatch.setattr(dicom_sources, "MAX_BYTES", 20_000)
    with unpacked(path) as folder:
        assert len(list(folder.iterdir())) == 4
    monkeypatch.setattr(dicom_sources, "SMALL_BYTES", 1000)
    monkeypatch.setattr(dicom_sources, "MAX_RATIO", 20)
    with pytest.raises(LiversegError, match="20 times its packed size"), unpacked(path):
        pass


def test_sizes_a_zip_states_are_not_trusted(tmp_path, temporary):
    path = zipped(tmp_path / "a.zip", [("large", bytes(100_000))])
    content = path.read_bytes()
    stated = (100_000).to_bytes(4, "little")
    assert content.count(stated) == 2  # before the member and in the zip's directory
    path.write_bytes(content.replace(stated, (10).to_bytes(4, "little")))
    with pytest.raises(LiversegError, match="damaged or no zip"), unpacked(path):
        pass


@pytest.mark.parametrize("damage", ["text", "cut", "flipped", "empty"])
def test_damaged_zips(damage, tmp_path, temporary):
    noise = np.random.default_rng(0).integers(0, 255, 3000).astype(np.uint8).tobytes()
    path = zipped(tmp_path / "a.zip", [("1", noise), ("2", noise)])
    content = bytearray(path.read_bytes())
    content[4000] ^= 255  # in the second member, when the first has been written
    path.write_bytes({"text": b"no zip", "cut": content[:3000], "flipped": content, "empty": b""}[damage])
    with pytest.raises(LiversegError, match=r"a\.zip: damaged or no zip .*; pack or copy it again"), unpacked(path):
        pass


def test_one_name_twice(tmp_path, temporary):
    with pytest.warns(UserWarning, match="Duplicate"):
        path = zipped(tmp_path / "a.zip", [("1", b"one"), ("1", b"other")])
    with pytest.raises(LiversegError, match="two members are called 1"), unpacked(path):
        pass
    path = zipped(tmp_path / "b.zip", [("1", b"one"), ("1/2", b"other")])
    with pytest.raises(LiversegError, match="cannot be unpacked into"), unpacked(path):
        pass


def test_neither_folder_nor_zip(tmp_path, temporary):
    (tmp_path / "a.nii").touch()
    for name, message in (("none.zip", "no such folder or file"), ("a.nii", "neither a folder nor a .zip")):
        with pytest.raises(LiversegError, match=message), unpacked(tmp_path / name):
            pass


@pytest.fixture
def study(tmp_path):
    """Two axial phases of different length, a localiser, a coronal reformation, a mask and what is hidden."""
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


def test_a_description_is_told_by_its_words(study):
    assert choose_series(study, "portal venous").uid == "1.2.31"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("venous", r"no CT series venous; there are Arterial \(3 slices, 1\.2\.32, in arterial\), Coronal \(9 slices"),
        ("Coronal", r"Coronal \(9 slices, 1\.2\.33, in coronal\) leans 90 degrees from axial; name an axial series of"),
        ("35", r"Arterial \(1 slice, 1\.2\.35, in scout\) is a localiser"),
        ("Hidden", "no CT series Hidden"),
        ("Mask", "no CT series Mask"),
        ("", "an empty name of a series"),
    ],
)
def test_a_series_that_is_not_there(name, message, study):
    with pytest.raises(LiversegError, match=message) as told:
        choose_series(study, name)
    assert "\n" not in str(told.value)


def test_a_tie_asks(study):
    write_scan(study / "late", 4, "1.2.37", "portal venous")
    with pytest.raises(LiversegError, match=r"2 series of most slices, portal venous \(4 .*1\.2\.37.*; name one"):
        choose_series(study)
    with pytest.raises(LiversegError, match=r"2 series fit portal venous.*; give its whole UID"):
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
        choose_series(tmp_path)


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
    write_like(tmp_path / "ct.nii.gz", volume.array, volume)
    written = read_volume(tmp_path / "ct.nii.gz")
    np.testing.assert_array_equal(written.array, volume.array)
    np.testing.assert_allclose(written.affine, volume.affine, atol=1e-5)


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
        other.ReferencedSOPClassUID = slice_header.SOPClassUID  # its bytes name the class of CT slices
        other.save_as(tmp_path / "series" / name, enforce_file_format=True)
    chosen = choose_series(tmp_path)
    assert [path.name for path in chosen.files] == ["0.dcm", "1.dcm", "2.dcm"]
