"""Cohorts: images, masks and tables of all formats are converted to joint label maps with the lesions of the masks."""

import json
import logging
import os

import numpy as np
import pandas as pd
import pytest
from cohort_tree import AFFINE, SHAPE, image, label, mask, nifti, png, series, table
from hypothesis import given, settings
from hypothesis import strategies as st

from liverseg.cli.main import main
from liverseg.datalists import build_datalist, cohort_items, read_datalist
from liverseg.datalists.importers.cohort_images import ImageGrid
from liverseg.errors import LiversegError, UsageError
from liverseg.imageio.volume import Volume
from liverseg.labels import LESION, LESION_TYPES

VALUES = {kind: LESION + index for index, kind in enumerate(LESION_TYPES)}


def test_an_excel_table_is_found_and_its_numbers_are_integers(tmp_path):
    image(tmp_path)
    nifti(tmp_path / "m.nii", mask((1, 3)))
    row = {"patient": 12.0, "image": "ct.nii.gz", "mask": "m.nii", "slice": 2.0, "lesion_type": " Hemangioma "}
    pd.DataFrame([row, {**row, "slice": None, "lesion_type": None}]).to_excel(tmp_path / "slices.xlsx", index=False)
    slice_item, volume_item = cohort_items(tmp_path)
    assert (slice_item.patient, slice_item.slice, slice_item.lesion_type) == ("12", 2, "hemangioma")
    assert (volume_item.slice, volume_item.lesion_type, volume_item.label) == (None, None, "m.nii")
    assert not (tmp_path / "nifti").exists()
    table(tmp_path)
    with pytest.raises(LiversegError, match=r"slices\.csv and slices\.xlsx are both there"):
        cohort_items(tmp_path)
    assert len(cohort_items(tmp_path, "slices.xlsx")) == 2


def test_files_that_are_no_excel_table(tmp_path):
    (tmp_path / "slices.xlsx").write_text("patient,image\n")
    with pytest.raises(LiversegError, match=r"slices\.xlsx: not a readable Excel table"):
        cohort_items(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.json", json.dumps({"Haemangioma": "hemangioma", "CRLM": "metastasis", "skip": None})),
        ("t.csv", "word,type\nhaemangioma,hemangioma\n crlm ,metastasis\nskip,\n"),
    ],
)
def test_words_are_mapped_and_rows_left_out(name, content, tmp_path, caplog):
    image(tmp_path)
    nifti(tmp_path / "m.nii", mask((1, 2, 3, 4), slices=range(5)))
    words = ["HAEMANGIOMA", "crlm", "Skip", "Cyst", "skip"]
    table(tmp_path, *(f"p,ct.nii.gz,m.nii,{number},{word}" for number, word in enumerate(words)))
    (tmp_path / name).write_text(content)
    with caplog.at_level(logging.WARNING):
        items = cohort_items(tmp_path, types=tmp_path / name)
    assert [(item.slice, item.lesion_type) for item in items] == [(0, "hemangioma"), (1, "metastasis"), (3, "cyst")]
    assert "2 rows left out" in caplog.text
    with pytest.raises(LiversegError, match=r"row 2: lesion type 'HAEMANGIOMA'; allowed: .*--types"):
        cohort_items(tmp_path, types={"crlm": "metastasis"})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.json", '{"a": "hcc"}', "'a' is mapped to 'hcc'; allowed: cyst"),
        ("t.json", "[]", "a JSON object is needed"),
        ("t.json", "{", "not a readable mapping"),
        ("t.csv", "a,b\n1,2\n", "no column word, its first row holds 'a, b'; it needs word, type, separated by"),
        ("t.csv", "word,type\na,cyst\nA,\n", "'A' is mapped twice"),
        ("t.xlsx", "", r"a \.json or a \.csv"),
    ],
)
def test_mappings_that_are_refused(name, content, message, tmp_path):
    image(tmp_path)
    nifti(tmp_path / "m.nii", mask((2,)))
    table(tmp_path, "p,ct.nii.gz,m.nii,2,cyst")
    (tmp_path / name).write_text(content)
    with pytest.raises(LiversegError, match=message):
        cohort_items(tmp_path, types=tmp_path / name)
    with pytest.raises(LiversegError, match="no such file"):
        cohort_items(tmp_path, types=tmp_path / "none.json")


def test_a_cohort_on_the_command_line(tmp_path):
    for patient in "ab":
        image(tmp_path, f"{patient}.nii")
        nifti(tmp_path / f"{patient}-m.nii", mask((255,)))
    table(tmp_path, *(f"{p},{p}.nii,{p}-m.nii,2,met" for p in "ab"), name="mine.csv")
    (tmp_path / "t.json").write_text('{"met": "metastasis"}')
    options = ["--table", "mine.csv", "--types", str(tmp_path / "t.json"), "--folds", "2"]
    assert main(["datalist", "cohort", str(tmp_path), *options]) == 0
    listed = read_datalist(tmp_path / "datalist.json")
    assert [item.label for item in listed.training] == ["nifti/labels/a.nii.nii.gz", "nifti/labels/b.nii.nii.gz"]
    with pytest.raises(UsageError, match="source lits: table given; allowed for cohort and slices only"):
        build_datalist("lits", tmp_path, table="mine.csv")


AXES = st.permutations(range(3))


@pytest.mark.integration
@settings(max_examples=25, deadline=None)
@given(
    axes=AXES,
    flips=st.tuples(*[st.booleans()] * 3),
    kind=st.sampled_from(LESION_TYPES),
    seed=st.integers(0, 99),
    lits=st.booleans(),
)
def test_the_lesion_pixels_of_a_label_map_are_the_masks(axes, flips, kind, seed, lits, tmp_path_factory):
    root = tmp_path_factory.mktemp("cohort")
    image(root)
    values = np.random.default_rng(seed).integers(0, 3 if lits else 2, SHAPE, dtype=np.uint8)
    turned, affine = values, AFFINE
    for axis in (axis for axis in range(3) if flips[axis]):
        turned = np.flip(turned, axis)
        to_old = np.eye(4)
        to_old[axis, [axis, 3]] = -1, SHAPE[axis] - 1
        affine = affine @ to_old
    nifti(root / "m.nii.gz", turned.transpose(axes), affine[:, [*axes, 3]])
    mask_values = "lesion" if lits else ""
    table(
        root, f"p,ct.nii.gz,m.nii.gz,,{kind},{mask_values}", header="patient,image,mask,slice,lesion_type,mask_values"
    )
    (item,) = cohort_items(root)
    array, affine = label(root, item)
    assert array.dtype == np.uint8 and np.allclose(affine, AFFINE)
    assert np.array_equal(array >= LESION, values == (2 if lits else 1))
    assert {*np.unique(array)} - {0, 1} == {VALUES[kind]}
    assert np.array_equal(array == 1, (values == 1) & lits)


def test_a_flat_image_becomes_one_slice(tmp_path):
    image(tmp_path, "flat.nii", SHAPE[:2])
    nifti(tmp_path / "m.nii", mask()[:, :, 2])
    table(tmp_path, "p,flat.nii,m.nii,0,cyst", "p,flat.nii,m.nii,,cyst")
    items = cohort_items(tmp_path)
    assert [item.slice for item in items] == [0, None]
    array, _ = label(tmp_path, items[0])
    assert array.shape == (*SHAPE[:2], 1)
    assert np.array_equal(array[:, :, 0] == 2, mask()[:, :, 2] == 1)


def test_a_series_and_pictures_become_one_image_and_one_label_map(tmp_path):
    series(tmp_path / "p" / "ct")
    first_mask, second_mask = mask(slices=(1,))[:, :, 1].T, mask((1, 1), slices=(3,))[:, :, 3].T
    png(tmp_path / "one.png", first_mask * 255)
    png(tmp_path / "two.png", second_mask)
    png(tmp_path / "liver.png", np.ones_like(first_mask))
    header = "patient,image,mask,slice,lesion_type,liver_mask"
    table(tmp_path, "p,p/ct,one.png,1,cyst,liver.png", "p,p/ct,two.png,3,metastasis,", header=header)
    items = cohort_items(tmp_path)
    assert {(item.image, item.label) for item in items} == {
        ("nifti/images/p/ct.nii.gz", "nifti/labels/p/ct.nii.gz"),
    }
    array, affine = label(tmp_path, items[0])
    assert np.allclose(affine, AFFINE) and array.shape == SHAPE
    assert np.array_equal(array[:, :, 1], np.where(first_mask, 2, 1).T)
    assert np.array_equal(array[:, :, 3], (second_mask * 4).T)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("nifti/**/*.gz")}
    assert len(written) == 2
    assert cohort_items(tmp_path) == items
    assert {path: path.stat().st_mtime_ns for path in written} == written
    png(tmp_path / "two.png", first_mask)
    os.utime(tmp_path / "two.png", (1, 1))
    cohort_items(tmp_path)
    assert np.array_equal(label(tmp_path, items[0])[0][:, :, 3], (first_mask * 4).T)
    image_path = tmp_path / "nifti/images/p/ct.nii.gz"
    assert image_path.stat().st_mtime_ns == written[image_path]


def test_images_whose_names_differ_by_an_ending_have_separate_label_maps(tmp_path):
    series(tmp_path / "img/p1")
    image(tmp_path, "img/p1.nii.gz")
    image(tmp_path, "img/p1.nii")
    rows = []
    for number, name in enumerate(("img/p1", "img/p1.nii.gz", "img/p1.nii")):
        nifti(tmp_path / f"{number}.nii.gz", mask(slices=(number,)))
        rows.append(f"{number},{name},{number}.nii.gz,{number},cyst")
    items = cohort_items(table(tmp_path, *rows))
    assert len({item.label for item in items}) == 3
    for number, item in enumerate(items):
        assert np.array_equal(label(tmp_path, item)[0], 2 * mask(slices=(number,)))
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("nifti/**/*") if path.is_file()}
    assert len(written) == 8  # three label maps, one image, a record each
    assert cohort_items(tmp_path) == items
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_images_whose_label_maps_would_be_one_file_are_refused(tmp_path):
    root = tmp_path / "cohort"
    image(root, "__/ct.nii")
    image(tmp_path, "ct.nii")
    nifti(root / "m.nii", mask())
    rows = table(root, "p,../ct.nii,m.nii,2,cyst", "q,__/ct.nii,m.nii,2,cyst")
    with pytest.raises(LiversegError, match=r"row 3: __/ct\.nii and \.\./ct\.nii in row 2 would be one file"):
        cohort_items(rows)
    assert not (root / "nifti").exists()


def test_dicom_slice_files(tmp_path):
    series(tmp_path / "ct", (0, 4))
    png(tmp_path / "m.png", mask()[:, :, 2].T)
    table(tmp_path, "p,ct/00.dcm,m.png,,cyst", "q,ct/04.dcm,m.png,0,metastasis")
    items = cohort_items(tmp_path)
    assert [item.image for item in items] == ["nifti/images/ct/00.dcm.nii.gz", "nifti/images/ct/04.dcm.nii.gz"]
    for item, value in zip(items, (2, 4), strict=True):
        array, affine = label(tmp_path, item)
        assert np.array_equal(array[:, :, 0], mask()[:, :, 2] * value)
    assert affine[2, 3] == -30


@settings(max_examples=30, deadline=None)
@given(axes=AXES, flips=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3), number=st.integers(0, 4))
def test_a_picture_is_placed_in_a_nifti_as_a_viewer_shows_it(axes, flips, number):
    shape = tuple(np.array((5, 7, 9))[np.argsort(axes)])
    affine = np.eye(4)
    affine[:3, :3] = np.diag(flips)[:, axes]
    grid = ImageGrid(shape, affine, dicom=False)
    number %= grid.depth
    pixels = np.arange(np.prod(grid.picture_shape())).reshape(grid.picture_shape())
    array = np.full(shape, -1)
    array[grid.plane(number)] = grid.from_rows(pixels)
    axial = Volume(array, affine, None, None).axial
    with_picture = [plane for plane in axial if (plane >= 0).any()]
    assert len(with_picture) == 1 and np.array_equal(with_picture[0], pixels)
