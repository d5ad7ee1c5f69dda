"""Enhanced CTs: one file of many frames, whose tags are in functional groups."""

import numpy as np
import pydicom
import pytest
from dicom_files import write_ct_series, write_enhanced_ct
from pydicom.uid import RLELossless

from liverseg.errors import LiversegError
from liverseg.imageio.dicom_select import choose_series
from liverseg.imageio.dicom_series import read_series, read_series_volume

HU = np.random.default_rng(1).integers(-1000, 1500, (6, 4, 5)).astype(np.int16)
ZS = [5.0, 0.0, 12.5, 2.5, 10.0, 7.5]
ORDER = np.argsort(ZS)


@pytest.mark.parametrize("shared", [("orientation", "measures"), ("measures",), ()])
@pytest.mark.parametrize("syntax", [None, RLELossless])
@pytest.mark.parametrize("slopes", [None, [1, 2, 1, 3, 1, -1]])
def test_frames_are_placed_and_rescaled_each_by_its_own_tags(shared, syntax, slopes, tmp_path):
    write_enhanced_ct(tmp_path / "0.dcm", HU, ZS, shared=shared, slopes=slopes, syntax=syntax)
    array, affine = read_series(tmp_path)
    expected = HU.astype(np.int64) * np.reshape(slopes or [1] * 6, (6, 1, 1)) - 24
    np.testing.assert_array_equal(array, expected[ORDER].transpose(2, 1, 0))
    np.testing.assert_allclose(affine, [[-0.7, 0, 0, 10], [0, -0.8, 0, 20], [0, 0, 2.5, 0], [0, 0, 0, 1]])


def test_it_has_the_volume_of_its_single_slices(tmp_path):
    (tmp_path / "enhanced").mkdir()
    write_enhanced_ct(tmp_path / "enhanced" / "0.dcm", HU, ZS)
    write_ct_series(tmp_path / "single", HU[ORDER], RescaleIntercept=-24)
    for first, second in zip(read_series(tmp_path / "enhanced"), read_series(tmp_path / "single"), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    "tags",
    [
        {"FrameAcquisitionNumber": [1, 1, 1, 2, 2, 2]},
        {"TemporalPositionIndex": [1, 1, 1, 2, 2, 2]},
        {"StackID": ["1", "1", "1", "2", "2", "2"]},
        {"FrameAcquisitionDateTime": [f"202001011{0 if n < 3 else 2}000{n}" for n in range(6)]},
    ],
)
def test_phases_of_one_file(tags, tmp_path):
    write_enhanced_ct(tmp_path / "0.dcm", HU, [0, 2.5, 5, 0, 2.5, 5], **tags)
    found = read_series_volume(tmp_path)
    assert found.array.shape == (5, 4, 3)
    assert {item.frame // 3 for item in found.slices} in ({0}, {1})
    assert found.warnings == ("left out of the series: 3 slices of other stacks; 3 slices are read",)


def test_a_study_with_an_enhanced_ct(tmp_path):
    write_enhanced_ct(tmp_path / "0.dcm", HU, ZS)
    chosen = choose_series(tmp_path)
    assert (chosen.depth, [path.name for path in chosen.files]) == (6, ["0.dcm"])


def test_frames_without_groups_for_each(tmp_path):
    write_enhanced_ct(tmp_path / "0.dcm", HU, ZS)
    header = pydicom.dcmread(tmp_path / "0.dcm")
    header.PerFrameFunctionalGroupsSequence = header.PerFrameFunctionalGroupsSequence[:4]
    header.save_as(tmp_path / "0.dcm")
    with pytest.raises(LiversegError, match=r"0\.dcm: the tags of its frames cannot be read; export it again"):
        read_series(tmp_path)


def test_truncated_frames(tmp_path):
    write_enhanced_ct(tmp_path / "0.dcm", HU, ZS)
    content = (tmp_path / "0.dcm").read_bytes()
    (tmp_path / "0.dcm").write_bytes(content[:-50])
    with pytest.raises(LiversegError, match=r"0\.dcm: a DICOM slice that cannot be read; is it truncated"):
        read_series(tmp_path)
