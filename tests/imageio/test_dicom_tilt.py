"""Tilted gantries: refused, or moved onto an upright grid and back; and what is only the rounding of tags."""

import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_files import write_ct_series

from liverseg.errors import GeometryError
from liverseg.imageio.dicom_select import choose_series, read_dicom_with_shifts
from liverseg.imageio.dicom_series import read_series, read_series_volume
from liverseg.imageio.slice_shifts import SliceShifts

REAL = Path(os.environ.get("LIVERSEG_REAL_DATA") or Path(__file__).parents[3] / "shared" / "realdata")


def smooth(place):
    """Return HU of a smooth body at LPS+ positions in mm, shape (..., 3)."""
    x, y, z = np.moveaxis(np.asarray(place), -1, 0)
    return np.rint(100 * np.sin(x / 9) + 80 * np.cos(y / 11) + 2 * z)


def tilted(folder, degrees=(15, 0), slices=12, step=3.0, pixel=(0.8, 0.7), side=40):
    """Write a body scanned with the gantry tilted about the patient's transverse axis, and turned about the vertical.

    The couch moves along z, so slices are displaced within their planes.
    """
    tilt, turn = np.radians(degrees)
    row = np.array([np.cos(turn), 0, -np.sin(turn)])
    column = np.array([0, np.cos(tilt), -np.sin(tilt)])
    column -= row * (row @ column)
    column /= np.linalg.norm(column)
    row, column = np.round(row, 6), np.round(column, 6)
    steps = np.arange(side)
    planes, places = [], []
    for number in range(slices):
        first = np.array([-10.0, -20.0, step * number])
        places.append(first)
        grid = first + steps[:, None, None] * column * pixel[0] + steps[None, :, None] * row * pixel[1]
        planes.append(smooth(grid))
    return write_ct_series(
        folder,
        np.array(planes).astype(np.int16),
        ImageOrientationPatient=[*row, *column],
        ImagePositionPatient=lambda number: [float(value) for value in places[number]],
        PixelSpacing=list(pixel),
        GantryDetectorTilt=degrees[0],
    )


@pytest.mark.parametrize("degrees", [(15, 0), (-18.5, 0), (3, 0), (12, 8), (0, 10), (1, 0)])
def test_each_voxel_of_the_upright_grid_is_where_it_was(degrees, tmp_path):
    folder = tilted(tmp_path, degrees)
    found = read_series_volume(folder, untilt=True)
    axes = found.affine[:3, :3] / np.linalg.norm(found.affine[:3, :3], axis=0)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)
    columns, rows, slices = found.array.shape
    assert columns >= 40 and rows >= 40 and slices == 12
    index = np.stack(np.meshgrid(*map(np.arange, found.array.shape), indexing="ij"), axis=-1)
    place = (index @ found.affine[:3, :3].T + found.affine[:3, 3]) * [-1, -1, 1]
    inside = found.array > -1000
    assert 0.9 * 40 * 40 * 12 <= inside.sum() <= 41 * 41 * 12
    difference = np.abs(found.array - smooth(place))[inside & np.roll(inside, 1, 0) & np.roll(inside, 1, 1)]
    assert np.percentile(difference, 95) <= 2  # linear interpolation of waves of 60 mm in pixels of .8 mm
    cosine = np.sqrt(1 - np.sin(np.radians(degrees[0])) ** 2) * np.cos(np.radians(degrees[1]))
    assert found.tilt_degrees == pytest.approx(np.degrees(np.arccos(cosine)), abs=0.6)
    assert f"gantry tilt of {found.tilt_degrees:.3g} degrees: slices were moved" in found.warnings[0]


def test_itk_reads_the_upright_grid_as_it_is(tmp_path):
    """And not the sheared affine: ITK needs axes at right angles."""
    import nibabel as nib

    volume, found = read_dicom_with_shifts(choose_series(tilted(tmp_path / "ct")), untilt=True)
    nib.save(nib.Nifti1Image(volume.array, volume.affine, volume.header), tmp_path / "upright.nii.gz")
    image = sitk.ReadImage(str(tmp_path / "upright.nii.gz"))
    for voxel in ((0, 0, 0), (39, 5, 11), (3, 40, 6)):
        expected = volume.affine @ [*voxel, 1]
        found_place = np.array(image.TransformIndexToPhysicalPoint(voxel)) * [-1, -1, 1]
        np.testing.assert_allclose(found_place, expected[:3], atol=1e-3)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).transpose(2, 1, 0), found.array)


def test_labels_return_to_the_pixels_they_came_from():
    rng = np.random.default_rng(0)
    offsets = np.stack([-0.37 * np.arange(9), 1.71 * np.arange(9)], axis=1)
    shifts, _ = SliceShifts.from_offsets(offsets, (21, 17))
    on_slices = rng.integers(0, 5, (9, 17, 21)).astype(np.uint8)
    columns, rows = shifts.grid_size
    grid = np.zeros((9, rows, columns), np.uint8)
    for number, (column, row) in enumerate(np.rint(shifts.shifts).astype(int)):
        grid[number, row : row + 17, column : column + 21] = on_slices[number]
    np.testing.assert_array_equal(shifts.from_grid(grid), on_slices)


@pytest.mark.parametrize("shift", [(0, 0), (3, 0), (2, 5)])
def test_a_shift_by_complete_pixels_interpolates_nothing(shift):
    plane = np.random.default_rng(0).integers(-1000, 1500, (6, 8)).astype(np.int16)
    shifts = SliceShifts(np.array([[0, 0], shift], float), (8, 6))
    moved = shifts.to_grid(plane, 1, -1024)
    assert moved.shape == (6 + shift[1], 8 + shift[0])
    np.testing.assert_array_equal(moved[shift[1] :, shift[0] :], plane)
    assert np.count_nonzero(moved == -1024) == moved.size - plane.size


def test_the_tag_alone_is_a_warning(tmp_path):
    hu = np.random.default_rng(0).integers(-1000, 1500, (6, 5, 4)).astype(np.int16)
    for degrees, count in ((15, 1), (-7.5, 1), (0.05, 0), (None, 0)):
        folder = write_ct_series(tmp_path / str(degrees), hu, GantryDetectorTilt=degrees)
        found = read_series_volume(folder)
        np.testing.assert_array_equal(found.array, hu.transpose(2, 1, 0))
        assert len(found.warnings) == count
        assert all("but the slices stack along their normal: the tag is not used" in text for text in found.warnings)


@pytest.mark.parametrize("degrees", [6, 13, 24])
@pytest.mark.parametrize("decimals", [3, 4])
def test_orientation_rounded_to_three_decimals(degrees, decimals, tmp_path):
    """As far as half a pixel: slices of 2.5 mm over 200 mm."""
    turn = np.radians(degrees)
    column = np.array([0, np.cos(turn), np.sin(turn)])
    normal = np.cross([1, 0, 0], column)
    rounded = [1, 0, 0, *(round(float(value), decimals) for value in column)]
    hu = np.random.default_rng(0).integers(-1000, 1500, (80, 5, 4)).astype(np.int16)
    write_ct_series(
        tmp_path,
        hu,
        ImageOrientationPatient=rounded,
        ImagePositionPatient=lambda number: [round(float(value), 5) for value in 2.5 * number * normal],
    )
    array, affine = read_series(tmp_path)
    np.testing.assert_array_equal(array, hu.transpose(2, 1, 0))
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)
    last = (affine @ [0, 0, 79, 1])[:3] * [-1, -1, 1]
    assert np.linalg.norm(last - 2.5 * 79 * normal) < 0.35


@pytest.mark.parametrize(("drift", "slices", "accepted"), [(0.02, 8, True), (0.05, 7, True), (0.02, 40, False)])
@pytest.mark.parametrize("axis", [0, 1])
def test_drift_is_accepted_up_to_half_a_pixel(drift, slices, accepted, axis, tmp_path):
    hu = np.random.default_rng(0).integers(-1000, 1500, (slices, 5, 4)).astype(np.int16)

    def place(number):
        first = [-10.0, -20.0, 2.5 * number]
        first[axis] += drift * number
        return first

    write_ct_series(tmp_path, hu, ImagePositionPatient=place)
    if accepted:
        assert read_series(tmp_path)[0].shape[2] == slices
        return
    with pytest.raises(
        GeometryError, match=r"gantry tilt of 0\.458 degrees: .* by 0\.78 mm in all, 0\.35 mm are allowed"
    ):
        read_series(tmp_path)
    assert read_series(tmp_path, untilt=True)[0].shape[2] == slices


def test_slices_that_lie_on_no_line(tmp_path):
    hu = np.zeros((8, 5, 4), np.int16)
    write_ct_series(tmp_path, hu, ImagePositionPatient=lambda n: [0.45 * (n % 2), 0, 2.5 * n])
    for untilt in (False, True):
        with pytest.raises(GeometryError, match="slices are displaced within their planes, not along one line"):
            read_series(tmp_path, untilt=untilt)


def test_no_gantry_tilts_that_far(tmp_path):
    write_ct_series(tmp_path, np.zeros((8, 5, 4), np.int16), ImagePositionPatient=lambda n: [0, 100 * n, 2.5 * n])
    with pytest.raises(GeometryError, match="slices lie at 89 degrees to their normal, which no gantry does"):
        read_series(tmp_path, untilt=True)


@pytest.mark.integration
@pytest.mark.parametrize(("first", "last", "step"), [(1, 14, 4.0), (15, 28, 7.0)])
def test_a_real_tilted_head(first, last, step, tmp_path):
    """Its lower and upper half have other spacings. ITK resamples each slice for comparison."""
    source = REAL / "gantry_tilt_head"
    if not source.is_dir():
        pytest.skip(f"{source} is not here; set LIVERSEG_REAL_DATA to the folder of real CT")
    for number in range(first, last + 1):
        os.symlink(source / f"{number:02}.dcm", tmp_path / f"{number:02}.dcm")
    found = read_series_volume(tmp_path, untilt=True)
    assert found.tilt_degrees == pytest.approx(18.5, abs=0.05)
    assert np.linalg.norm(found.affine[:3, 2]) == pytest.approx(step, abs=0.003)
    for number in (0, 5, 13):
        header = pydicom.dcmread(found.slices[number].path)
        plane = sitk.ReadImage(str(found.slices[number].path))  # a stack of one slice, placed by its own tags
        grid = sitk.Image(found.array.shape[0], found.array.shape[1], 1, sitk.sitkFloat32)
        lps = np.diag([-1, -1, 1.0]) @ found.affine[:3, :3]
        spacing = np.linalg.norm(lps, axis=0)
        grid.SetSpacing([float(value) for value in spacing])
        grid.SetDirection((lps / spacing).ravel().tolist())
        grid.SetOrigin(((found.affine @ [0, 0, number, 1])[:3] * [-1, -1, 1]).tolist())
        flat = sitk.Resample(sitk.Cast(plane, sitk.sitkFloat32), grid, sitk.Transform(), sitk.sitkLinear, -1024)
        expected = sitk.GetArrayFromImage(flat)[0].T
        inner = expected > -1000
        assert inner.sum() > 0.2 * header.Rows * header.Columns
        assert np.percentile(np.abs(found.array[:, :, number] - expected)[inner], 99) <= 1.5
