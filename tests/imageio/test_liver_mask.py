"""Liver masks on other grids: the nearest voxels of the CT are the liver."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from liverseg.errors import LiversegError, UsageError
from liverseg.imageio.liver_mask import LiverSource
from liverseg.imageio.volume import read_volume

TURNED = nib.eulerangles.euler2mat(0.1, 0.05, -0.08)
AFFINE = nib.affines.from_matvec(TURNED @ [[0.0, -1.4, 0.0], [1.2, 0.0, 0.0], [0.0, 0.0, 3.0]], [40, -90, 200])


def save(path, array, affine=AFFINE):
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


@pytest.fixture
def volume(tmp_path):
    return read_volume(save(tmp_path / "ct.nii.gz", np.zeros((30, 26, 12), np.int16)))


@pytest.fixture
def mask():
    array = np.zeros((30, 26, 12), np.uint8)
    array[8:20, 5:18, 3:9] = 5
    return array


def test_a_mask_on_the_cts_grid_is_taken_as_it_is(volume, mask, tmp_path):
    path = save(tmp_path / "liver.nii.gz", mask)
    found = LiverSource.parse(path).check().read(path, volume)
    assert found.dtype == bool
    np.testing.assert_array_equal(volume.from_axial(found), mask == 5)


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SAL", "PIR"])
def test_another_order_of_axes_is_the_same_mask(codes, volume, mask, tmp_path):
    image = nib.Nifti1Image(mask, AFFINE)
    turn = nib.orientations.ornt_transform(nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(codes))
    nib.save(image.as_reoriented(turn), tmp_path / "liver.nii")
    found = LiverSource.parse(tmp_path / "liver.nii").check().read(tmp_path / "liver.nii", volume)
    np.testing.assert_array_equal(volume.from_axial(found), mask == 5)


def test_another_grid_is_taken_by_the_nearest_voxel(volume, tmp_path):
    coarse = np.diag([3.0, 2.0, 5.0, 1.0])
    coarse[:3, 3] = (-10, -95, 205)
    random = np.random.default_rng(0)
    blocks = (random.random((22, 30, 9)) < 0.5).astype(np.int16)
    path = save(tmp_path / "liver.nii.gz", blocks, coarse)
    found = volume.from_axial(LiverSource.parse(path).check().read(path, volume))
    index = np.stack(np.meshgrid(*map(np.arange, found.shape), indexing="ij"), axis=-1)
    there = (index @ AFFINE[:3, :3].T + AFFINE[:3, 3] - coarse[:3, 3]) / np.diag(coarse)[:3]
    nearest = np.rint(there).astype(int)
    inside = ((nearest >= 0) & (nearest < blocks.shape)).all(axis=-1)
    expected = np.zeros(found.shape, bool)
    expected[inside] = blocks[tuple(nearest[inside].T)] > 0
    halfway = np.abs(np.abs(there - np.floor(there)) - 0.5).min(axis=-1) < 1e-3  # two voxels are equally near
    np.testing.assert_array_equal(found[~halfway], expected[~halfway])
    assert 0.05 < expected.mean() < 0.9


def test_one_label_of_several_is_named(volume, mask, tmp_path):
    mask[0:2] = 1
    path = save(tmp_path / "organs.nii.gz", mask)
    with pytest.raises(LiversegError, match=r"organs.nii.gz: labels 1, 5; say which one is the liver, as organs"):
        LiverSource.parse(path).check().read(path, volume)
    source = LiverSource.parse(f"{path}:5").check()
    np.testing.assert_array_equal(volume.from_axial(source.read(source.find_mask("ct"), volume)), mask == 5)
    with pytest.raises(LiversegError, match="no voxel of it is liver"):
        LiverSource.parse(f"{path}:7").check().read(path, volume)


def test_masks_of_a_folder_are_named_as_their_cases(mask, tmp_path):
    (tmp_path / "masks").mkdir()
    save(tmp_path / "masks" / "one.nii.gz", mask)
    source = LiverSource.parse(tmp_path / "masks").check(cases=7)
    assert source.find_mask("one") == tmp_path / "masks" / "one.nii.gz"
    with pytest.raises(
        LiversegError, match=r"no two.nii.gz, two.nii or two/liver.nii.gz in it; masks are named as their cases"
    ):
        source.find_mask("two")


def test_a_mask_beside_the_ct_is_refused(volume, mask, tmp_path):
    far = AFFINE.copy()
    far[2, 3] = 4000
    path = save(tmp_path / "liver.nii.gz", mask, far)
    with pytest.raises(LiversegError, match=r"liver.nii.gz: is outside .*ct.nii.gz; is it the mask of this CT"):
        LiverSource.parse(path).check().read(path, volume)


@pytest.mark.parametrize(("word", "find"), [("auto", True), ("AUTO", True), ("none", False), (None, False)])
def test_words(word, find):
    source = LiverSource.parse(word).check(cases=9)
    assert (source.find, source.path, source.find_mask("any")) == (find, None, None)


def test_what_cannot_be_is_refused_at_once(mask, tmp_path):
    with pytest.raises(LiversegError, match="nowhere: no such mask or folder; take auto, none or a mask's path"):
        LiverSource.parse("nowhere").check()
    with pytest.raises(UsageError, match="liver is empty"):
        LiverSource.parse(" ").check()
    path = save(tmp_path / "liver.nii.gz", mask)
    with pytest.raises(UsageError, match="one mask for 2 cases; give a folder"):
        LiverSource.parse(path).check(cases=2)


def test_a_mask_from_itk_of_a_ct_without_directions_is_on_its_grid(mask, tmp_path):
    image = nib.Nifti1Image(np.zeros(mask.shape, np.int16), None)
    image.header["pixdim"][1:4] = 0.8, 0.7, 2.5
    image.header["qform_code"] = image.header["sform_code"] = 0
    nib.save(image, tmp_path / "ct.nii")
    drawn = sitk.GetImageFromArray(mask.T)
    drawn.CopyInformation(sitk.ReadImage(tmp_path / "ct.nii"))
    sitk.WriteImage(drawn, tmp_path / "liver.nii.gz")
    volume = read_volume(tmp_path / "ct.nii")
    assert not np.allclose(nib.load(tmp_path / "liver.nii.gz").affine, volume.affine)
    found = LiverSource.parse(tmp_path / "liver.nii.gz").check().read(tmp_path / "liver.nii.gz", volume)
    np.testing.assert_array_equal(volume.from_axial(found), mask == 5)
