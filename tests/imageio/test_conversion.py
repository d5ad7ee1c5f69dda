"""Volumes from images in memory: frames, number types, and unusable images."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage

from liverseg.errors import GeometryError, LiversegError, NotCTError
from liverseg.imageio.conversion import (
    describe_volume,
    geometry_warnings,
    is_image,
    to_metatensor,
    to_nibabel,
    to_sitk,
    to_volume,
)
from liverseg.imageio.volume import Volume, read_volume

HU = np.random.default_rng(0).integers(-900, 900, (6, 5, 4)).astype(np.int16)
STRAIGHT = np.diag([2.0, 2.0, 3.0, 1.0])
OBLIQUE = np.array([[0.6, -1.6, 0, -7.5], [0, 0, -3, 11], [-0.8, -1.2, 0, 812], [0, 0, 0, 1]])


def sitk_image(array=HU, affine=OBLIQUE):
    """Return an image in SimpleITK's conventions: arrays (z, y, x), positions in LPS."""
    image = SimpleITK.GetImageFromArray(array.transpose(2, 1, 0))
    lps = np.diag([-1, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing)
    image.SetDirection((lps[:3, :3] / spacing).ravel())
    image.SetOrigin(lps[:3, 3])
    return image


def metatensor(array=HU, affine=OBLIQUE, **meta):
    return MetaTensor(torch.from_numpy(array), affine=torch.from_numpy(affine), meta=meta)


@pytest.mark.parametrize(
    "image",
    [
        sitk_image(),
        nib.Nifti1Image(HU, OBLIQUE),
        nib.Nifti2Image(HU[..., None], OBLIQUE),
        nib.MGHImage(HU, OBLIQUE),
        metatensor(),
        metatensor(HU[None], space="RAS"),
        metatensor(affine=np.diag([-1, -1, 1, 1]) @ OBLIQUE, space="LPS"),
        Volume(HU, OBLIQUE),
        Volume(HU.astype(">i2"), OBLIQUE),
    ],
)
def test_each_kind_of_image_is_the_same_volume(image):
    assert is_image(image)
    volume = to_volume(image)
    np.testing.assert_array_equal(volume.array, HU)
    assert volume.array.dtype == np.int16
    np.testing.assert_allclose(volume.affine, OBLIQUE, atol=1e-6)
    np.testing.assert_allclose(volume.header.get_best_affine(), OBLIQUE, atol=1e-4)
    np.testing.assert_allclose(volume.header.get_zooms()[:3], volume.spacing, rtol=1e-6)
    assert volume.header.get_data_shape()[:3] == HU.shape
    point = SimpleITK.Image.TransformIndexToPhysicalPoint(sitk_image(), (1, 2, 3))
    np.testing.assert_allclose(volume.affine @ [1, 2, 3, 1], [-point[0], -point[1], point[2], 1], atol=1e-6)


@pytest.mark.parametrize(("slope", "shift"), [(1, -1024), (0.5, -1024.25), (-1, 3000)])
def test_a_loaded_nifti_has_the_voxels_of_its_file(slope, shift, tmp_path):
    image = nib.Nifti1Image(np.arange(120, dtype=np.uint16).reshape(6, 5, 4), STRAIGHT)
    image.header.set_slope_inter(slope, shift)
    nib.save(image, tmp_path / "ct.nii.gz")
    stored, volume = read_volume(tmp_path / "ct.nii.gz"), to_volume(nib.load(tmp_path / "ct.nii.gz"))
    np.testing.assert_array_equal(volume.array, stored.array)
    assert volume.array.dtype == stored.array.dtype
    np.testing.assert_array_equal(volume.affine, stored.affine)
    differing = [name for name in stored.header if not np.array_equal(stored.header[name], volume.header[name])]
    assert differing == ["vox_offset", "scl_slope", "scl_inter"]  # of the bytes of the file only


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_fractions_become_float32(dtype):
    assert to_volume(Volume(HU.astype(dtype), STRAIGHT)).array.dtype == np.float32


def test_a_mask_may_be_of_booleans_and_a_tensor_of_half_precision():
    assert to_volume(Volume(HU > 0, STRAIGHT), "liver").array.max() == 1
    tensor = MetaTensor(torch.ones(6, 5, 4, dtype=torch.bfloat16))
    assert to_volume(tensor).array.dtype == np.float32


def with_nan():
    array = HU.astype(np.float32)
    array[1, 2, 3] = np.nan
    return array


def parallel():
    affine = np.eye(4)
    affine[:3, 0] = affine[:3, 1]
    return affine


@pytest.mark.parametrize(
    ("image", "kind", "words"),
    [
        (HU, TypeError, "ct is of type numpy.ndarray, which has no affine; give liverseg.Volume"),
        (torch.zeros(4, 4, 4), TypeError, "ct is of type torch.Tensor, which has no affine"),
        ({"image": HU}, TypeError, "ct is of type dict; a path, a liverseg.Volume, a SimpleITK or nibabel image"),
        (None, TypeError, "ct is of type NoneType; a path"),
        (
            sitk_image()[:, :, 0],
            GeometryError,
            r"^ct \(SimpleITK Image in memory\): 2 dimensions, shape 6 × 5; 3 are needed: give a single slice an axis",
        ),
        (nib.Nifti1Image(HU[0], STRAIGHT), GeometryError, "2 dimensions, shape 5 × 4; 3 are needed"),
        (nib.Nifti1Image(np.stack([HU, HU], -1), STRAIGHT), GeometryError, "4 dimensions, shape 6 × 5 × 4 × 2"),
        (SimpleITK.Image([6, 5, 4, 2], SimpleITK.sitkInt16), GeometryError, "4 dimensions, shape 6 × 5 × 4 × 2"),
        (
            MetaTensor(torch.zeros(2, 6, 5, 4)),
            GeometryError,
            "4 dimensions, shape 2 × 6 × 5 × 4; 3 are needed: give one phase and channel$",
        ),
        (SimpleITK.Image([6, 5, 4], SimpleITK.sitkVectorInt16), TypeError, "3 numbers a voxel; one is needed"),
        (Volume(HU.astype(np.complex64), STRAIGHT), TypeError, "voxels of type complex64"),
        (nib.Nifti1Image(HU, None), GeometryError, "no 4 × 4 affine; give the voxel size"),
        (Volume(HU, np.eye(3)), GeometryError, "no 4 × 4 affine"),
        (Volume(HU, np.zeros((4, 4))), GeometryError, "its affine is singular or not finite"),
        (Volume(HU, parallel()), GeometryError, "its affine is singular or not finite"),
        (Volume(HU, np.diag([1e-4, 1, 1, 1])), GeometryError, "0.001 to 1000 mm are allowed"),
        (Volume(with_nan(), STRAIGHT), NotCTError, "1 voxels are NaN or infinite"),
        (MetaTensor(torch.from_numpy(with_nan())), NotCTError, "1 voxels are NaN or infinite"),
        (Volume(HU[:0], STRAIGHT), LiversegError, "an empty volume"),
    ],
)
def test_images_that_cannot_be_used_are_refused_in_one_line(image, kind, words):
    with pytest.raises(kind, match=words) as raised:
        to_volume(image)
    assert "\n" not in str(raised.value)
    assert is_image(image) or kind is TypeError


@pytest.mark.parametrize(
    ("image", "default"),
    [
        (MetaTensor(torch.from_numpy(HU)), "MONAI's default affine"),
        (MetaTensor(torch.from_numpy(HU[None]), meta={"space": "RAS"})[:, 1:], "MONAI's default affine"),
        (SimpleITK.GetImageFromArray(HU), "SimpleITK's default spacing, origin and direction"),
        (metatensor(), None),
        (metatensor(affine=np.diag([1.0, 1.0, 2.0, 1.0])), None),
        (sitk_image(), None),
        (nib.Nifti1Image(HU, np.eye(4)), None),
        (Volume(HU, np.eye(4)), None),
    ],
)
def test_a_default_geometry_is_warned_of(image, default):
    to_volume(image)
    assumed = "voxels of 1 mm are assumed, and left, right, head and feet are a guess"
    assert geometry_warnings(image, "liver") == ([f"liver has {default}: {assumed}"] if default else [])


def test_a_file_that_states_the_default_geometry_is_not_warned_of(tmp_path):
    for name, affine in (("ras", np.eye(4)), ("lps", np.diag([-1.0, -1.0, 1.0, 1.0]))):
        nib.save(nib.Nifti1Image(HU, affine), tmp_path / f"{name}.nii")
    image = SimpleITK.ReadImage(str(tmp_path / "lps.nii"))
    assert image.GetDirection() == SimpleITK.Image([1, 1, 1], SimpleITK.sitkInt16).GetDirection()
    tensor = LoadImage(image_only=True)(tmp_path / "ras.nii")
    np.testing.assert_array_equal(tensor.affine, np.eye(4))
    assert geometry_warnings(image) == geometry_warnings(tensor) == []


def test_a_header_in_other_units_is_refused():
    image = nib.Nifti1Image(HU, STRAIGHT)
    image.header.set_xyzt_units("meter")
    with pytest.raises(GeometryError, match="counts lengths in meter"):
        to_volume(image)


def test_an_affine_that_was_changed_after_loading_counts():
    header = nib.Nifti1Image(HU, STRAIGHT).header
    volume = to_volume(Volume(HU, OBLIQUE, header))
    np.testing.assert_allclose(volume.header.get_best_affine(), OBLIQUE, atol=1e-4)
    np.testing.assert_allclose(header.get_best_affine(), STRAIGHT)  # the caller's image is unchanged


def test_label_maps_go_back_to_each_kind():
    volume = to_volume(nib.Nifti1Image(HU, OBLIQUE))
    labels = (HU > 0).astype(np.uint8)
    for image in (to_sitk(labels, OBLIQUE), to_nibabel(labels, volume), to_metatensor(labels, OBLIQUE)):
        back = to_volume(image)
        np.testing.assert_array_equal(back.array, labels)
        assert back.array.dtype == np.uint8
        np.testing.assert_allclose(back.affine, OBLIQUE, atol=1e-6)
    np.testing.assert_allclose(to_sitk(labels, OBLIQUE).GetDirection(), sitk_image().GetDirection())


def test_a_description_changes_with_voxels_and_place():
    described = [
        describe_volume(to_volume(volume))
        for volume in (Volume(HU, STRAIGHT), Volume(HU + 1, STRAIGHT), Volume(HU, OBLIQUE), Volume(HU.copy(), STRAIGHT))
    ]
    hashes = [description["sha256"] for description in described]
    assert hashes[0] == hashes[3] and len({*hashes}) == 3
    assert described[0]["path"] == f"ct (liverseg Volume in memory), SHA-256 {hashes[0][:12]}"
    assert described[0]["bytes"] == HU.nbytes
