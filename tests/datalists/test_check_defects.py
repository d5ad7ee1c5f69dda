"""Defects of files: each gives its finding and no other."""

import gzip
import re

import nibabel as nib
import numpy as np
import pytest
from ct_tree import AFFINE, LABEL, SHAPE, VOLUME, check, found_in, make_case, save, write_list, write_tree

from liverseg.datasets.slice_readers import NiftiSlices
from liverseg.errors import GeometryError
from liverseg.imageio.volume import read_grid


@pytest.fixture
def tree(tmp_path):
    write_tree(tmp_path)
    return tmp_path


def cut(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def plain_cut(root):
    """Write a .nii without gzip that ends before its voxels do."""
    cut(save(root / "short.nii", make_case(0)[1]), 0.7)
    content = write_tree(root)
    content["training"][0]["label"] = "short.nii"
    write_list(root, content)


def wrong_check_sum(path):
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # after the last voxel, beyond the reader's end
    path.write_bytes(content)


def image_with(change):
    """Write a tree and change the HU of its first image."""

    def make(root):
        save(root / VOLUME, change(make_case(0)[0]))

    return make


def label_with(change):
    """Write a tree and change its first label map."""

    def make(root):
        save(root / LABEL, change(make_case(0)[1]))

    return make


def header_with(name, **fields):
    """Write a tree and change values in the header of a file."""

    def change(header):
        for field, value in fields.items():
            header[field] = value

    def make(root):
        hu, label = make_case(0)
        save(root / name, hu if name == VOLUME else label, change=change)

    return make


def placed(affine, *, both=False):
    """Write a tree and change the affine of its first label, or of its first case."""

    def make(root):
        hu, label = make_case(0)
        save(root / LABEL, label, affine)
        if both:
            save(root / VOLUME, hu, affine)

    return make


def value_set(array, where, value):
    array = array.copy()
    array[where] = value
    return array


def turned(*axes):
    signs = np.ones(4)
    signs[list(axes)] = -1
    return AFFINE * signs


def about_x(degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]]) @ AFFINE


def thin(root):
    hu, label = make_case(0)
    save(root / VOLUME, hu[:, :, 3:5])
    save(root / LABEL, label[:, :, 3:5])


def other_shape(root):
    save(root / LABEL, make_case(0)[1][:, :, 1:])


def copied(same_patient):
    """Copy the voxels of the first image to another file, with another data type or compression."""

    def make(root):
        content = write_tree(root)
        image = nib.load(root / VOLUME)
        again = nib.Nifti1Image(np.asarray(image.dataobj).astype(np.float32), image.affine, dtype="compat")
        (root / "volume-1.nii.gz").write_bytes(gzip.compress(again.to_bytes(), 9))
        if same_patient:
            content["training"][1] |= {"patient": "p0", "fold": 0}
            write_list(root, content)

    return make


def smooth(hu):
    return np.clip((hu + 1000.0) / 1500, 0, 1).astype(np.float32)


ERROR, WARNING = "error", "warning"
DEFECTS = {
    "image missing": (lambda r: (r / VOLUME).unlink(), VOLUME, ERROR, "missing", "no such file"),
    "label missing": (lambda r: (r / LABEL).unlink(), LABEL, ERROR, "missing", "no such file"),
    "gzip cut": (lambda r: cut(r / VOLUME, 0.6), VOLUME, ERROR, "truncated", "ends early, after [0-9]+ bytes"),
    "header cut": (lambda r: (r / LABEL).write_bytes(gzip.compress(b"1" * 99)), LABEL, ERROR, "truncated", "99 bytes"),
    "voxels cut": (plain_cut, "short.nii", ERROR, "truncated", "it holds [0-9]+ of 17280 bytes"),
    "empty file": (lambda r: (r / VOLUME).write_bytes(b""), VOLUME, ERROR, "truncated", "after 0 bytes"),
    "check sum": (
        lambda r: wrong_check_sum(r / VOLUME),
        VOLUME,
        ERROR,
        "unreadable",
        "damaged .*checksum",
    ),
    "no gzip": (
        lambda r: (r / LABEL).write_bytes(b"mask" * 200),
        LABEL,
        ERROR,
        "unreadable",
        "damaged .*Invalid gzip",
    ),
    "no NIfTI": (lambda r: (r / LABEL).write_bytes(gzip.compress(bytes(999))), LABEL, ERROR, "unreadable", "NIfTI"),
    "two phases": (image_with(lambda hu: np.stack([hu, hu], -1)), VOLUME, ERROR, "dimensions", "40×36×12×2"),
    "complex": (image_with(lambda hu: hu.astype(np.complex64)), VOLUME, ERROR, "unreadable", "type complex64"),
    "NaN": (
        image_with(lambda hu: value_set(hu.astype(np.float32), (0, 0, slice(3)), np.nan)),
        *(VOLUME, ERROR, "not finite", "3 voxels are NaN"),
    ),
    "shape": (other_shape, LABEL, ERROR, "grid", r"shape 40×36×11, but its image volume-0\.nii\.gz has 40×36×12"),
    "spacing": (placed(AFFINE @ np.diag([1, 1, 1.25, 1])), LABEL, ERROR, "grid", "spacing 2×2×5 mm, but .* 2×2×4 mm"),
    "origin": (placed(AFFINE + np.eye(4, k=3) * 7), LABEL, ERROR, "grid", "origin 7 mm from"),
    "direction": (placed(about_x(30)), LABEL, ERROR, "grid", "direction up to 30 degrees"),
    "axes swapped": (placed(AFFINE[:, [1, 0, 2, 3]]), LABEL, ERROR, "grid", "90 degrees .*PLS against LPS"),
    "one axis flipped": (placed(turned(0)), LABEL, ERROR, "flipped affine", "RPS, those of .* LPS, .*--repair"),
    "two axes flipped": (placed(turned(0, 1)), LABEL, ERROR, "flipped affine", "run RAS"),
    "LPS for RAS": (placed(np.diag([-1, -1, 1, 1]) @ AFFINE), LABEL, ERROR, "flipped affine", "run RAS"),
    "identity": (placed(np.eye(4)), LABEL, ERROR, "reset affine", "--repair writes a copy"),
    "spacing alone": (placed(np.diag([2, 2, 4, 1])), LABEL, ERROR, "reset affine", "--repair"),
    "no codes": (header_with(LABEL, qform_code=0, sform_code=0), LABEL, ERROR, "reset affine", "never set"),
    "zero spacing": (
        header_with(VOLUME, pixdim=[1, 2, 0, 4, 0, 0, 0, 0], qform_code=0),
        *(VOLUME, ERROR, "spacing", "2×0×4 mm in its header"),
    ),
    "negative spacing": (
        header_with(LABEL, pixdim=[1, 2, 2, -4, 0, 0, 0, 0], qform_code=0),
        *(LABEL, ERROR, "spacing", "2×2×-4 mm"),
    ),
    "NaN spacing": (
        header_with(VOLUME, pixdim=[1, 2, np.nan, 4, 0, 0, 0, 0], qform_code=0),
        *(VOLUME, ERROR, "spacing", "2×nan×4 mm"),
    ),
    "singular affine": (header_with(VOLUME, srow_z=0), VOLUME, ERROR, "spacing", "singular"),
    "parallel axes": (
        header_with(VOLUME, srow_x=[1000, 1000, 0, 0], srow_y=[0, 1e-12, 0, 0], srow_z=[0, 0, 4, 0]),
        *(VOLUME, ERROR, "spacing", "two axes of its affine are nearly parallel"),
    ),
    "no rotation": (
        header_with(VOLUME, sform_code=0, qform_code=1, quatern_b=0.7, quatern_c=0.7, quatern_d=0.7),
        *(VOLUME, ERROR, "spacing", "its quaternion is no rotation"),
    ),
    "thick as no scan": (
        header_with(VOLUME, srow_z=[0, 0, 4000, 0]),
        *(VOLUME, ERROR, "spacing", r"voxels of 2 × 2 × 4e\+03 mm; 0\.001 to 1000 mm are allowed"),
    ),
    "metres": (header_with(VOLUME, xyzt_units=1), VOLUME, ERROR, "units", "lengths in meter; mm are needed"),
    "thick": (placed(AFFINE @ np.diag([1, 1, 3, 1]), both=True), VOLUME, WARNING, "thick slices", "12 mm apart"),
    "oblique": (placed(about_x(9), both=True), VOLUME, WARNING, "oblique", "oblique by 9.0 degrees"),
    "two slices": (thin, VOLUME, WARNING, "few slices", "2 slices: edge"),
    "value": (
        label_with(lambda label: value_set(label, (12, 18, slice(2, 4)), 7)),
        *(LABEL, ERROR, "label value", "value 7 in 2 voxels; the list allows 0, 1, 2"),
    ),
    "fractions": (
        label_with(lambda label: value_set(label.astype(np.float32), (12, 18, 2), 0.5)),
        *(LABEL, ERROR, "label value", r"fractional value 0\.5 in 1 voxels"),
    ),
    "other organ": (
        label_with(lambda label: value_set(label, (slice(30, 33), 20, 5), 5)),
        *(LABEL, ERROR, "label value", "value 5 in 3 voxels"),
    ),
    "negative value": (
        label_with(lambda label: value_set(label.astype(np.int16), (12, 18, 2), -1)),
        *(LABEL, ERROR, "label value", "value -1 in 1 voxels"),
    ),
    "lesion outside": (
        label_with(lambda label: value_set(label, (slice(30, 33), 20, 5), 2)),
        *(LABEL, WARNING, "outside liver", r"1 of 2 lesions, 0\.048 ml, touch no liver"),
    ),
    "empty": (label_with(np.zeros_like), LABEL, ERROR, "empty label", "0 throughout"),
    "no liver": (label_with(lambda label: label // 2 * 2), LABEL, ERROR, "empty label", r"no voxel of liver \(1\)"),
    "padding": (image_with(lambda hu: value_set(hu, (0, 0, 0), -32768)), VOLUME, ERROR, "HU", "values from -32768"),
    "normalised": (image_with(smooth), VOLUME, ERROR, "HU", "values from 0 to .* in fractions"),
    "no air": (image_with(lambda hu: np.maximum(hu, -150)), VOLUME, WARNING, "HU", "no voxel below -200 HU"),
    "unsigned": (image_with(lambda hu: np.maximum(hu + 1024, 0)), VOLUME, ERROR, "rescaled", "unsigned.*subtract 1024"),
    "unsigned, padded": (
        image_with(lambda hu: value_set(np.maximum(hu + 1024, 0), slice(0, 6), -2000)),
        *(VOLUME, ERROR, "rescaled", "unsigned"),
    ),
    "subtracted twice": (image_with(lambda hu: hu - 1024), VOLUME, WARNING, "rescaled", "0.0% of it from -100 to 300"),
    "eight bits": (
        image_with(lambda hu: np.clip((hu + 160) / 400 * 255, 0, 255).astype(np.uint8)),
        *(VOLUME, WARNING, "rescaled", "no air below -500 HU at its border and .* fat"),
    ),
    "one patient's twice": (copied(True), "volume-1.nii.gz", WARNING, "duplicate", "both of patient p0"),
    "two patients' one": (copied(False), "volume-1.nii.gz", ERROR, "duplicate", "as volume-0.*patient p1 here and p0"),
    "repeated slice": (
        image_with(lambda hu: hu[:, :, [0, 1, 2, 3, 3, 3, 6, 7, 8, 9, 10, 11]]),
        *(VOLUME, WARNING, "slice gap", r"2 slices \(4, 5, from 0\) repeat"),
    ),
    "constant slice": (
        image_with(lambda hu: value_set(hu, (slice(None), slice(None), 5), 0)),
        *(VOLUME, WARNING, "slice gap", r"1 slice \(5, from 0\) hold"),
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_found_and_nothing_else(defect, tree):
    spoil, file, level, word, sentence = DEFECTS[defect]
    spoil(tree)
    findings = check(tree)
    assert [tuple(row) for row in findings[["file", "level", "defect"]].to_numpy()] == [(file, level, word)]
    assert re.search(sentence, findings["found"][0]), findings["found"][0]
    assert "\n" not in findings["found"][0]


@pytest.mark.parametrize(
    "change",
    [
        lambda hu: np.concatenate([np.full_like(hu[:, :, :2], -1024), hu], axis=2)[:, :, :12],  # padded at one end
        lambda hu: hu.astype(np.float32) + np.float32(0.25),
        lambda hu: hu.astype(np.int32),
        lambda hu: hu.astype(">i2"),
        lambda hu: hu[..., None],
        lambda hu: value_set(hu, (slice(0, 2), slice(0, 2)), -2048),  # corners outside the scanner's field of view
        lambda hu: hu[6:35, 6:31],  # the patient fills the picture
    ],
    ids=["padded", "fractions", "int32", "big-endian", "4-D", "corners", "cropped"],
)
def test_other_sound_images_have_no_findings(change, tree):
    hu, label = make_case(0)
    save(tree / VOLUME, change(hu))
    if change(hu).shape[:2] != SHAPE[:2]:
        save(tree / LABEL, change(label))
    assert found_in(tree) == []


def test_scaled_big_endian_and_split_gzip_are_read_as_they_are(tree):
    hu = np.maximum(make_case(0)[0], -1024)
    image = nib.Nifti1Image((hu + 1024).astype(">u2"), AFFINE, nib.Nifti1Header(endianness=">"))
    image.header.set_slope_inter(1, -1024)
    content = image.to_bytes()
    np.testing.assert_array_equal(np.asarray(nib.Nifti1Image.from_bytes(content).dataobj), hu)
    (tree / VOLUME).write_bytes(gzip.compress(content[:4000]) + gzip.compress(content[4000:]) + bytes(7))
    assert found_in(tree) == []


@pytest.mark.parametrize("codes", ["RAS", "LAS", "LPI", "SPL", "PSR", "LPS"])
def test_an_image_exported_again_in_another_order_of_axes_is_a_duplicate(codes, tree):
    """Also with another data type, and if a third copy has the axis order of the second."""
    image = nib.load(tree / VOLUME)
    turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(codes))
    turned = image.as_reoriented(turn)
    save(tree / "volume-1.nii.gz", np.asarray(turned.dataobj).astype(np.float32), turned.affine)
    findings = check(tree)
    found = findings[findings["defect"] == "duplicate"]
    assert found[["file", "level"]].to_numpy().tolist() == [["volume-1.nii.gz", "error"]]
    save(tree / "volume-2.nii.gz", np.asarray(turned.dataobj), AFFINE)  # and without its header
    findings = check(tree)
    assert findings[findings["defect"] == "duplicate"]["file"].tolist() == ["volume-1.nii.gz", "volume-2.nii.gz"]


def test_a_mirrored_image_of_the_same_header_is_none(tree):
    save(tree / "volume-1.nii.gz", make_case(0)[0][::-1])
    assert "duplicate" not in set(check(tree)["defect"])


@pytest.mark.parametrize("pair", [(0, 1), (1, 2), (0, 2)])
def test_sheared_files_are_errors_of_the_check_and_of_a_training(pair, tree):
    """As dcm2niix writes a scan with a tilted gantry, which no ITK program opens."""
    shear = np.eye(4)
    shear[pair] = 0.4
    hu, label = make_case(0)
    save(tree / VOLUME, hu, AFFINE @ shear)
    save(tree / LABEL, label, AFFINE @ shear)
    assert found_in(tree) == [(LABEL, "error", "shear"), (VOLUME, "error", "shear")]
    for read in (read_grid, lambda path: NiftiSlices(path, np.int16)):
        with pytest.raises(GeometryError, match="degrees from right angles"):
            read(tree / VOLUME)


def test_forms_that_disagree_are_a_warning(tree):
    hu, label = make_case(0)
    for name, array in ((VOLUME, hu), (LABEL, label)):
        save(tree / name, array, change=lambda header: header.__setitem__("qoffset_x", 47))
    assert found_in(tree) == [(VOLUME, "warning", "header")]
