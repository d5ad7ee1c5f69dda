"""Slice files: slices are read as written, and checksums find damage."""

import numpy as np
import pytest
from numcodecs import Blosc

from liverseg.datasets.slice_readers import SliceFile, write_slices
from liverseg.errors import LiversegError, OutputError


@pytest.fixture
def stack():
    """Noise in some slices, which hardly compresses, and air in others, which compresses well."""
    stack = np.random.default_rng(0).integers(-1000, 1000, (7, 40, 30)).astype(np.int16)
    stack[2:4] = -1024
    return stack


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32])
def test_slices_in_any_order(dtype, stack, tmp_path):
    stack = stack.astype(dtype)
    write_slices(tmp_path / "a.slices", stack[::-1].transpose(0, 2, 1), {"present": [1, 2]})
    slices = SliceFile(tmp_path / "a.slices")
    assert (slices.shape, slices.dtype, slices.facts) == ((7, 30, 40), dtype, {"present": [1, 2]})
    assert slices.nbytes == stack.nbytes
    numbers = [6, 0, 3, 3, 4]
    np.testing.assert_array_equal(slices.read(numbers), stack[::-1][numbers].transpose(0, 2, 1), strict=True)
    slices.verify()


def test_air_takes_no_space(stack, tmp_path):
    write_slices(tmp_path / "a.slices", np.full((50, 64, 64), -1024, np.int16))
    assert (tmp_path / "a.slices").stat().st_size < 50 * 64 * 64 * 2 / 20


def test_one_changed_byte_is_found_wherever_it_is(stack, tmp_path):
    path = tmp_path / "a.slices"
    write_slices(path, stack)
    content = path.read_bytes()
    for place in range(5, len(content), len(content) // 60):
        path.write_bytes(content[:place] + bytes([content[place] ^ 64]) + content[place + 1 :])
        try:
            slices = SliceFile(path)
            slices.verify()
        except LiversegError as error:
            assert str(error).startswith(f"{path}: ")
            continue
        # the others change no voxel: bytes of a chunk that are not used
        np.testing.assert_array_equal(slices.read(range(7)), stack)


def test_damaged_slice_is_named_and_others_are_read(stack, tmp_path):
    path = tmp_path / "a.slices"
    write_slices(path, stack)
    content = bytearray(path.read_bytes())
    content[100] ^= 255
    path.write_bytes(content)
    slices = SliceFile(path)
    np.testing.assert_array_equal(slices.read([1, 6]), stack[[1, 6]])
    with pytest.raises(LiversegError, match=r"a\.slices: the checksum of slice 0 differs; delete it"):
        slices.read([1, 0])


@pytest.mark.parametrize("kept", [0, 7, 0.5, 0.99])
def test_a_truncated_file_is_refused(kept, stack, tmp_path):
    path = tmp_path / "a.slices"
    write_slices(path, stack)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept if kept >= 1 or kept == 0 else kept * len(content))])
    with pytest.raises(LiversegError, match=r"a\.slices: not a slice file, or damaged; delete it and run"):
        SliceFile(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(LiversegError, match=r"none\.slices: not a slice file"):
        SliceFile(tmp_path / "none.slices")


def test_a_write_that_fails_leaves_nothing(stack, tmp_path, monkeypatch):
    encode = Blosc.encode
    calls = iter(range(100))

    def full(*args, **settings):
        if next(calls) == 3:
            raise OSError(28, "No space left on device")
        return encode(*args, **settings)

    monkeypatch.setattr(Blosc, "encode", full)
    with pytest.raises(OutputError, match=r"the cache cannot be written .No space left"):
        write_slices(tmp_path / "a.slices", stack)
    assert not list(tmp_path.iterdir())
