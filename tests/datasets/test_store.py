"""The store returns the files' contents, and names files that do not fit."""

import numpy as np
import pytest
from numcodecs import Blosc

from liverseg.datalists import DataItem
from liverseg.datasets import VolumeStore
from liverseg.errors import LiversegError, OutputError

ITEM = DataItem("ct.nii.gz", "seg.nii.gz", "p")


def everything(slices):
    return slices.read(range(slices.shape[0]))


@pytest.fixture
def pair(tmp_path, write_nifti):
    """Return a function that writes an image and a label and opens the store on them."""
    rng = np.random.default_rng(0)
    image = rng.integers(-1000, 1000, (6, 7, 8)).astype(np.int16)
    label = rng.integers(0, 3, (6, 7, 8)).astype(np.uint8)

    def open_store(image=image, label=label, affine=None, label_affine=None):
        write_nifti(tmp_path / ITEM.image, image, affine)
        write_nifti(tmp_path / ITEM.label, label, affine if label_affine is None else label_affine)
        return VolumeStore([ITEM], tmp_path, tmp_path / "cache", labels=3, progress=False)

    open_store.image, open_store.label = image, label
    return open_store


@pytest.mark.parametrize("direction", [1, -1])
def test_axial_order_and_slice_numbers_follow_the_affine(pair, direction):
    stored = pair(affine=np.diag([1.0, 1.0, 2.0 * direction, 1.0]))[ITEM]
    for number in range(8):
        index = stored.axial_index(number)
        np.testing.assert_array_equal(stored.image.read([index])[0], pair.image[::-1, ::-1, number].T)
        np.testing.assert_array_equal(stored.label.read([index])[0], pair.label[::-1, ::-1, number].T)
        assert stored.present[index].tolist() == [value in pair.label[..., number] for value in range(3)]
    assert stored.flipped == (direction < 0)
    assert stored.spacing_mm[0] == 2


def test_a_cached_volume_is_used_until_its_file_changes(pair, tmp_path):
    first = everything(pair()[ITEM].image)
    files = sorted((tmp_path / "cache").iterdir())
    times = [file.stat().st_mtime_ns for file in files]
    again = everything(VolumeStore([ITEM], tmp_path, tmp_path / "cache", labels=3, progress=False)[ITEM].image)
    assert [file.stat().st_mtime_ns for file in sorted((tmp_path / "cache").iterdir())] == times
    np.testing.assert_array_equal(first, again)
    changed = everything(pair(image=pair.image[::-1])[ITEM].image)
    assert not np.array_equal(changed, first)


def test_cached_label_map_is_checked_against_a_smaller_table(pair, tmp_path):
    pair(label=np.full((6, 7, 8), 2, np.uint8))
    VolumeStore([ITEM], tmp_path, tmp_path / "cache", labels=5, progress=False)
    with pytest.raises(LiversegError, match=r"seg\.nii\.gz: label value 2; .* 0 to 1"):
        VolumeStore([ITEM], tmp_path, tmp_path / "cache", labels=2, progress=False)


def test_a_cache_that_cannot_be_written_leaves_nothing_half(pair, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Blosc, "encode", full)
    with pytest.raises(OutputError, match=r"cache cannot be written .No space left"):
        pair()
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": np.zeros((6, 7, 9), np.uint8)}, r"seg\.nii\.gz: shape 6×7×9, but its image .* has 6×7×8"),
        ({"label_affine": np.diag([2, 2, 2.5, 1.0])}, r"seg\.nii\.gz: its affine places voxels up to 4 mm"),
        ({"label": np.full((6, 7, 8), 3, np.uint8)}, r"seg\.nii\.gz: label value 3; .* 0 to 2"),
        ({"label": np.full((6, 7, 8), -1, np.int16)}, r"label value -1"),
        ({"label": np.full((6, 7, 8), 0.5, np.float32)}, r"label value 0\.5"),
    ],
)
def test_labels_that_do_not_fit_are_refused(pair, change, message):
    with pytest.raises(LiversegError, match=message):
        pair(**change)


@pytest.mark.parametrize("top", [1, 800])
def test_image_that_is_no_ct_is_refused(top, pair):
    normalised = ((pair.image + 1000) * (top / 2000)).astype(np.float32)
    with pytest.raises(LiversegError, match=r"ct\.nii\.gz: values from .* in fractions do not look like a CT in HU"):
        pair(image=normalised)


def test_doubtful_image_is_logged(pair, caplog):
    pair(image=np.random.default_rng(0).integers(0, 255, pair.image.shape).astype(np.uint8))
    assert "ct.nii.gz: does not look like a CT in HU: values from 0 to 25" in caplog.text


def test_a_ct_in_fractions_is_rounded(pair):
    stored = pair(image=pair.image.astype(np.float32) + 0.25)[ITEM]
    np.testing.assert_array_equal(stored.image.read([0])[0], pair.image[::-1, ::-1, 0].T)


def test_rounding_in_an_affine_is_forgiven(pair):
    pair(affine=np.diag([0.703125, 0.703125, 2.5, 1]), label_affine=np.diag([0.70312, 0.70312, 2.5, 1]))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(LiversegError, match=r"ct\.nii\.gz: no such file"):
        VolumeStore([ITEM], tmp_path, tmp_path / "cache", labels=3, progress=False)


def test_a_folder_that_cannot_hold_the_cache_is_named(pair, tmp_path):
    (tmp_path / "cache").write_text("a file in the way")
    with pytest.raises(LiversegError, match="cache"):
        pair()


def test_broken_volume_is_named(pair, tmp_path):
    pair()
    content = (tmp_path / ITEM.image).read_bytes()
    (tmp_path / ITEM.image).write_bytes(content[: len(content) // 2])
    with pytest.raises(LiversegError, match=r"ct\.nii\.gz"):
        VolumeStore([ITEM], tmp_path, tmp_path / "cache2", labels=3, progress=False)
    assert not list((tmp_path / "cache2").glob("*image*"))


@pytest.mark.parametrize("name", ["ct.nii.gz", "ct.nii"])
@pytest.mark.parametrize(
    "affine", [np.diag([1.0, 1, 2, 1]), np.array([[0, 0, -3.0, 0], [2, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])]
)
def test_reading_without_cache_agrees_with_cache(name, affine, tmp_path, write_nifti):
    rng = np.random.default_rng(0)
    item = DataItem(name, name.replace("ct", "seg"), "p")
    write_nifti(tmp_path / item.image, rng.integers(-1000, 1000, (6, 7, 8)).astype(np.float32) + 0.25, affine)
    write_nifti(tmp_path / item.label, rng.integers(0, 3, (6, 7, 8)).astype(np.int16), affine)
    cached, direct = (
        VolumeStore([item], tmp_path, cache, labels=3, progress=False)[item] for cache in (tmp_path / "cache", None)
    )
    for kind in ("image", "label"):
        from_cache, from_file = getattr(cached, kind), getattr(direct, kind)
        assert from_cache.shape == from_file.shape
        numbers = [2, 0, from_cache.shape[0] - 1, 2]
        np.testing.assert_array_equal(from_cache.read(numbers), from_file.read(numbers), strict=True)
    np.testing.assert_array_equal(cached.present, direct.present)
    assert cached.flipped == direct.flipped
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", name, item.label]
