"""Slices of different sizes in one batch."""

import torch

from liverseg.training import pad_collate


def element(height, width, value):
    return {"image": torch.full((3, height, width), value), "label": torch.ones(1, height, width), "unit": 7}


def test_images_repeat_their_edge_and_labels_get_background():
    small, large = element(4, 5, -1.0), element(6, 8, 0.5)
    small["image"][:, -1, -1] = 1.0
    batch = pad_collate([small, large])
    assert batch["image"].shape == (2, 3, 6, 8)
    assert torch.equal(batch["image"][0, :, :4, :5], small["image"])
    assert (batch["image"][0, :, 3:, 4:] == 1.0).all()  # the corner goes on, not a soft-tissue zero
    assert torch.equal(batch["label"][0, :, :4, :5], small["label"])
    assert batch["label"][0].sum() == 20
    assert torch.equal(batch["image"][1], large["image"])
    assert batch["unit"].tolist() == [7, 7]
    assert batch["size"].tolist() == [[4, 5], [6, 8]]


def test_whole_numbers_are_enlarged_too():
    elements = [element(3, 3, 3), element(5, 5, 5)]
    for one in elements:
        one |= {key: one[key].to(torch.int16) for key in ("image", "label")}
    batch = pad_collate(elements)
    assert batch["image"].dtype == torch.int16
    assert (batch["image"][0] == 3).all()
    assert batch["label"][0].sum() == 9


def test_equal_sizes_are_batched_as_they_are():
    batch = pad_collate([element(4, 4, 0.0), element(4, 4, 1.0)])
    assert batch["image"].shape == (2, 3, 4, 4)
