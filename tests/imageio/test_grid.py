"""Grids, and defects of headers."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from liverseg.errors import GeometryError, UnreadableError
from liverseg.imageio.grid import Grid, axial_spacing, inspect_header
from liverseg.imageio.volume import read_grid

AFFINE = np.array([[0, -0.7, 0, 30], [0, 0, 2.5, -80], [1.5, 0, 0, 600], [0, 0, 0, 1.0]])
"""Slices along the first axis, rows along the third, columns along the second."""


def header(shape=(3, 4, 5), affine=AFFINE, **fields):
    head = nib.Nifti1Header()
    head.set_data_shape(shape)
    head.set_sform(affine, code=1)
    head.set_xyzt_units("mm")
    for name, value in fields.items():
        head[name] = value
    return head


def test_grid_properties():
    grid = Grid((3, 4, 5), AFFINE)
    np.testing.assert_allclose(grid.spacing, (1.5, 0.7, 2.5))
    np.testing.assert_allclose(axial_spacing(AFFINE), (1.5, 2.5, 0.7))
    assert grid.voxel_ml == pytest.approx(1.5 * 0.7 * 2.5 / 1000)
    assert (grid.slice_axis, grid.depth) == (0, 3)
    assert np.zeros(grid.shape)[grid.plane(2)].shape == (1, 4, 5)


def test_grids_match_within_rounding():
    grid = Grid((3, 4, 5), AFFINE)
    assert grid.matches(Grid((3, 4, 5), AFFINE.astype(np.float32).astype(np.float64)))
    assert not grid.matches(Grid((3, 4, 6), AFFINE))
    for change in (np.eye(4, k=3) * 0.2, np.diag([0, 0.05, 0, 0])):
        assert not grid.matches(Grid((3, 4, 5), AFFINE + change))


@pytest.mark.parametrize(("shape", "expected"), [((3, 4, 5, 1, 1), (3, 4, 5)), ((3, 4), (3, 4, 1)), ((3,), (3,))])
def test_trailing_axes_and_a_missing_third(shape, expected):
    found = inspect_header(header(shape))
    assert found.shape == expected
    assert [defect.kind for defect in found.defects] == ([] if len(expected) == 3 else ["dimensions"])


def test_every_defect_is_found_and_the_first_is_raised():
    bad = header((3, 4, 5, 2), np.zeros((4, 4)), xyzt_units=1)
    found = inspect_header(bad)
    assert [defect.kind for defect in found.defects] == ["dimensions", "units", "spacing"]
    assert found.affine is None and found.slice_axis == 2
    with pytest.raises(GeometryError, match=r"^a\.nii: a volume of 4 dimensions, shape 3×4×5×2; 3 are needed"):
        found.grid(Path("a.nii"))


def test_a_sound_header_gives_its_grid_and_what_is_stored():
    found = inspect_header(header(), pixdim=(0.0, -1.0, 2.5))
    assert (found.defects, found.codes, found.pixdim) == ((), (0, 1), (0.0, -1.0, 2.5))
    grid = found.grid(Path("a.nii"))
    assert (grid.shape, found.slice_axis) == ((3, 4, 5), 0)
    np.testing.assert_allclose(grid.affine, AFFINE, rtol=1e-6)
    np.testing.assert_allclose(inspect_header(header()).pixdim, (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (np.diag([1, 1, 0, 1.0]), "its affine is singular or not finite"),
        (np.diag([1, 1, np.nan, 1.0]), "its affine is singular or not finite"),
        (np.diag([1, 1, 2000, 1.0]), "voxels of 1 × 1 × 2e"),
        (np.array([[1000, 1000, 0, 0], [0, 1e-12, 0, 0], [0, 0, 4, 0], [0, 0, 0, 1.0]]), "are nearly parallel"),
    ],
)
def test_affines_that_cannot_place_voxels(affine, message, tmp_path):
    (defect,) = inspect_header(header(affine=affine)).defects
    assert (defect.kind, defect.error) == ("spacing", GeometryError)
    image = nib.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.eye(4))
    image.header.set_sform(affine, code=1)
    image.to_filename(tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[280:328] = affine[:3].astype("<f4").tobytes()  # srow_x, srow_y and srow_z
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(GeometryError, match=rf"a\.nii: .*{message}"):
        read_grid(tmp_path / "a.nii")


def test_an_empty_volume_is_unreadable():
    found = inspect_header(header((3, 0, 5)))
    with pytest.raises(UnreadableError, match="an empty volume, shape 3×0×5"):
        found.grid(Path("a.nii"))
