"""The square around the liver: it contains the complete liver, and its position is known."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from liverseg.transforms import LiverCropd
from liverseg.transforms.liver_crop import liver_box


def slice_with_liver(shape, rows, columns):
    label = torch.zeros(shape, dtype=torch.uint8)
    label[slice(*rows), slice(*columns)] = 1
    return label


@pytest.mark.parametrize(
    ("rows", "columns", "box"),
    [
        ((40, 50), (60, 70), (35, 55, 20, 20)),  # around the middle of a small liver
        ((0, 10), (90, 100), (0, 80, 20, 20)),  # at the slice's edge
        ((10, 70), (40, 50), (8, 35, 64, 20)),  # a liver taller than the square
        ((0, 0), (0, 0), (0, 0, 100, 100)),  # no liver: the full slice
    ],
)
def test_where_the_square_is(rows, columns, box):
    assert liver_box(slice_with_liver((100, 100), rows, columns), 20) == box


@given(
    shape=st.tuples(st.integers(8, 60), st.integers(8, 60)),
    size=st.integers(1, 80),
    corners=st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
def test_crop_contains_the_liver_and_is_inside_the_slice(shape, size, corners):
    rows = sorted(int(share * shape[0]) for share in corners[:2])
    columns = sorted(int(share * shape[1]) for share in corners[2:])
    label = slice_with_liver(shape, rows, columns)
    row, column, height, width = liver_box(label, size)
    assert 0 <= row <= row + height <= shape[0]
    assert 0 <= column <= column + width <= shape[1]
    assert height >= min(size, shape[0])
    assert label[row : row + height, column : column + width].sum() == label.sum()


def test_a_square_of_larger_pixels():
    # pixels of 1.5 mm: three rows each, two columns each, and a liver of 20 rows and 60 columns, 7 and 30 of these
    label = slice_with_liver((100, 100), (40, 60), (10, 70))
    data = {"image": torch.zeros(3, 100, 100), "label": label[None], "spacing": torch.tensor([5.0, 0.5, 0.75])}
    assert LiverCropd(20, 1.5)(data)["box"].tolist() == [20, 8, 60, 64]  # 20 x 3 rows, 32 x 2 columns
    assert LiverCropd(20, 15)(data)["box"].tolist() == [0, 0, 100, 100]


def test_crop_without_labelled_liver_ignores_lesions():
    label = slice_with_liver((100, 100), (10, 20), (10, 20)) * 3
    assert liver_box(label, 20) == (0, 0, 100, 100)


def test_crop_contains_lesions_reaching_out_of_the_liver():
    label = slice_with_liver((100, 100), (10, 20), (10, 20))
    label[15:45, 12:16] = 3
    row, column, height, width = liver_box(label, 20)
    assert (label[row : row + height, column : column + width] == 3).sum() == (label == 3).sum()


def test_image_and_label_are_cut_alike():
    label = slice_with_liver((30, 40), (5, 9), (20, 30))
    image = torch.arange(3 * 30 * 40).reshape(3, 30, 40)
    cropped = LiverCropd(12)({"image": image, "label": label[None], "unit": 4})
    row, column, height, width = cropped["box"].tolist()
    assert cropped["image"].shape == (3, height, width)
    assert (cropped["image"] == image[:, row : row + height, column : column + width]).all()
    assert (cropped["label"][0] == label[row : row + height, column : column + width]).all()
    assert cropped["unit"] == 4


def test_size_none_keeps_the_slice():
    label = torch.ones((1, 30, 40), dtype=torch.uint8)
    cropped = LiverCropd(None)({"image": label, "label": label})
    assert cropped["box"].tolist() == [0, 0, 30, 40]
    assert cropped["label"].shape == (1, 30, 40)
