"""NIfTI files with false headers: refused quickly, before memory is allocated."""

import gzip
import tracemalloc

import nibabel as nib
import numpy as np
import pytest

from liverseg.errors import GeometryError, UnreadableError
from liverseg.imageio import nifti
from liverseg.imageio.nifti import read_voxels
from liverseg.imageio.volume import read_volume


def header(shape, dtype=np.int16, offset=352, kind=nib.Nifti1Header):
    head = kind()
    head.set_data_dtype(dtype)
    head["dim"][:4] = [3, *shape]
    head.set_sform(np.eye(4), code=1)
    head["magic"] = head.single_magic
    head["vox_offset"] = offset
    return head.binaryblock + bytes(4)


def written(path, content):
    path.write_bytes(gzip.compress(content, 9) if path.name.endswith(".gz") else content)
    return path


def refused(path, match):
    """Check that the file is refused in one line, and that Python and numpy allocate little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableError, match=match) as caught:
            read_volume(path)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 8 << 20
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Header, nib.Nifti2Header])
def test_absurd_sizes_are_refused_before_there_is_memory(name, kind, tmp_path):
    offset = 352 if kind is nib.Nifti1Header else 544
    path = written(tmp_path / name, header((30000, 30000, 30000), np.float64, offset, kind) + bytes(1000))
    refused(path, "its header states 216000000000000 bytes of voxels, 8589934592 are allowed; crop it")


def test_sizes_beyond_what_integers_hold(tmp_path):
    path = written(tmp_path / "a.nii", header((2**62, 2**62, 4), offset=544, kind=nib.Nifti2Header) + bytes(1000))
    refused(path, "bytes of voxels, 8589934592 are allowed")


@pytest.mark.parametrize(("name", "held"), [("a.nii", "1000"), ("a.nii.gz", r"at most \d{5,6}")])
def test_what_a_file_cannot_hold_is_not_asked_for(name, held, tmp_path):
    path = written(tmp_path / name, header((1000, 1000, 1000)) + bytes(1000))
    refused(path, rf"it holds {held} of 2000000000 bytes of voxels\); is the file truncated")


def test_zeros_packed_as_no_ct_is(tmp_path):
    """Zeros of three gigabytes in a file of megabytes are refused by size alone, so a sparse file suffices."""
    path = tmp_path / "a.nii.gz"
    with path.open("wb") as file:
        file.write(gzip.compress(header((1024, 1024, 1536)) + bytes(1 << 20), 9))
        file.truncate(4 << 20)
    refused(path, "3221225472 bytes of voxels, more than 100 times its compressed size, as in no CT; if it is a mask")


def test_a_stream_that_goes_on_after_the_voxels(tmp_path, monkeypatch):
    content = header((4, 4, 4)) + np.arange(64, dtype=np.int16).tobytes()
    fine = written(tmp_path / "fine.nii.gz", content + bytes(1 << 20))
    assert read_volume(fine).array[3, 3, 3] == 63
    bomb = tmp_path / "bomb.nii.gz"
    block = gzip.compress(bytes(16 << 20), 9)
    bomb.write_bytes(gzip.compress(content) + block * 2000)  # 31 GiB
    refused(bomb, "more than 64 MiB follow the 128 bytes of voxels that its header states")
    monkeypatch.setattr(nifti, "MAX_TRAILING_BYTES", 1000)
    with pytest.raises(UnreadableError, match="more than 0 MiB follow the"):
        read_volume(written(tmp_path / "long.nii", content + bytes(1 << 20)))


def test_limits_can_be_set(tmp_path, monkeypatch):
    path = written(tmp_path / "a.nii.gz", header((100, 100, 100)) + bytes(2_000_000))
    assert read_volume(path).array.shape == (100, 100, 100)
    monkeypatch.setattr(nifti, "SMALL_BYTES", 1_000_000)
    with pytest.raises(UnreadableError, match="more than 100 times its compressed size"):
        read_volume(path)
    monkeypatch.setattr(nifti, "MAX_RATIO", 2000)
    assert read_volume(path).array.shape == (100, 100, 100)
    monkeypatch.setattr(nifti, "MAX_BYTES", 1_999_999)
    with pytest.raises(UnreadableError, match="2000000 bytes of voxels, 1999999 are allowed"):
        read_volume(path)


@pytest.mark.parametrize("offset", [-1000.0, 1e9, 1e30, float("inf"), float("nan")])
def test_voxels_that_begin_elsewhere(offset, tmp_path):
    content = bytearray(header((4, 4, 4)) + bytes(4000))
    content[108:112] = np.float32(offset).tobytes()
    with pytest.raises(UnreadableError, match="cannot be read"):
        read_volume(written(tmp_path / "a.nii", bytes(content)))


def test_a_gap_before_the_voxels_is_not_what_was_in_memory(tmp_path):
    with pytest.raises(ValueError, match="begin at byte -8, within the 352 bytes of its header"):
        content = bytearray(header((4, 4, 4)) + bytes(4000))
        content[108:112] = np.float32(-8).tobytes()
        read_voxels(written(tmp_path / "a.nii", bytes(content)))


@pytest.mark.parametrize("edges", [(1e-6, 1, 1), (1, 1, 1e5), (0.9e-3, 1e3, 1)])
def test_voxels_no_scanner_makes(edges, tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.diag([*edges, 1.0])), tmp_path / "a.nii")
    with pytest.raises(GeometryError, match=r"voxels of .* mm; 0\.001 to 1000 mm are allowed"):
        read_volume(tmp_path / "a.nii")
