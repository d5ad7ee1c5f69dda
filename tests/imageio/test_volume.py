"""Volumes: every orientation to axial order and back, refused files, and grids that survive writing."""

import gzip
import itertools

import nibabel as nib
import numpy as np
import pytest
from ct_files import write_on_grid
from hypothesis import given, settings
from hypothesis import strategies as st

from liverseg.errors import LiversegError
from liverseg.imageio.volume import case_name, read_grid, read_volume, write_box_like

ORIENTATIONS = [
    "".join(codes) for axes in itertools.permutations(("LR", "PA", "IS")) for codes in itertools.product(*axes)
]


def oblique(spacing, degrees):
    """Return an affine rotated about all three axes."""
    a, b, c = np.deg2rad(degrees)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = x @ y @ z @ np.diag(spacing)
    affine[:3, 3] = (-31.5, 12.25, 640.0)
    return affine


def stored_as(array, affine, codes, path):
    """Write the same RAS+ volume in another orientation."""
    image = nib.Nifti1Image(array, affine)
    start = nib.io_orientation(affine)
    turned = image.as_reoriented(nib.orientations.ornt_transform(start, nib.orientations.axcodes2ornt(codes)))
    nib.save(turned, path)
    return path


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_axial_order_is_the_same_for_all_48_orientations(codes, tmp_path):
    array = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    affine = oblique((0.7, 0.9, 2.5), (8, -5, 11))
    volume = read_volume(stored_as(array, affine, codes, tmp_path / "v.nii"))
    # RAS+ (right-left, back-front, feet-head) as (slice to head, row to back, column to left)
    expected = array.transpose(2, 1, 0)[:, ::-1, ::-1]
    np.testing.assert_array_equal(volume.axial, expected)
    np.testing.assert_array_equal(volume.from_axial(volume.axial), volume.array)
    np.testing.assert_allclose(volume.axial_spacing, (2.5, 0.9, 0.7), rtol=1e-5)
    assert volume.slice_axis == "".join(codes).translate(str.maketrans("LRPAIS", "xxyyzz")).index("z")
    index = np.array([3, 1, 2, 1.0])
    there = volume.axial_affine @ index
    column, row = array.shape[0] - 1 - 2, array.shape[1] - 1 - 1
    np.testing.assert_allclose(there, affine @ np.array([column, row, 3, 1.0]), atol=1e-3)


@pytest.mark.integration
@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 5)] * 3),
    degrees=st.tuples(*[st.floats(-30, 30)] * 3),
    spacing=st.tuples(*[st.floats(0.4, 6)] * 3),
)
def test_label_maps_keep_grid_codes_and_units(shape, degrees, spacing, tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")
    image = nib.Nifti1Image(np.zeros(shape, np.int16), oblique(spacing, degrees))
    image.set_qform(image.affine, 1)
    image.set_sform(image.affine, 4)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, folder / "ct.nii.gz")
    reference = read_volume(folder / "ct.nii.gz")
    labels = np.random.default_rng(0).integers(0, 5, shape).astype(np.uint8)
    write_on_grid(folder / "labels.nii.gz", labels, reference)
    source, written = nib.load(folder / "ct.nii.gz"), nib.load(folder / "labels.nii.gz")
    np.testing.assert_array_equal(written.affine, source.affine)
    np.testing.assert_array_equal(np.asarray(written.dataobj), labels)
    assert written.get_data_dtype() == np.uint8
    for code in ("qform_code", "sform_code", "xyzt_units"):
        assert int(written.header[code]) == int(source.header[code])


@pytest.mark.parametrize("codes", ORIENTATIONS[::5])
@pytest.mark.parametrize("name", ["labels.nii.gz", "labels.nii"])
def test_a_box_is_written_like_the_complete_map(codes, name, tmp_path):
    array = np.random.default_rng(1).integers(0, 99, (7, 5, 6)).astype(np.int16)
    reference = read_volume(stored_as(array, oblique((0.8, 0.7, 2.0), (3, -5, 11)), codes, tmp_path / "ct.nii"))
    shape = reference.axial.shape
    box = (slice(1, 4), slice(0, shape[1] - 2), slice(2, shape[2]))
    full = np.zeros(shape, np.uint16)
    full[box] = np.random.default_rng(2).integers(1, 999, full[box].shape)
    write_box_like(tmp_path / f"box_{name}", full[box], box, reference)
    write_on_grid(tmp_path / f"full_{name}", reference.from_axial(full), reference)
    assert (tmp_path / f"box_{name}").read_bytes() == (tmp_path / f"full_{name}").read_bytes()
    written = nib.load(tmp_path / f"box_{name}")
    np.testing.assert_array_equal(np.asarray(written.dataobj), reference.from_axial(full))
    np.testing.assert_array_equal(written.affine, reference.affine)
    own = reference.array[reference.box_from_axial(box)]
    np.testing.assert_array_equal(own, reference.from_axial(reference.axial[box]))


def test_big_endian_headers_and_nifti_2_give_nifti_1_of_the_same_byte_order(tmp_path):
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    big = nib.Nifti1Image(array, np.diag([1, 2, 3, 1.0]), nib.Nifti1Header(endianness=">"))
    for number, image in enumerate((big, nib.Nifti2Image(array, np.diag([1, 2, 3, 1.0])))):
        nib.save(image, tmp_path / f"{number}.nii")
        reference = read_volume(tmp_path / f"{number}.nii")
        write_on_grid(tmp_path / f"{number}_labels.nii.gz", array.astype(np.uint16), reference)
        written = nib.load(tmp_path / f"{number}_labels.nii.gz")
        assert type(written) is nib.Nifti1Image  # SimpleITK does not read NIfTI-2
        assert written.header.endianness == image.header.endianness
        np.testing.assert_array_equal(np.asarray(written.dataobj), array)
        np.testing.assert_array_equal(written.affine, image.affine)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_texts_of_a_header_are_not_taken_over(kind, tmp_path):
    image = kind(np.zeros((3, 4, 5), np.int16), np.eye(4))
    for name in {"descrip", "db_name", "aux_file", "intent_name"} & set(image.header):
        image.header[name] = b"Hartmann"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Hartmann"))
    nib.save(image, tmp_path / "ct.nii")
    volume = read_volume(tmp_path / "ct.nii")
    write_on_grid(tmp_path / "labels.nii", np.zeros((3, 4, 5), np.uint8), volume)
    assert (tmp_path / "ct.nii").read_bytes().count(b"Hartmann") >= 4
    assert b"Hartmann" not in (tmp_path / "labels.nii").read_bytes()


def test_scaling_of_the_header_is_applied(tmp_path):
    image = nib.Nifti1Image(np.full((3, 3, 3), 1100, np.uint16), np.eye(4))
    image.header.set_slope_inter(0.5, -1024)
    image.to_filename(tmp_path / "s.nii")
    volume = read_volume(tmp_path / "s.nii")
    assert volume.array.dtype == np.float32
    assert (volume.array == 0.5 * 1100 - 1024).all()


def test_two_dimensional_files_are_one_slice_and_keep_their_shape(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((6, 7), np.int16), np.eye(4)), tmp_path / "flat.nii.gz")
    volume = read_volume(tmp_path / "flat.nii.gz")
    assert volume.array.shape == (6, 7, 1)
    write_on_grid(tmp_path / "labels.nii.gz", np.ones((6, 7, 1), np.uint8), volume)
    assert nib.load(tmp_path / "labels.nii.gz").shape == nib.load(tmp_path / "flat.nii.gz").shape


def test_truncated_file_is_refused(tmp_path):
    noise = np.random.default_rng(0).integers(-1000, 1000, (40, 40, 40)).astype(np.int16)
    nib.save(nib.Nifti1Image(noise, np.eye(4)), tmp_path / "complete.nii.gz")
    content = (tmp_path / "complete.nii.gz").read_bytes()
    (tmp_path / "half.nii.gz").write_bytes(content[: len(content) // 2])
    (tmp_path / "half.nii").write_bytes(gzip.decompress(content)[:50000])
    for name in ("half.nii.gz", "half.nii"):
        with pytest.raises(LiversegError, match=f"{name}.*truncated"):
            read_volume(tmp_path / name)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 3, 3, 2), np.int16), "4 dimensions, shape 3×3×3×2"),
        (np.full((3, 3, 3), np.nan, np.float32), "27 voxels are NaN or infinite"),
        (np.zeros((3, 3, 3), np.complex64), "type complex64"),
    ],
)
def test_what_is_not_a_volume_is_refused(array, message, tmp_path):
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "bad.nii")
    with pytest.raises(LiversegError, match=message):
        read_volume(tmp_path / "bad.nii")


def test_missing_foreign_and_flat_files_are_refused(tmp_path):
    with pytest.raises(LiversegError, match="no such file"):
        read_grid(tmp_path / "none.nii")
    (tmp_path / "text.nii").write_text("not a volume at all")
    with pytest.raises(LiversegError, match=r"text\.nii: cannot be read as NIfTI"):
        read_volume(tmp_path / "text.nii")
    (tmp_path / "scan.mha").write_text("")
    with pytest.raises(LiversegError, match="not a NIfTI file name"):
        read_volume(tmp_path / "scan.mha")


@pytest.mark.parametrize(
    ("code", "unit", "fine"),
    [
        (2, "mm", True),
        (0, "unknown", True),
        (2 + 64, "mm, and a time there is no unit for", True),
        (1, "meter", False),
        (3, "micron", False),
        (5, "units of code 5", False),
    ],
)
def test_lengths_in_other_units_are_refused(code, unit, fine, tmp_path):
    image = nib.Nifti1Image(np.zeros((3, 3, 3), np.int16), np.eye(4))
    image.header["xyzt_units"] = code
    nib.save(image, tmp_path / "a.nii")
    if fine:
        assert read_volume(tmp_path / "a.nii").array.shape == (3, 3, 3)
    else:
        with pytest.raises(LiversegError, match=rf"a\.nii: its header counts lengths in {unit}; mm are needed"):
            read_volume(tmp_path / "a.nii")


def test_a_quaternion_that_is_no_rotation_is_refused(tmp_path):
    image = nib.Nifti1Image(np.zeros((3, 3, 3), np.int16), np.eye(4))
    image.set_qform(np.eye(4), 1)
    image.set_sform(None, 0)
    nib.save(image, tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[256:268] = np.full(3, 0.7, "<f4").tobytes()  # quatern_b, c and d
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(LiversegError, match=r"a\.nii: its quaternion is no rotation \(.*\); export it again"):
        read_volume(tmp_path / "a.nii")


def test_case_names():
    assert case_name("/a/b.c/volume-3.nii.gz") == "volume-3"
    assert case_name("CT.NII") == "CT"
    assert case_name("scan.1.nii") == "scan.1"


@pytest.mark.parametrize(
    ("stored", "slope", "inter", "kind"),
    [
        (np.array([0, 40000, 48000], np.uint16), 1, -16000, np.int16),  # beyond int16 before the sum
        (np.array([0, 20000, 24000], np.int16), 2, -16383, np.int16),
        (np.array([0, 50000], np.uint16), 1, -16000, np.int32),
        (np.array([-3, 0, 255], np.int16), -7, 12, np.int16),
    ],
)
def test_integer_scalings_keep_integers(stored, slope, inter, kind, tmp_path):
    image = nib.Nifti1Image(stored.reshape(-1, 1, 1), np.eye(4))
    image.header.set_slope_inter(slope, inter)
    nib.save(image, tmp_path / "ct.nii.gz")
    found = read_volume(tmp_path / "ct.nii.gz").array
    expected = stored.astype(np.int64) * slope + inter
    assert found.dtype == kind
    np.testing.assert_array_equal(found.ravel(), expected)
