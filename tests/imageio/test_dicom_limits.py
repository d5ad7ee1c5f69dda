"""DICOM files with false or excessive sizes are refused before memory is allocated."""

import struct
import tracemalloc
import zlib

import numpy as np
import pydicom
import pytest
from dicom_files import write_slice
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from liverseg.errors import GeometryError, UnreadableError
from liverseg.imageio import dicom_series as dicom
from liverseg.imageio.dicom_select import choose_series, read_dicom_volume
from liverseg.imageio.dicom_series import find_series, read_series


def study(folder, slices=3, side=8, **tags):
    for number in range(slices):
        plane = np.full((side, side), number, np.int16)
        write_slice(folder / f"{number}.dcm", plane, (0, 0, 2.5 * number), **tags)
    return folder


def changed(folder, **tags):
    for path in folder.iterdir():
        header = pydicom.dcmread(path)
        for keyword, value in tags.items():
            setattr(header, keyword, value)
        header.save_as(path)
    return folder


def refused(folder, match, kind=UnreadableError):
    tracemalloc.start()
    try:
        with pytest.raises(kind, match=match) as caught:
            read_dicom_volume(choose_series(folder))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 32 << 20 and "\n" not in str(caught.value)


@pytest.mark.parametrize("side", [9, 512, 65535])
def test_pixels_that_are_not_there(side, tmp_path):
    """GDCM would return uninitialised memory instead."""
    folder = changed(study(tmp_path), Rows=side, Columns=65535 if side == 65535 else 8)
    for path in folder.iterdir():  # so that the header alone does not make the file larger than its claim
        assert path.stat().st_size < 1500
    if side == 9:
        folder = changed(study(tmp_path, side=100), Rows=150)
    refused(folder, r"0\.dcm: a DICOM slice that cannot be read; is it truncated\? copy it again")


def test_frames_that_are_not_there(tmp_path):
    refused(changed(study(tmp_path), NumberOfFrames=2**31 - 1), "cannot be read; is it truncated")


@pytest.mark.parametrize("side", [2048, 65535])
def test_packed_slices_that_claim_to_be_larger(side, tmp_path):
    for path in study(tmp_path).iterdir():
        header = pydicom.dcmread(path)
        header.compress(RLELossless)
        header.Rows = header.Columns = side
        header.save_as(path)
    if side == 2048:
        refused(tmp_path, r"0\.dcm: its pixels cannot be read; copy or export it again")
    else:
        refused(tmp_path, r"0\.dcm: 65535 columns and 65535 rows, 8192 are allowed; is it a CT slice\?")


def test_series_that_are_too_large(tmp_path, monkeypatch):
    study(tmp_path, slices=4)
    monkeypatch.setattr(dicom, "MAX_BYTES", 4 * 8 * 8 * 2)
    assert read_series(tmp_path)[0].shape == (8, 8, 4)
    monkeypatch.setattr(dicom, "MAX_BYTES", 4 * 8 * 8 * 2 - 1)
    refused(tmp_path, "512 bytes of voxels, 511 are allowed; give a part of the series")


def test_folders_of_too_many_files(tmp_path, monkeypatch):
    study(tmp_path / "a" / "one"), study(tmp_path / "a" / "two", 2)
    monkeypatch.setattr(dicom, "MAX_FILES", 8)  # five files in three folders, two of them copies
    assert len(choose_series(tmp_path / "a").files) == 3
    monkeypatch.setattr(dicom, "MAX_FILES", 7)
    refused(tmp_path / "a", "more than 7 files and folders in it; give the folder of one study")
    monkeypatch.setattr(dicom, "MAX_FILES", 2)
    assert len(find_series(tmp_path / "a" / "two")) == 1
    with pytest.raises(UnreadableError, match="3 files, 2 are allowed; give the folder of one study"):
        find_series(tmp_path / "a" / "one")


@pytest.mark.parametrize("information", [b"", bytes(10_000), bytes(2 << 20)])
def test_deflated_tags(information, tmp_path):
    """Deflated zeros of a hundred megabytes are refused; the transfer syntax is also found after a long tag."""
    path = study(tmp_path, 4) / "1.dcm"
    header = pydicom.dcmread(path)
    meta = header.file_meta
    meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    if information:
        meta.FileMetaInformationVersion = information
    header.save_as(path)
    content = path.read_bytes()
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    tags = zlib.decompress(content[content_start(content) :], -15)
    bomb = packer.compress(tags + struct.pack("<HH2sHI", 0x7FE1, 0x1000, b"OB", 0, 100 << 20))
    bomb += packer.compress(bytes(100 << 20)) + packer.flush()
    path.write_bytes(content[: content_start(content)] + bomb)
    assert path.stat().st_size < 4 << 20
    if len(information) < 1 << 20:
        refused(tmp_path, r"1\.dcm: a DICOM slice whose tags are deflated, or endless; export it uncompressed")
    else:  # it lacks even the class of a slice
        refused(tmp_path, r"a gap of 5 mm between 0\.dcm and 2\.dcm, .* 1 missing", GeometryError)


def content_start(content):
    """Return the end of the file meta tags, from the length before them."""
    return 144 + int.from_bytes(content[140:144], "little")


@pytest.mark.parametrize("spacing", [(1e-5, 1e-5), (2e3, 1)])
def test_pixels_no_scanner_makes(spacing, tmp_path):
    changed(study(tmp_path), PixelSpacing=list(spacing))
    refused(tmp_path, "voxels of .* mm; 0.001 to 1000 mm are allowed", GeometryError)
