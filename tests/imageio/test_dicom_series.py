"""DICOM series: read onto the grid of their tags, and refused with a reason if slices form no even stack."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import patch, write_ct_slice, write_slice

from liverseg.errors import GeometryError, LiversegError
from liverseg.imageio.dicom_series import find_series, read_series, read_series_volume

REAL = Path(os.environ.get("LIVERSEG_REAL_DATA") or Path(__file__).parents[3] / "shared" / "realdata")


def stack(shape=(4, 5), slices=6, seed=3):
    """Return (slice, row, column) HU as int16."""
    return np.random.default_rng(seed).integers(-1000, 1500, (slices, *shape)).astype(np.int16)


def write_series(folder, volume, zs=None, **settings):
    """Write slices with names in reverse order, by default from -100 mm up in steps of 2.5 mm."""
    zs = [-100 + 2.5 * number for number in range(len(volume))] if zs is None else zs
    for number, (plane, z) in enumerate(zip(volume, zs, strict=True)):
        write_slice(folder / f"image_{len(volume) - number}", plane, (-10, -20, z), **settings)
    return folder


def test_slices_are_sorted_by_position_and_placed_in_ras(tmp_path):
    volume = stack()
    array, affine = read_series(write_series(tmp_path / "ct", volume))
    assert array.dtype == np.int16
    np.testing.assert_array_equal(array, volume.transpose(2, 1, 0))
    np.testing.assert_allclose(affine, [[-0.7, 0, 0, 10], [0, -0.8, 0, 20], [0, 0, 2.5, -100], [0, 0, 0, 1]])


def test_the_affine_is_that_of_itk(tmp_path):
    orientation = (0, 0.8, -0.6, 0, -0.6, -0.8)
    normal = np.cross(orientation[:3], orientation[3:])
    volume = stack()
    for number, plane in enumerate(volume):
        position = np.array([5, 6, 7]) + 3 * number * normal
        turned = "\\".join(map(str, orientation))
        write_slice(tmp_path / f"{number}.dcm", plane, position, orientation=turned)
    array, affine = read_series(tmp_path)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(tmp_path / f"{number}.dcm") for number in range(len(volume))])
    image = reader.Execute()
    np.testing.assert_array_equal(array, sitk.GetArrayFromImage(image).transpose(2, 1, 0))
    for index in ((0, 0, 0), (4, 0, 0), (0, 3, 0), (0, 0, 5), (4, 3, 5)):
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        np.testing.assert_allclose(affine @ [*index, 1], [-lps[0], -lps[1], lps[2], 1], atol=1e-4)


def test_fractions_are_kept_as_float(tmp_path):
    volume = stack()
    for path in write_series(tmp_path, volume).iterdir():
        patch(path, b"-1024 ", b"-102.5")  # the rescale intercept
    array, _ = read_series(tmp_path)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, volume.transpose(2, 1, 0) + (1024 - 102.5))


def test_slices_before_the_first_fraction_are_kept(tmp_path):
    volume = stack(slices=4)
    write_series(tmp_path, volume)
    middle = sorted(find_series(tmp_path)[0].files)[2]
    place = find_series(tmp_path)[0].files.index(middle)
    patch(middle, b"-1024 ", b"-102.5")
    expected = volume.transpose(2, 1, 0).astype(np.float32)
    expected[:, :, place] += 1024 - 102.5
    array, _ = read_series(tmp_path)
    np.testing.assert_array_equal(array, expected)


def test_one_slice_takes_its_thickness(tmp_path):
    array, affine = read_series(write_series(tmp_path / "ct", stack(slices=1)))
    assert array.shape == (5, 4, 1)
    np.testing.assert_allclose(affine[:3, 2], [0, 0, 2.5])
    write_series(tmp_path / "thin", stack(slices=1), thickness=None)
    with pytest.raises(LiversegError, match=r"image_1: one slice without a slice thickness"):
        read_series(tmp_path / "thin")


def test_a_series_among_others_and_what_is_no_dicom(tmp_path):
    write_series(tmp_path, stack())
    write_slice(tmp_path / "mr", stack()[0], (0, 0, 0), uid="1.2.9", modality="MR")
    (tmp_path / "notes.txt").write_text("read me")
    (tmp_path / "empty").touch()
    (tmp_path / "._image_1").write_bytes(b"\0\5\x16\7")
    (tmp_path / "folder").mkdir()
    found = {found_series.modality: found_series for found_series in find_series(tmp_path)}
    assert sorted(found) == ["CT", "MR"]
    assert [path.name for path in found["CT"].files] == [f"image_{number}" for number in range(6, 0, -1)]
    assert (found["CT"].uid, found["CT"].description) == ("1.2.3", "portal")
    assert read_series(tmp_path)[0].shape == (5, 4, 6)
    assert read_series(found["MR"], modality=None)[0].shape == (5, 4, 1)
    with pytest.raises(LiversegError, match="modality MR; CT is needed"):
        read_series(found["MR"])


def test_two_series_are_named_and_either_can_be_chosen(tmp_path):
    write_series(tmp_path, stack())
    for number, plane in enumerate(stack(slices=3)):
        write_slice(tmp_path / f"b{number}", plane, (0, 0, number), uid="1.2.4", description="artériel")
    with pytest.raises(
        LiversegError, match=r"2 series, b0 and its like \(3 slices\), \S+ and its like \(6 slices\); keep"
    ):
        read_series(tmp_path)
    assert [read_series(found_series)[0].shape[2] for found_series in find_series(tmp_path)] == [3, 6]


def test_a_description_in_latin_1_can_be_printed(tmp_path):
    write_slice(tmp_path / "a", stack()[0], (0, 0, 0), description="foie artériel")
    written = (tmp_path / "a").read_bytes()
    assert "é".encode() in written
    (tmp_path / "a").write_bytes(written.replace("é".encode() + b"r", b"\xe9r "))
    assert find_series(tmp_path)[0].description == "foie artér iel"


def test_masks_of_any_modality_are_read(tmp_path):
    mask = (stack() > 0).astype(np.uint8) * 255
    write_series(tmp_path, mask, modality="OT")
    array, _ = read_series(tmp_path, modality=None)
    np.testing.assert_array_equal(array, mask.transpose(2, 1, 0))


@pytest.mark.parametrize(
    ("zs", "message"),
    [
        ([0, 2.5, 7.5, 10, 12.5, 15], r"a gap of 5 mm between image_5 and image_4, 2.5 mm are usual; 1 missing"),
        ([0, 7.5, 10, 12.5, 15, 17.5], r"a gap of 7.5 mm between image_6 and image_5, 2.5 mm are usual; 2 missing"),
        ([0, 2.5, 5, 9, 11.5, 14], r"a gap of 4 mm between image_4 and image_3, .* must be evenly spaced"),
        ([0, 2.5, 5, 5, 7.5, 10], r"image_3 and image_4 are at one position"),
    ],
)
def test_uneven_positions_are_refused(zs, message, tmp_path):
    with pytest.raises(LiversegError, match=message):
        read_series(write_series(tmp_path, stack(), zs))


def test_positions_rounded_to_a_tenth_are_even(tmp_path):
    zs = [round(0.625 * number, 1) for number in range(6)]
    _, affine = read_series(write_series(tmp_path, stack(), zs))
    assert affine[2, 2] == pytest.approx(zs[-1] / 5)


def test_tilt_is_refused(tmp_path):
    for number, plane in enumerate(stack()):
        write_slice(tmp_path / f"{number}", plane, (0, number * np.tan(np.radians(12)), number))
    with pytest.raises(
        GeometryError,
        match=r"gantry tilt of 12 degrees: slices are displaced within their planes, by 1\.1 mm in all, 0\.35 mm are "
        "allowed; take a series without tilt, or straighten the series first$",
    ):
        read_series(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [{"pixels": np.zeros((4, 6), np.int16)}, {"spacing": (0.8, 0.75)}, {"orientation": "1\\0\\0\\0\\0\\-1"}],
)
def test_a_slice_that_does_not_belong_is_left_out(changed, tmp_path):
    write_series(tmp_path, stack())
    write_slice(tmp_path / "odd", **{"pixels": stack()[0], "position": (-10, -20, -85), **changed})
    found = read_series_volume(tmp_path)
    assert found.warnings == ("left out of the series: 1 slice apart from the stack; 6 slices are read",)
    np.testing.assert_array_equal(found.array, stack().transpose(2, 1, 0))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (rb"1\0\0\0\1\0 ", rb"1\0\0\1\0\0 ", "no usable image orientation"),
        (rb"1\0\0\0\1\0 ", rb"0\0\0\0\0\0 ", "no usable image orientation"),
        (rb"1\0\0\0\1\0 ", rb"1\0\0       ", "no usable image orientation"),
        (rb"1\0\0\0\1\0 ", rb"1\0\0\0\nan ", "no usable image orientation"),
        (rb"-10\-20\-100", rb"            ", "no usable image position"),
        (rb".8\.7 ", rb".8    ", "no usable pixel spacing"),
        (rb".8\.7 ", rb".8\0  ", "no usable pixel spacing"),
    ],
)
def test_geometry_that_is_missing_or_impossible(old, new, message, tmp_path):
    patch(write_series(tmp_path, stack()) / "image_6", old, new)
    with pytest.raises(LiversegError, match=rf"image_6: {message}"):
        read_series(tmp_path)


def test_several_frames_in_one_file_are_refused(tmp_path):
    header = write_ct_slice(tmp_path / "many.dcm", stack()[0])
    header.NumberOfFrames, header.PixelData = 3, 3 * header.PixelData
    header.save_as(tmp_path / "many.dcm")
    with pytest.raises(LiversegError, match=r"many\.dcm: several frames or colours in one file"):
        read_series(tmp_path)


def test_a_truncated_slice_is_not_passed_over(tmp_path):
    write_series(tmp_path, stack())
    last = tmp_path / "image_1"  # the topmost; without it there would be no gap
    last.write_bytes(last.read_bytes()[:-10])
    with pytest.raises(LiversegError, match=r"image_1: a DICOM slice that cannot be read; is it truncated"):
        read_series(tmp_path)


@pytest.mark.parametrize("name", ["image_1", "9.dcm"])
@pytest.mark.parametrize("length", [0, 100, 132, 150, 300])
def test_a_slice_cut_off_before_it_says_what_it_is_is_not_passed_over(name, length, tmp_path):
    write_series(tmp_path, stack())
    last = tmp_path / "image_1"
    last.write_bytes(last.read_bytes()[:length])
    last.rename(tmp_path / name)
    if name == "image_1" and length < 132:  # it cannot be distinguished from a note
        assert [len(found_series.files) for found_series in find_series(tmp_path)] == [5]
        return
    with pytest.raises(LiversegError, match=f"{name}: a DICOM slice that cannot be read; is it truncated"):
        read_series(tmp_path)


def test_folders_without_a_series(tmp_path):
    with pytest.raises(LiversegError, match="no such folder"):
        read_series(tmp_path / "none")
    (tmp_path / "notes.txt").write_text("read me")
    with pytest.raises(LiversegError, match="no DICOM image in it"):
        read_series(tmp_path)
    assert find_series(tmp_path) == []


def real(name):
    if not (REAL / name).exists():
        pytest.skip(f"{REAL / name} is not here; set LIVERSEG_REAL_DATA to the folder of real CT")
    return REAL / name


@pytest.mark.integration
def test_a_real_series_is_its_nifti():
    expected = nib.load(real("hcc_048/hcc_048_portal.nii.gz"))
    array, affine = read_series(real("hcc_048/dicom"))
    np.testing.assert_allclose(affine, expected.affine, atol=1e-6)
    np.testing.assert_array_equal(array, np.asarray(expected.dataobj))


@pytest.mark.integration
def test_a_real_series_in_jpeg_2000_lies_on_its_masks_grid():
    array, affine = read_series(real("totalsegmentator_dicom/example_ct_dicom"))
    mask = nib.load(real("totalsegmentator_dicom/example_seg_dicom.nii.gz"))
    liver = np.asarray(mask.dataobj) == 5
    own = np.linalg.inv(affine) @ mask.affine @ [*np.argwhere(liver)[0], 1]  # the mask counts rows the other way
    np.testing.assert_allclose(own, np.rint(own), atol=1e-3)
    assert np.median(array[:, ::-1][liver]) == pytest.approx(60, abs=80)
    np.testing.assert_allclose(np.abs(affine[:3, :3]), np.abs(mask.affine[:3, :3]), atol=1e-6)


def test_real_slices_with_padding_are_sorted():
    array, affine = read_series(real("dcmqi_3slice/ct-3slice"))
    assert (array.shape, array.min()) == ((512, 512, 3), -3024)
    np.testing.assert_allclose(affine[2], [0, 0, 1, -128.690002])
    with pytest.raises(LiversegError, match="modality SEG; CT is needed"):
        read_series(real("dcmqi_3slice"))


def test_a_real_head_with_tilt_is_refused():
    with pytest.raises(GeometryError, match=r"gantry tilt of 18\.5 degrees"):
        read_series(real("gantry_tilt_head"))
