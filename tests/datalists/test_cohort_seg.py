"""Cohorts: masks as DICOM SEG of all segmentation types."""

import logging

import numpy as np
import pydicom
import pytest
from cohort_tree import AFFINE, SHAPE, image, label, mask, nifti, segmentation, series, table
from tqdm.contrib.concurrent import thread_map

from liverseg.datalists import cohort_items
from liverseg.datalists.importers import cohort, cohort_table
from liverseg.datalists.importers.cohort_images import ImageGrid
from liverseg.datalists.importers.cohort_masks import read_mask
from liverseg.errors import LiversegError

HEADER = "patient,image,mask,slice,lesion_type"


LIVER, ONE, TWO = mask((1, 1, 1), slices=(1, 2, 3)) > 0, mask() == 1, mask((3, 1), slices=(1,)) == 1


def test_a_seg_gives_liver_and_lesions(tmp_path):
    series(tmp_path / "ct")
    segmentation(tmp_path / "s.dcm", tmp_path / "ct", [("Liver", LIVER), ("Liver tumor", ONE), ("b", TWO)])
    (item,) = cohort_items(table(tmp_path, "p,ct,s.dcm,,metastasis"))
    array, _ = label(tmp_path, item)
    assert array.shape == SHAPE
    assert np.array_equal(array, np.select([ONE | TWO, LIVER], [4, 1]))
    rows = ["p,ct,s.dcm,2,metastasis,2", "p,ct,s.dcm,1,cyst,3"]
    items = cohort_items(table(tmp_path, *rows, header=f"{HEADER},lesion"))
    assert np.array_equal(label(tmp_path, items[0])[0], np.select([ONE, TWO, LIVER], [4, 2, 1]))
    with pytest.raises(LiversegError, match=r"row 2: .*00\.dcm: DICOM, but no segmentation"):
        cohort_items(table(tmp_path, "p,ct,ct/00.dcm,,metastasis"))


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
def test_segments_that_share_pixels(kind, tmp_path):
    series(tmp_path / "ct")
    wide = mask((1, 1), slices=(2, 3)) == 1
    wide[2, 1, 2] = False  # so that each has pixels without overlap
    hidden = ONE & wide

    def items(*parts, types):
        segmentation(tmp_path / "s.dcm", tmp_path / "ct", [("Liver", LIVER), *zip("ab", parts, strict=True)], kind)
        rows = [f"p,ct,s.dcm,2,{lesion_type},{number}" for number, lesion_type in enumerate(types, 2)]
        return cohort_items(table(tmp_path, *rows, header=f"{HEADER},lesion"))

    for parts in ((ONE, wide), (wide, ONE), (hidden, wide), (wide, hidden)):
        (item,) = items(*parts, types=["metastasis"] * 2)
        assert np.array_equal(label(tmp_path, item)[0], np.select([parts[0] | parts[1], LIVER], [4, 1]))
        with pytest.raises(LiversegError, match=r"row 3: s\.dcm has pixels of a (cyst|metastasis) and of a ") as error:
            items(*parts, types=["cyst", "metastasis"])
        assert len(str(error.value).splitlines()) == 1
        with pytest.raises(LiversegError, match=r"row 2: s\.dcm has lesion 3, which no row types"):
            items(*parts, types=["cyst"])


@pytest.mark.parametrize("seed", range(3))
def test_every_segment_is_complete_however_many_share_a_pixel(seed, tmp_path):
    series(tmp_path / "ct")
    parts = np.random.default_rng(seed).random((4, *SHAPE)) < 0.5
    segmentation(tmp_path / "s.dcm", tmp_path / "ct", [*zip("abcd", parts, strict=True)])
    placed = read_mask(tmp_path / "s.dcm", ImageGrid(SHAPE, AFFINE, dicom=True), None)
    assert placed.numbers == [1, 2, 3, 4]
    for number, part in enumerate(parts, 1):
        assert np.array_equal(placed.lesion(number), part)


@pytest.mark.parametrize("numbers", [(1, 2, 3), (7, 3, 300)])
def test_a_label_map_seg_gives_liver_and_lesions(numbers, tmp_path):
    series(tmp_path / "ct")
    named = zip(numbers, ["Liver", "Liver tumor", "b"], [LIVER & ~ONE & ~TWO, ONE, TWO], strict=True)
    order, names, arrays = zip(*sorted(named, key=lambda segment: segment[0]), strict=True)
    parts = [*zip(names, arrays, strict=True)]
    segmentation(tmp_path / "s.dcm", tmp_path / "ct", parts, "LABELMAP", order)
    assert {*np.unique(pydicom.dcmread(tmp_path / "s.dcm").pixel_array)} == {0, *numbers}
    (item,) = cohort_items(table(tmp_path, "p,ct,s.dcm,,metastasis"))
    assert np.array_equal(label(tmp_path, item)[0], np.select([ONE | TWO, LIVER], [4, 1]))
    rows = [f"p,ct,s.dcm,2,metastasis,{numbers[1]}", f"p,ct,s.dcm,1,cyst,{numbers[2]}"]
    items = cohort_items(table(tmp_path, *rows, header=f"{HEADER},lesion"))
    assert [(item.slice, item.lesion_type) for item in items] == [(2, "metastasis"), (1, "cyst")]
    assert np.array_equal(label(tmp_path, items[0])[0], np.select([ONE, TWO, LIVER], [4, 2, 1]))


@pytest.mark.parametrize("fractional", ["PROBABILITY", "OCCUPANCY"])
def test_of_a_fractional_seg_more_than_half_is_inside(fractional, tmp_path):
    series(tmp_path / "ct")
    shares = np.random.default_rng(0).integers(0, 256, SHAPE) / 255
    assert {127 / 255, 128 / 255} <= {*shares.flat}  # the values next to a half
    shares[1] = 0
    parts = [("Liver", LIVER * 0.9), ("a", shares), ("liver cyst", TWO * 0.49)]
    segmentation(tmp_path / "s.dcm", tmp_path / "ct", parts, "FRACTIONAL", fractional=fractional)
    (item,) = cohort_items(table(tmp_path, "p,ct,s.dcm,,hemangioma"))
    assert np.array_equal(label(tmp_path, item)[0], np.select([shares > 0.5, LIVER], [3, 1]))
    rows = table(tmp_path, "p,ct,s.dcm,,hemangioma,2", "p,ct,s.dcm,,cyst,3", header=f"{HEADER},lesion")
    with pytest.raises(LiversegError, match=r"row 3: no lesion 3 in s\.dcm; it has 2"):
        cohort_items(rows)


def test_a_fractional_seg_with_another_maximum(tmp_path):
    series(tmp_path / "ct")
    segmentation(tmp_path / "s.dcm", tmp_path / "ct", [("a", ONE * 0.4 + TWO * 0.2)], "FRACTIONAL")
    seg = pydicom.dcmread(tmp_path / "s.dcm")
    assert {*np.unique(seg.pixel_array)} == {0, 51, 102}
    seg.MaximumFractionalValue = 102
    seg.save_as(tmp_path / "s.dcm")
    (item,) = cohort_items(table(tmp_path, "p,ct,s.dcm,2,cyst"))
    assert np.array_equal(label(tmp_path, item)[0], ONE * 2)


def relabelled(path, values, **tags):
    """Change pixel values and tags of a label map SEG."""
    seg = pydicom.dcmread(path)
    pixels = seg.pixel_array
    seg.PixelData = np.array([values.get(value, value) for value in range(256)], np.uint8)[pixels].tobytes()
    for tag, value in tags.items():
        setattr(seg, tag, value)
    seg.save_as(path)


def test_the_background_of_a_label_map_seg(tmp_path):
    series(tmp_path / "ct")
    rows = table(tmp_path, "p,ct,s.dcm,,metastasis")
    for values, tags in (({0: 255}, {"PixelPaddingValue": 255}), ({}, {})):
        segmentation(tmp_path / "s.dcm", tmp_path / "ct", [("Liver", LIVER & ~ONE), ("a", ONE)], "LABELMAP")
        relabelled(tmp_path / "s.dcm", values, **tags)
        if not tags:
            seg = pydicom.dcmread(tmp_path / "s.dcm")
            del seg.PixelPaddingValue
            seg.save_as(tmp_path / "s.dcm")
        (item,) = cohort_items(rows)
        assert np.array_equal(label(tmp_path, item)[0], np.select([ONE, LIVER], [4, 1]))
    segmentation(tmp_path / "s.dcm", tmp_path / "ct", [("a", ONE), ("b", TWO)], "LABELMAP")
    relabelled(tmp_path / "s.dcm", {2: 0, 0: 2}, PixelPaddingValue=2)
    with pytest.raises(LiversegError, match=r"row 2: .*s\.dcm: a segment of number 0; number them from 1"):
        cohort_items(rows)


def test_a_seg_with_pixels_of_a_segment_it_does_not_describe(tmp_path):
    series(tmp_path / "ct")
    segmentation(tmp_path / "s.dcm", tmp_path / "ct", [("a", ONE), ("b", TWO)], "LABELMAP")
    relabelled(tmp_path / "s.dcm", {2: 9})
    with pytest.raises(LiversegError, match=r"row 2: .*s\.dcm: pixels of segment 9, but segments described are 1, 2;"):
        cohort_items(table(tmp_path, "p,ct,s.dcm,,cyst"))


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_a_truncated_seg_is_refused_by_its_row(kind, tmp_path):
    series(tmp_path / "ct")
    segmentation(tmp_path / "s.dcm", tmp_path / "ct", [("a", ONE)], kind)
    content = (tmp_path / "s.dcm").read_bytes()
    for length in (len(content) - 8, len(content) // 2, 140):
        (tmp_path / "s.dcm").write_bytes(content[:length])
        with pytest.raises(
            LiversegError, match=r"row 2: .*s\.dcm: (cannot be read as DICOM SEG|DICOM, but no seg)"
        ) as error:
            cohort_items(table(tmp_path, "p,ct,s.dcm,,cyst"))
        assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("again", [False, True])
def test_label_maps_without_a_liver_are_reported_once(again, tmp_path, caplog):
    series(tmp_path / "ct")
    rows = ["p,ct,s.dcm,2,cyst,"]
    segmentation(tmp_path / "s.dcm", tmp_path / "ct", [("a", mask() == 1)])
    kinds = {"binary": mask(), "grey": mask((255,)), "lits": mask((1, 2)), "typed": mask((2, 2)), "liver": mask()}
    for name, array in kinds.items():
        image(tmp_path, f"{name}-ct.nii")
        nifti(tmp_path / f"{name}.nii", array)
        rows.append(f"p,{name}-ct.nii,{name}.nii,2,cyst,{'lits.nii' if name == 'liver' else ''}")
    header = "patient,image,mask,slice,lesion_type,liver_mask"
    rows = table(tmp_path, *rows, header=header)
    if again:
        cohort_items(rows)
        caplog.clear()
    with caplog.at_level(logging.WARNING):
        cohort_items(rows)
    (warning,) = caplog.messages
    assert warning == (
        f"{tmp_path}: 4 of 6 label maps hold no liver, as nifti/labels/ct.nii.gz; a network trained on them learns the "
        "liver as background: add a column liver_mask"
    )
    segmentation(tmp_path / "s.dcm", tmp_path / "ct", [("a", mask() == 1), ("Liver", mask((1, 1)) == 1)])
    caplog.clear()
    cohort_items(rows)
    assert caplog.messages[0].startswith(f"{tmp_path}: 3 of 6 label maps hold no liver, as nifti/labels/binary-ct.nii.")


def test_dicom_images_are_converted_with_a_bar(tmp_path, monkeypatch):
    for name in "cab":
        series(tmp_path / name)
    image(tmp_path, "d.nii")
    nifti(tmp_path / "m.nii", mask())
    bars = []

    def map_with_bar(function, jobs, **options):
        bars.append((options["desc"], len(jobs)))
        return thread_map(function, jobs, **options)

    monkeypatch.setattr(cohort_table, "thread_map", map_with_bar)
    rows = table(tmp_path, *(f"{name},{name},m.nii,2,cyst" for name in ("c", "a", "d.nii", "b")))
    items = cohort_items(rows)
    assert [item.patient for item in items] == ["c", "a", "d.nii", "b"]
    assert bars == [("reading", 2), ("converting", 3)]
    first = (tmp_path / items[0].image).read_bytes()
    monkeypatch.setattr(cohort, "_CONVERTERS", 1)
    (tmp_path / items[0].image).unlink()
    assert cohort_items(rows) == items
    assert len((tmp_path / items[0].image).read_bytes()) == len(first)
