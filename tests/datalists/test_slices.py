"""Sets of 2-D slices: conversion of pictures, DICOM and NIfTI files and their masks, and refused sets."""

import json
from pathlib import Path

import jsonschema
import nibabel as nib
import numpy as np
import pytest
from dicom_files import write_slice
from PIL import Image

from liverseg.cli.main import main
from liverseg.datalists import DataItem, build_datalist, read_datalist, slice_items
from liverseg.datalists.check import check_datalist
from liverseg.datalists.describe import describe_datalist
from liverseg.datasets import SlabDataset
from liverseg.errors import LiversegError, OutputError, UsageError
from liverseg.imageio.volume import read_volume
from liverseg.training import pad_collate

ROWS, COLUMNS = 12, 10
HEADER = "patient,image,mask,slice"
SCHEMA = Path(__file__).parents[2] / "data_lists/schema.json"
PICTURES = {"hu": (0, 255), "pixel_mm": 1.5, "labelled": "liver", "progress": False}


def grey(seed):
    """Write a picture of noise with a bright corner at the patient's right front, which is up and left."""
    pixels = np.random.default_rng(seed).integers(0, 200, (ROWS, COLUMNS)).astype(np.uint8)
    pixels[:2, :3] = 255
    return pixels


def liver(value=255):
    mask = np.zeros((ROWS, COLUMNS), np.uint8)
    mask[3:8, 1:4] = value
    return mask


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def table(root, *rows, header=HEADER):
    (root / "slices.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return root


@pytest.fixture
def pictures(tmp_path):
    """Write a set of PNG of three patients: slices 4, 5 and 9 of a, one slice of b and one of c."""
    root = tmp_path / "set"
    rows = []
    for seed, (patient, number) in enumerate([("a", 5), ("a", 4), ("b", 7), ("a", 9), ("c", 1)]):
        save(root / f"images/{patient}{number}.png", grey(seed))
        save(root / f"masks/{patient}{number}.png", liver())
        rows.append(f"{patient},images/{patient}{number}.png,masks/{patient}{number}.png,{number}")
    return table(root, *rows)


def test_neighbouring_slices_become_volumes_in_the_lists_folder(pictures, tmp_path):
    before = sorted(pictures.rglob("*"))
    path = build_datalist(
        "slices", pictures, output=tmp_path / "out/list.json", folds=3, hu=(0, 255), pixel_mm=1.5, labelled="liver"
    )
    assert sorted(pictures.rglob("*")) == before
    listed = read_datalist(path)
    assert listed.labels == {"0": "background", "1": "liver", "2": "lesion"}
    assert listed.source == "slices of set; assumed: pixels of 1.5 mm, slices 5 mm apart"
    assert [(item.patient, item.image) for item in listed.training] == [
        ("a", "nifti/images/a-0004.nii.gz"),
        ("a", "nifti/images/a-0009.nii.gz"),
        ("b", "nifti/images/b-0007.nii.gz"),
        ("c", "nifti/images/c-0001.nii.gz"),
    ]
    assert {(item.labelled, item.clipped_hu, item.slice) for item in listed.training} == {(("liver",), (0, 255), None)}
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["training"][0]["clipped_hu"] == [0, 255]
    jsonschema.validate(content, json.loads(SCHEMA.read_text(encoding="utf-8")))
    volume, label = (
        read_volume(path.parent / listed.training[0].image),
        read_volume(path.parent / listed.training[0].label),
    )
    assert volume.array.dtype == np.int16 and label.array.dtype == np.uint8
    assert volume.spacing == (1.5, 1.5, 5.0)
    assert np.array_equal(volume.axial, np.stack([grey(1), grey(0)]))  # slice 4, then 5: feet to head
    assert np.array_equal(label.axial, np.stack([liver(1)] * 2))
    # up and left in the picture is front and right in the body, the positive directions of RAS+
    bright, dark = (volume.affine @ [column, row, 0, 1] for column, row in ((0, 0), (COLUMNS - 1, ROWS - 1)))
    assert bright[0] > dark[0] and bright[1] > dark[1]


def test_the_import_goes_on_and_writes_nothing_again(pictures):
    def made():
        return {path: path.stat().st_mtime_ns for path in (pictures / "nifti").rglob("*.nii.gz")}

    slice_items(pictures, **PICTURES)
    first = made()
    slice_items(pictures, **PICTURES)
    assert made() == first
    (pictures / "nifti/labels/b-0007.nii.gz").unlink()
    save(pictures / "masks/c1.png", liver()[::-1])
    slice_items(pictures, **PICTURES)
    changed = {path.name for path, time in made().items() if first[path] != time}
    assert changed == {"b-0007.nii.gz", "c-0001.nii.gz"}
    slice_items(pictures, **{**PICTURES, "slice_mm": 3})
    assert read_volume(pictures / "nifti/images/c-0001.nii.gz").spacing == (1.5, 1.5, 3.0)


def test_a_missing_neighbour_is_repeated_and_the_range_of_hu_comes_with_each_slab(pictures, tmp_path):
    items = slice_items(pictures, **PICTURES)
    full = DataItem("ct.nii.gz", "label.nii.gz", "d")
    for name, array in (("ct", grey(8)), ("label", liver(1))):
        nib.save(
            nib.Nifti1Image(array.T[:, :, None].astype(np.int16), np.diag([-1, -1, 1, 1])), pictures / f"{name}.nii.gz"
        )
    for cache in (None, tmp_path / "cache"):
        dataset = SlabDataset([*items, full], pictures, cache, labels=3, progress=False)
        assert len(dataset) == 6
        low, high = grey(1), grey(0)
        assert np.array_equal(dataset[0]["image"], np.stack([low, low, high]))
        assert np.array_equal(dataset[1]["image"], np.stack([low, high, high]))
        assert np.array_equal(dataset[2]["image"], np.stack([grey(3)] * 3))
        batch = pad_collate([dataset[k] for k in range(6)])
        assert batch["hu_range"].dtype == dataset[0]["hu_range"].dtype
        assert batch["hu_range"].tolist() == [[0, 255]] * 5 + [[-np.inf, np.inf]]


def test_slices_that_were_clipped_are_read_without_warnings_and_others_are_not_taken_for_such(
    pictures, tmp_path, caplog
):
    path = build_datalist("slices", pictures, folds=3, **{k: v for k, v in PICTURES.items() if k != "progress"})
    SlabDataset(read_datalist(path).training, pictures, tmp_path / "cache", labels=3, progress=False)
    assert not caplog.records
    assert check_datalist(path, pictures, progress=False).empty
    table_ = describe_datalist(path, pictures, progress=False).table
    assert table_.loc["volumes clipped to 0 to 255 HU", "all"] == "4"
    content = json.loads(path.read_text(encoding="utf-8"))
    for item in content["training"]:
        item["clipped_hu"] = [10, 255]
    path.write_text(json.dumps(content), encoding="utf-8")
    message = "its data list says that HU are clipped to 10 to 255; correct clipped_hu or the image"
    found = check_datalist(path, pictures, progress=False)
    assert len(found) == 4 and all(message in finding for finding in found["found"])
    with pytest.raises(LiversegError, match=message):  # although the cache has it under another name
        SlabDataset(read_datalist(path).training, pictures, tmp_path / "cache", labels=3, progress=False)


@pytest.mark.parametrize(
    ("hu", "pixels", "expected"),
    [
        ((0, 255), [0, 100, 255], [0, 100, 255]),
        ((-100, 240), [0, 51, 255], [-100, -32, 240]),
        ((-1024, 3071), np.array([0, 1024, 65535], np.uint16), [-1024, -960, 3071]),
    ],
)
def test_the_lowest_and_highest_value_that_can_be_stored_are_the_range(hu, pixels, expected, tmp_path):
    pixels = np.asarray(pixels, getattr(pixels, "dtype", np.uint8))[None]
    save(tmp_path / "a.png", pixels)
    save(tmp_path / "m.png", np.ones((1, 3), np.uint8))
    (item,) = slice_items(table(tmp_path, "p,a.png,m.png,3"), **{**PICTURES, "hu": hu})
    assert read_volume(tmp_path / item.image).axial.ravel().tolist() == expected
    assert item.clipped_hu == hu


def test_grey_pictures_of_any_kind_are_read_and_jpeg_is_warned_of_once(tmp_path, caplog):
    pixels = np.full((16, 16), 90, np.uint8)
    pixels[4:9, 4:9] = 160
    save(tmp_path / "rgb.png", np.repeat((pixels + 1)[..., None], 3, axis=2))
    Image.fromarray(pixels + 2).convert("P").save(tmp_path / "palette.png")
    for number in range(2):
        save(tmp_path / f"{number}.jpg", pixels + 5 * number, quality=95)
    save(tmp_path / "m.png", pixels > 100)
    names = ["rgb.png", "palette.png", "0.jpg", "1.jpg"]
    root = table(tmp_path, *(f"p{n},{name},m.png,1" for n, name in enumerate(names)))
    volumes = [read_volume(root / item.image).axial[0] for item in slice_items(root, **PICTURES)]
    assert np.array_equal(volumes[0], pixels + 1) and np.array_equal(volumes[1], pixels + 2)
    assert np.abs(volumes[2] - pixels.astype(int)).max() < 20
    assert [record.message for record in caplog.records] == [
        f"{root}: JPEG changes HU; take the originals where there are any"
    ]


def test_masks_of_the_label_table_and_types(tmp_path):
    mask = liver(1)
    mask[4, 2] = 2
    for number in (1, 2):
        save(tmp_path / f"{number}.png", grey(number))
    save(tmp_path / "m.png", mask)
    options = {**PICTURES, "labelled": None}
    items = slice_items(table(tmp_path, "p,1.png,m.png,1", "p,2.png,m.png,2"), **options)
    assert [(item.labelled, item.slice, item.lesion_type) for item in items] == [(None, None, None)]
    assert np.array_equal(read_volume(tmp_path / items[0].label).axial, [mask, mask])
    typed = table(tmp_path, "p,1.png,m.png,1,Cyst", "q,2.png,m.png,2,", header=f"{HEADER},lesion_type")
    path = build_datalist("slices", typed, folds=2, hu=(0, 255), pixel_mm=1)
    listed = read_datalist(path)
    assert len(listed.labels) == 5
    assert [(item.slice, item.lesion_type) for item in listed.training] == [(0, "cyst"), (0, None)]
    wrong = table(tmp_path, "p,1.png,m.png,1,metastasis", header=f"{HEADER},lesion_type")
    with pytest.raises(LiversegError, match=r"row 2: no metastasis in m\.png, which holds 0, 1, 2"):
        slice_items(wrong, **options)


def test_dicom_slices_bring_hu_size_and_place(tmp_path):
    pixels = np.arange(ROWS * COLUMNS, dtype=np.int16).reshape(ROWS, COLUMNS)
    for number in range(3):  # numbered from head to feet
        write_slice(tmp_path / f"{number}.dcm", pixels - 200 * number, (-90, -60, 40 - 2.5 * number))
        save(tmp_path / f"{number}.png", np.roll(liver(1), number, axis=0))
    root = table(tmp_path, *(f"p,{n}.dcm,{n}.png,{n}" for n in range(3)))
    (item,) = slice_items(root, labelled="liver", progress=False)
    assert item.clipped_hu is None
    volume, label = read_volume(root / item.image), read_volume(root / item.label)
    assert np.array_equal(volume.axial, np.stack([pixels - 400, pixels - 200, pixels]))
    assert np.array_equal(label.axial, np.stack([np.roll(liver(1), n, axis=0) for n in (2, 1, 0)]))
    assert volume.axial_spacing == pytest.approx((2.5, 0.8, 0.7))
    # LPS -90, -60 is RAS 90, 60; the lowest slice is at 35 mm
    assert volume.axial_affine[:3, 3] == pytest.approx([90, 60, 35])


def test_unevenly_spaced_dicom_neighbours_are_refused(tmp_path):
    for number, place in enumerate((0, 2.5, 10)):
        write_slice(tmp_path / f"{number}.dcm", grey(number).astype(np.int16), (0, 0, place))
    save(tmp_path / "m.png", liver(1))
    root = table(tmp_path, *(f"p,{n}.dcm,m.png,{n}" for n in range(3)))
    with pytest.raises(LiversegError, match=r"slices 0 to 2 of patient p are not evenly spaced, 2\.5, 7\.5 mm apart"):
        slice_items(root, labelled="liver", progress=False)


def test_nifti_slices_in_any_order_of_axes(tmp_path):
    hu = grey(0).astype(np.int16) - 150
    affine = np.diag([0.9, 0.8, 3, 1.0])  # RAS: columns to the right, rows to the front
    nib.save(nib.Nifti1Image(hu[::-1, ::-1].T, affine), tmp_path / "ct.nii")
    nib.save(nib.Nifti1Image(liver(1)[::-1, ::-1].T[:, :, None], affine), tmp_path / "mask.nii.gz")
    save(tmp_path / "mask.png", liver(1))
    save(tmp_path / "ct.png", grey(1))
    first, second = (
        slice_items(table(tmp_path, f"p,ct.nii,{mask},4"), labelled="liver", slice_mm=7, progress=False)[0]
        for mask in ("mask.nii.gz", "mask.png")
    )
    volume = read_volume(tmp_path / first.image)
    assert np.array_equal(volume.axial[0], hu)
    assert volume.axial_spacing == pytest.approx((7, 0.8, 0.9))
    for item in (first, second):
        assert np.array_equal(read_volume(tmp_path / item.label).axial[0], liver(1))
    (item,) = slice_items(table(tmp_path, "p,ct.png,mask.nii.gz,4"), **PICTURES)
    assert np.array_equal(read_volume(tmp_path / item.label).axial[0], liver(1))


def test_a_nifti_volume_or_a_normalised_image_is_no_slice(tmp_path):
    save(tmp_path / "m.png", liver(1))
    nib.save(nib.Nifti1Image(np.zeros((COLUMNS, ROWS, 2), np.int16), np.eye(4)), tmp_path / "v.nii")
    nib.save(
        nib.Nifti1Image(np.linspace(0, 1, 120, dtype=np.float32).reshape(10, 12, 1), np.eye(4)), tmp_path / "n.nii"
    )
    for name, message in (("v.nii", "a volume of 2 slices"), ("n.nii", "do not look like a CT in HU")):
        with pytest.raises(LiversegError, match=rf"row 2: .*{name}: .*{message}"):
            slice_items(table(tmp_path, f"p,{name},m.png,1"), labelled="liver", progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hu": None}, r"row 2: images/a5\.png has no HU; give --hu LOW:HIGH"),
        ({"pixel_mm": None}, r"row 2: images/a5\.png has no pixel size; give --pixel-mm"),
        ({"hu": (255, 0)}, "hu 255:0; LOW:HIGH is needed, the lower first, within -1024 to 3071 HU"),
        ({"hu": (7, 7)}, "hu 7:7"),
        ({"hu": "0:255"}, "hu '0:255'; two numbers in HU are needed"),
        ({"hu": (float("nan"), 7)}, "hu nan:7"),
        ({"hu": (-2000, 255)}, "hu -2000:255"),
        ({"hu": (0, 4095)}, "hu 0:4095"),
        ({"pixel_mm": 0}, "pixel_mm 0; 0.1 to 10 mm are allowed"),
        ({"pixel_mm": float("nan")}, "pixel_mm nan"),
        ({"slice_mm": -5}, "slice_mm -5; 0.1 to 100 mm are allowed"),
    ],
)
def test_missing_options_are_refused_before_images_are_read(change, message, pictures):
    for path in pictures.glob("*/*.png"):
        path.write_bytes(b"unreadable")
    with pytest.raises(UsageError, match=message):
        slice_items(pictures, **{**PICTURES, **change})


@pytest.mark.parametrize(("option", "flag"), [({"hu": (0, 255)}, "--hu"), ({"pixel_mm": 1}, "--pixel-mm")])
def test_options_for_files_with_a_header_are_refused(option, flag, tmp_path):
    for name in ("a.dcm", "m.png"):
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match=rf"a\.dcm is no PNG or JPEG and has it in its header; leave {flag} out"):
        slice_items(table(tmp_path, "p,a.dcm,m.png,1"), **option)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,images/new.png,masks/a4.png,4", "slice 4 of patient a is in row 3 already; each number is one slice"),
        ("b,images/a4.png,masks/a4.png,4", r"images/a4\.png is in row 3 already; take one out"),
        (
            "b,images/copy.png,masks/a4.png,4",
            r"copy\.png of patient b has the pixels of images/a4\.png of patient a in",
        ),
        ("b,images/new.png,masks/a4.png,", "no slice number"),
        ("b,images/gone.png,masks/a4.png,4", r"gone\.png does not exist"),
        ("b,images/small.png,masks/a4.png,4", r"12×10 rows and columns; the image's slice has 5×10"),
        ("a,images/small.png,masks/small.png,6", r"small\.png has 5×10 rows and columns, its neighbour in row 3 12×10"),
        ("b,images/new.png,masks/m.jpg,4", r"m\.jpg: a JPEG changes the values of a mask; save masks as PNG"),
        ("b,images/new.png,masks/other.png,4", r"other\.png holds 0, 2; labelled liver allows 0, and 1 or 255"),
        ("b,images/colour.png,masks/a4.png,4", r"colour\.png: a coloured picture"),
        ("b,images/bits.png,masks/a4.png,4", r"bits\.png: pixels of mode 1; grey values of 8 or 16 bits"),
        ("b,images/turned.jpg,masks/a4.png,4", r"turned\.jpg: its EXIF says that it is shown turned \(6\)"),
        ("b,images/text.png,masks/a4.png,4", r"text\.png: cannot be read as PNG"),
        ("b,images/png.jpg,masks/a4.png,4", r"png\.jpg: cannot be read as JPEG"),
        ("b,slices.csv,masks/a4.png,4", "is no PNG or JPEG"),
        (
            "A,images/new.png,masks/a4.png,4",
            "patients a and A would have one file|patients A and a would have one file",
        ),
    ],
)
def test_rows_that_are_refused_in_one_line(row, message, pictures):
    colour = np.zeros((ROWS, COLUMNS, 3), np.uint8)
    colour[..., 0] = 9
    for name, pixels in {
        "images/new.png": grey(20),
        "images/copy.png": grey(1),
        "images/small.png": grey(21)[:5],
        "masks/small.png": liver()[:5],
        "masks/other.png": liver(2),
        "masks/m.jpg": liver(),
        "images/colour.png": colour,
        "images/bits.png": grey(22) > 100,
    }.items():
        save(pictures / name, pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    save(pictures / "images/turned.jpg", grey(23), exif=exif)
    (pictures / "images/text.png").write_text("no picture")
    (pictures / "images/png.jpg").write_bytes((pictures / "images/new.png").read_bytes())
    table_ = pictures / "slices.csv"
    table_.write_text(table_.read_text(encoding="utf-8") + row + "\n")
    with pytest.raises(LiversegError, match=message) as caught:
        slice_items(pictures, **PICTURES)
    assert "\n" not in str(caught.value)
    assert "row " in str(caught.value)
    assert not (pictures / "nifti").exists()


def test_a_folder_that_cannot_be_written_is_one_line(pictures, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file/nifti: the folder cannot be created") as caught:
        slice_items(pictures, tmp_path / "file", **PICTURES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [0, 2, 255])
def test_masks_that_cannot_be_read_as_asked(value, tmp_path):
    save(tmp_path / "a.png", grey(0))
    save(tmp_path / "m.png", liver(value))
    root = table(tmp_path, "p,a.png,m.png,1")
    messages = {
        0: "no mask holds a liver",
        2: "labelled liver allows",
        255: "for masks of the liver alone give --labelled",
    }
    with pytest.raises(LiversegError, match=messages[value]):
        slice_items(root, **{**PICTURES, "labelled": None if value == 255 else "liver"})


def test_columns_of_a_cohort_are_not_passed_over(pictures):
    save(pictures / "images/x.png", grey(30))
    root = table(pictures, "p,images/x.png,masks/a4.png,1,masks/a5.png", header=f"{HEADER},liver_mask")
    with pytest.raises(LiversegError, match="row 2: a column liver_mask, which a set of slices does not have"):
        slice_items(root, **PICTURES)
    root = table(pictures, "p,images/x.png,masks/a4.png,1,cyst", header=f"{HEADER},lesion_type")
    with pytest.raises(LiversegError, match="row 2: lesion_type cyst, and masks labelled liver; give one of the two"):
        slice_items(root, **PICTURES)


@pytest.mark.parametrize(
    "value", [[0], [5, 5], [9, 3], ["0", "255"], [0, True], "0:255", {"low": 0}, [0, float("inf")]]
)
def test_what_clipped_hu_cannot_be(value, tmp_path):
    content = {"training": [{"image": "a.nii", "label": "b.nii", "patient": "p", "fold": 0, "clipped_hu": value}]}
    (tmp_path / "datalist.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(
        LiversegError, match=r"has clipped_hu .*; two numbers in HU are needed, the lower first, or none"
    ):
        read_datalist(tmp_path / "datalist.json")


def test_an_image_is_clipped_to_one_range_in_all_its_items(tmp_path):
    items = [{"image": "a.nii", "label": "b.nii", "patient": "p", "fold": 0, "slice": k} for k in range(2)]
    content = {"training": [items[0], {**items[1], "clipped_hu": [0, 255]}]}
    (tmp_path / "datalist.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(LiversegError, match=r"a\.nii has clipped_hu none and \[0, 255\]; give all its items the same"):
        read_datalist(tmp_path / "datalist.json")


def test_the_command_takes_a_range_that_begins_with_a_minus_sign(pictures, tmp_path, capsys):
    options = ["--pixel-mm", "1.5", "--labelled", "liver", "--folds", "3", "--name", "mine"]
    target = tmp_path / "out" / "datalist.json"
    assert main(["datalist", "slices", str(pictures), "--hu", "-100:240", "-o", str(target), *options]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{target}\n"
    assert "--dataset-dir" not in captured.err
    assert read_datalist(target).training[0].clipped_hu == (-100, 240)
    for hu, message in (("0-255", "'0-255': LOW:HIGH is needed"), ("255:0", "hu 255:0; LOW:HIGH is needed")):
        assert main(["datalist", "slices", str(pictures), "--hu", hu, *options]) == 2
        assert message in capsys.readouterr().err
