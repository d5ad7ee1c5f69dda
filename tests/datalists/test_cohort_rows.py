"""Cohorts: rows that share a mask, and defects reported with their row."""

import fcntl
import os
import re
import struct
import termios
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from cohort_tree import AFFINE, SHAPE, image, label, mask, nifti, png, table
from PIL import Image

from liverseg.datalists import cohort_items
from liverseg.datalists.importers import cohort_masks
from liverseg.datalists.importers.cohort_masks import read_mask_facts
from liverseg.errors import LiversegError
from liverseg.imageio.volume import read_volume

REAL = Path(os.environ.get("LIVERSEG_REAL_DATA") or Path(__file__).parents[3] / "shared" / "realdata")
HEADER = "patient,image,mask,slice,lesion_type"


def test_numbered_lesions_have_types_of_their_own(tmp_path):
    image(tmp_path)
    numbered = mask((1, 7), slices=(2, 3))
    nifti(tmp_path / "m.nii", numbered)
    rows = ["p,ct.nii.gz,m.nii,2,cyst,1", "p,ct.nii.gz,m.nii,2,metastasis,7"]
    items = cohort_items(table(tmp_path, *rows, header=f"{HEADER},lesion"))
    assert [(item.slice, item.lesion_type) for item in items] == [(2, "cyst"), (2, "metastasis")]
    array, _ = label(tmp_path, items[0])
    assert items[0].label == items[1].label
    assert np.array_equal(array, np.select([numbered == 1, numbered == 7], [2, 4]))
    volume_rows = [row.replace(",2,", ",,") for row in rows]
    (item,) = cohort_items(table(tmp_path, *volume_rows, header=f"{HEADER},lesion"))
    assert (item.slice, item.lesion_type) == (None, None)


def test_slices_of_one_mask_have_separate_types(tmp_path):
    image(tmp_path)
    binary = mask(slices=(1, 3))
    nifti(tmp_path / "m.nii", binary)
    items = cohort_items(table(tmp_path, "p,ct.nii.gz,m.nii,1,cyst", "p,ct.nii.gz,m.nii,3,hemangioma"))
    array, _ = label(tmp_path, items[0])
    assert np.array_equal(array, binary * np.array([0, 2, 0, 3, 0]))
    with pytest.raises(LiversegError, match=r"row 2: m\.nii has lesions in slice 3, and its rows name several types"):
        nifti(tmp_path / "m.nii", mask(slices=(1, 2, 3)))
        cohort_items(table(tmp_path, "p,ct.nii.gz,m.nii,1,cyst", "p,ct.nii.gz,m.nii,2,hemangioma"))


def test_whether_a_two_is_a_cyst(tmp_path):
    image(tmp_path)
    image(tmp_path, "other.nii")
    nifti(tmp_path / "m.nii", mask((1, 2)))
    nifti(tmp_path / "typed.nii", mask((1, 2, 4)))
    cyst, met = (f"p,ct.nii.gz,m.nii,2,{kind}" for kind in ("cyst", "metastasis"))
    assert cohort_items(table(tmp_path, cyst))[0].label == "m.nii"
    (item,) = cohort_items(table(tmp_path, met))
    assert {*np.unique(label(tmp_path, item)[0])} == {0, 1, 4}
    typed = "p,other.nii,typed.nii,2,metastasis"
    with pytest.raises(LiversegError, match=r"row 2: m\.nii holds 0, 1, 2 and no 4 for a metastasis"):
        cohort_items(table(tmp_path, met, typed))
    rows = [f"{met},lesion", f"{typed},typed"]
    items = cohort_items(table(tmp_path, *rows, header=f"{HEADER},mask_values"))
    assert items[1].label == "typed.nii" and items[0].label.startswith("nifti/labels/")
    with pytest.raises(LiversegError, match=r"row 2: no 4 for a metastasis in m\.nii"):
        cohort_items(table(tmp_path, f"{met},typed", header=f"{HEADER},mask_values"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("typed.nii,5,cyst", "slice 5; the image has slices 0 to 4"),
        ("typed.nii,5,", "slice 5; the image has slices 0 to 4"),
        ("typed.nii,1,cyst", r"no cyst in slice 1 of typed\.nii; correct type, slice or mask"),
        ("typed.nii,3,cyst", r"no cyst in slice 3 of typed\.nii; correct type, slice or mask"),
        ("beside.nii,2,cyst", r".*beside\.nii: the mask is not on its image.s grid, up to 0\.1 mm off;"),
        ("small.nii,2,cyst", r".*small\.nii: the mask is not on its image.s grid: 11×9×4 voxels for 11×9×5"),
        ("origin.nii,,", r".*origin\.nii: the mask is not on its image.s grid"),
    ],
)
def test_a_typed_mask_that_does_not_fit_is_refused_by_its_row(row, message, tmp_path):
    image(tmp_path)
    typed = mask((1, 2, 4))
    typed[:, :, 3] = np.where(typed[:, :, 2] == 4, 4, 1)
    beside = AFFINE + np.array([[0, 0, 0, 0.1], *[[0] * 4] * 3])
    for name, array, affine in (
        ("typed.nii", typed, AFFINE),
        ("beside.nii", typed, beside),
        ("small.nii", typed[:, :, :4], AFFINE),
        ("origin.nii", typed, np.eye(4)),
    ):
        nifti(tmp_path / name, array, affine)
    sound = ["p,ct.nii.gz,typed.nii,2,cyst", "p,ct.nii.gz,typed.nii,3,metastasis", "p,ct.nii.gz,typed.nii,0,"]
    assert {item.label for item in cohort_items(table(tmp_path, *sound))} == {"typed.nii"}
    with pytest.raises(LiversegError, match=f"row 3: {message}") as error:
        cohort_items(table(tmp_path, sound[0], f"p,ct.nii.gz,{row}"))
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "nifti").exists()


def test_a_typed_mask_in_other_axes_or_as_a_picture_becomes_a_label_map(tmp_path):
    image(tmp_path)
    typed = mask((1, 2, 4))
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = SHAPE[0] - 1
    nifti(tmp_path / "turned.nii", typed[::-1].transpose(2, 0, 1), (AFFINE @ flip)[:, [2, 0, 1, 3]])
    image(tmp_path, "front.nii", affine=np.diag([-1.0, -1, 1, 1]) @ np.abs(AFFINE))
    png(tmp_path / "m.png", typed[:, :, 2].T)
    for row, expected in (("ct.nii.gz,turned.nii", typed), ("front.nii,m.png", typed)):
        (item,) = cohort_items(table(tmp_path, f"p,{row},2,cyst"))
        array, affine = label(tmp_path, item)
        assert np.array_equal(array, expected)
        assert np.allclose(affine, nib.load(tmp_path / item.image).affine)


@pytest.mark.parametrize(("shift", "sound"), [(0.02, True), (0.05, False)])
@pytest.mark.parametrize("turned", [False, True])
def test_a_reoriented_mask_has_the_same_tolerance(turned, shift, sound, tmp_path):
    # the far corner is at 382 mm, so 0.038 mm are within rounding
    far = AFFINE + np.array([[0, 0, 0, 300.0], *[[0] * 4] * 3])
    image(tmp_path, affine=far)
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = SHAPE[0] - 1
    beside = far + np.array([[0, 0, 0, shift], *[[0] * 4] * 3])
    typed = mask((1, 2, 4))
    nifti(tmp_path / "m.nii", typed[::-1] if turned else typed, beside @ flip if turned else beside)
    rows = table(tmp_path, "p,ct.nii.gz,m.nii,2,cyst")
    if sound:
        assert np.array_equal(label(tmp_path, cohort_items(rows)[0])[0], typed)
    else:
        with pytest.raises(LiversegError, match=r"the mask is not on its image.s grid, up to 0\.05 mm"):
            cohort_items(rows)


def test_a_mask_without_conversion_is_read_once(tmp_path, monkeypatch):
    image(tmp_path)
    nifti(tmp_path / "m.nii", mask((1, 2, 4)))
    opened = []
    monkeypatch.setattr(cohort_masks, "read_volume", lambda path: opened.append(path.name) or read_volume(path))
    cohort_items(table(tmp_path, *(f"p,ct.nii.gz,m.nii,{slice},{kind}" for slice, kind in ((2, "cyst"), ("", "")))))
    assert opened == ["m.nii"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["p,ct.nii.gz,one.nii,2,"], "row 2: lesion type ''; allowed: cyst"),
        (["p,ct.nii.gz,one.nii,5,cyst"], "row 2: slice 5; the image has slices 0 to 4"),
        (["p,ct.nii.gz,one.nii,1,cyst"], "row 2: no cyst in slice 1 of one.nii"),
        (["p,ct.nii.gz,many.nii,2,cyst"], r"row 2: many.nii holds 0, 5, 6; allowed: .*column lesion"),
        (
            ["p,ct.nii.gz,beside.nii,2,cyst"],
            r"row 2: .*beside.nii: the mask is not on its image.s grid, up to",
        ),
        (["p,ct.nii.gz,small.nii,2,cyst"], r"row 2: .*small.nii: .*grid: 11×9×4 voxels for 11×9×5"),
        (["p,ct.nii.gz,m.png,,cyst"], "row 2: .*m.png: a PNG is one slice of 5"),
        (["p,ct.nii.gz,turned.png,2,cyst"], "row 2: .*turned.png: 11×9 rows and columns; the image's slice has 9×11"),
        (["p,ct.nii.gz,colour.png,2,cyst"], "row 2: .*colour.png: a coloured PNG"),
        (["p,ct.nii.gz,broken.png,2,cyst"], "row 2: .*broken.png: cannot be read as PNG"),
        (["p,ct.nii.gz,half.nii,2,cyst"], "row 2: .*half.nii: mask values 0.5; whole numbers"),
        (["p,slices.csv,one.nii,2,cyst"], "row 2: .*slices.csv: neither NIfTI nor DICOM"),
        (["p,ct.nii.gz,slices.csv,2,cyst"], "row 2: .*slices.csv: neither NIfTI, PNG nor DICOM"),
        (["p,ct.nii.gz,,2,cyst"], "row 2: no mask"),
        (["p,ct.nii.gz,one.nii,2,cyst"] * 2 + ["p,ct.nii.gz,m.png,2,metastasis"], "row 4: slice 2 .* cyst in row 2"),
        (["p,ct.nii.gz,one.nii,,cyst", "p,ct.nii.gz,one.nii,2,metastasis"], "row 2: cyst for all of .* row 3"),
    ],
)
def test_every_defect_is_reported_with_its_row(rows, message, tmp_path):
    image(tmp_path)
    nifti(tmp_path / "one.nii", mask())
    nifti(tmp_path / "many.nii", mask((5, 6)))
    nifti(tmp_path / "half.nii", mask() * np.float32(0.5))
    beside = np.array([[-0.7, 0, 0, 90.1], [0, -0.8, 0, 60], [0, 0, 2.5, -40], [0, 0, 0, 1.0]])
    nifti(tmp_path / "beside.nii", mask(), beside)
    nifti(tmp_path / "small.nii", mask()[:, :, :4])
    png(tmp_path / "m.png", mask()[:, :, 2].T)
    png(tmp_path / "turned.png", mask()[:, :, 2])
    Image.fromarray(np.stack([mask()[:, :, 2].T * value for value in (9, 0, 0)], -1)).save(tmp_path / "colour.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    with pytest.raises(LiversegError, match=message):
        cohort_items(table(tmp_path, *rows))


NO_HEADER = [
    ("bad.nii", lambda content: b"", "cannot be read as NIfTI"),
    ("bad.nii.gz", lambda content: b"", "cannot be read as NIfTI"),
    ("bad.nii", lambda content: content[:200], "cannot be read as NIfTI"),
    ("bad.nii.gz", lambda content: content[:40], "cannot be read as NIfTI"),
    ("bad.nii.gz", lambda content: b"no NIfTI" * 100, "cannot be read as NIfTI"),
]
FEWER_VOXELS = [
    ("bad.nii", lambda content: content[:400], r"voxels cannot be read .*; is the file truncated\?"),
    ("bad.nii.gz", lambda content: content[:-20], r"voxels cannot be read .*; is the file truncated\?"),
]


def damaged(root, name, damage, row):
    """Write a cohort of a valid row and a row with a damaged NIfTI."""
    image(root)
    nifti(root / "m.nii", mask((1, 2, 4)))
    nifti(root / name, np.random.default_rng(0).integers(0, 5, SHAPE, dtype=np.uint8))
    (root / name).write_bytes(damage((root / name).read_bytes()))
    return table(root, "p,ct.nii.gz,m.nii,2,cyst,", row, header=f"{HEADER},liver_mask")


@pytest.mark.parametrize("row", ["p,ct.nii.gz,{},2,cyst,", "p,ct.nii.gz,m.nii,2,cyst,{}"])
@pytest.mark.parametrize(("name", "damage", "message"), NO_HEADER + FEWER_VOXELS)
def test_a_mask_that_cannot_be_read_is_refused_by_its_row(row, name, damage, message, tmp_path):
    with pytest.raises(LiversegError, match=rf"row 3: .*{name}: {message}") as error:
        cohort_items(damaged(tmp_path, name, damage, row.format(name)))
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "nifti").exists()


@pytest.mark.parametrize(("name", "damage", "message"), NO_HEADER)
def test_an_image_without_a_readable_header_is_refused_by_its_row(name, damage, message, tmp_path):
    with pytest.raises(LiversegError, match=rf"row 3: .*{name}: {message}") as error:
        cohort_items(damaged(tmp_path, name, damage, f"q,{name},m.nii,2,cyst,"))
    assert len(str(error.value).splitlines()) == 1


def test_the_first_row_with_an_unreadable_file_is_reported(tmp_path):
    image(tmp_path)
    nifti(tmp_path / "m.nii", mask())
    (tmp_path / "empty.nii").touch()
    (tmp_path / "none.nii.gz").touch()
    first, second = "p,ct.nii.gz,empty.nii,2,cyst", "q,none.nii.gz,m.nii,2,cyst"
    for rows, name in (([first, second], "empty.nii"), ([second, first], r"none\.nii\.gz")):
        with pytest.raises(LiversegError, match=f"row 2: .*{name}: cannot be read"):
            cohort_items(table(tmp_path, *rows))
    big = tmp_path / "big.nii.gz"  # found long after the empty file
    nifti(big, np.random.default_rng(0).integers(0, 2, (128, 128, 64), dtype=np.uint8))
    big.write_bytes(big.read_bytes()[:-20])
    with pytest.raises(LiversegError, match=r"row 2: .*big\.nii\.gz: voxels cannot be read"):
        cohort_items(table(tmp_path, "p,ct.nii.gz,big.nii.gz,2,cyst", first, second))


@pytest.mark.parametrize("place", [(0, 0, 0), (10, 8, 4), (0, 8, 0), (5, 4, 2)])
def test_a_value_of_a_single_voxel_is_seen(place, tmp_path):
    array = mask((1, 3))
    array[place] = 77
    nifti(tmp_path / "m.nii.gz", array.astype(np.float32))
    png(tmp_path / "m.png", array[:, :, place[2]])
    facts = read_mask_facts(tmp_path / "m.nii.gz", (place[2], 9))
    assert facts.values == {0, 1, 3, 77}
    assert facts.on_slice == {place[2]: {0, 1, 3, 77} if place[2] == 2 else {0, 77}}
    assert read_mask_facts(tmp_path / "m.png").values == ({0, 1, 3, 77} if place[2] == 2 else {0, 77})


def test_the_reading_of_masks_is_shown_on_a_terminal_only(tmp_path, monkeypatch, capfd):
    image(tmp_path)
    nifti(tmp_path / "m.nii", mask())
    png(tmp_path / "m.png", mask()[:, :, 2].T)
    rows = table(tmp_path, "p,ct.nii.gz,m.nii,2,cyst", "p,ct.nii.gz,m.png,3,cyst", "p,ct.nii.gz,m.nii,,cyst")
    cohort_items(rows)
    assert capfd.readouterr() == ("", "")
    outputs = []
    for progress in (True, False):
        reader, writer = os.openpty()
        fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
        with os.fdopen(writer, "w") as terminal, monkeypatch.context() as patched:
            patched.setattr("sys.stderr", terminal)
            cohort_items(rows, progress=progress)
            terminal.write("\nend\n")
            terminal.flush()
            output = b""
            while b"end" not in output:  # a terminal delivers its output in pieces
                output += os.read(reader, 10_000)
            outputs.append(output.decode())
        os.close(reader)
    assert re.search(r"reading: 100%.* 3/3 .*file/s", outputs[0])
    assert outputs[1].split() == ["end"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["2,cyst,1"], "row 2: m.nii has lesion 7, which no row types"),
        (["2,cyst,1", "2,metastasis,3"], "row 3: no lesion 3 in m.nii; it has 1, 7"),
        (["2,cyst,1", "3,metastasis,7"], "row 3: lesion 7 is not in slice 3 of m.nii"),
        (["2,cyst,1", "3,metastasis,1"], "row 3: lesion 1 of m.nii is metastasis, but cyst in row 2"),
        (["2,cyst,1", "2,cyst,"], "row 2: rows of m.nii differ"),
        (["2,cyst,0"], "row 2: lesion '0'; a whole number from 1"),
    ],
)
def test_lesion_numbers_that_are_refused(rows, message, tmp_path):
    image(tmp_path)
    nifti(tmp_path / "m.nii", mask((1, 7)))
    with pytest.raises(LiversegError, match=message):
        cohort_items(table(tmp_path, *(f"p,ct.nii.gz,m.nii,{row}" for row in rows), header=f"{HEADER},lesion"))
