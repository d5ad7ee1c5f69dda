"""HU window, slabs and noise."""

import numpy as np
import pytest
import torch

from liverseg.transforms import HUWindow, HUWindowd, salt_and_pepper, slab_indices


def test_window_clips_and_scales():
    hu = torch.tensor([-1024, -200, 25, 250, 3000], dtype=torch.int16)
    assert HUWindow(-200, 250)(hu).tolist() == [-1, -1, 0, 1, 1]
    assert HUWindowd("image", (-200, 250))({"image": hu})["image"].dtype == torch.float32
    with pytest.raises(ValueError, match="lower limit must be below"):
        HUWindow(250, -200)


def test_slabs_repeat_edge_slices():
    assert slab_indices(0, 5).tolist() == [0, 0, 1]
    assert slab_indices(np.array([0, 2, 4]), 5).tolist() == [[0, 0, 1], [1, 2, 3], [3, 4, 4]]
    assert slab_indices(0, 1, 5).tolist() == [0] * 5
    with pytest.raises(ValueError, match="no middle slice"):
        slab_indices(0, 5, 4)
    with pytest.raises(ValueError, match="5 slices"):
        slab_indices(5, 5)


@pytest.mark.parametrize(
    ("slice_mm", "spacing", "offset"),
    [(1.0, 5.0, 5), (1.25, 5.0, 4), (2.5, 3.0, 1), (3.0, 5.0, 2), (5.0, 5.0, 1), (7.5, 5.0, 1), (0.8, None, 1)],
)
def test_spaced_slabs_take_the_nearest_slice_except_the_middle(slice_mm, spacing, offset):
    slab = slab_indices(20, 40, slice_mm=slice_mm, slab_spacing_mm=spacing)
    assert slab.tolist() == [20 - offset, 20, 20 + offset]
    edges = slab_indices(np.array([1, 38]), 40, slice_mm=slice_mm, slab_spacing_mm=spacing)
    assert edges.tolist() == [[max(0, 1 - offset), 1, 1 + offset], [38 - offset, 38, min(39, 38 + offset)]]


@pytest.mark.parametrize("wrong", [{"slab_spacing_mm": 0.0}, {"slab_spacing_mm": 5.0, "slice_mm": 0.0}])
def test_slabs_without_a_distance_are_refused(wrong):
    with pytest.raises(ValueError, match="must be above 0"):
        slab_indices(2, 5, **wrong)


def test_salt_and_pepper_hits_its_share_of_noisy_images():
    torch.manual_seed(0)
    images = salt_and_pepper(torch.zeros(3, 3, 200, 200), torch.tensor([True, False, True]), share=0.02)
    assert images[1].abs().sum() == 0
    for image in (images[0], images[2]):
        assert (image != 0).float().mean().item() == pytest.approx(0.02, rel=0.05)
        assert (image == 1).sum().item() == pytest.approx((image == -1).sum().item(), rel=0.1)
    assert not torch.equal(images[0], images[2])
    torch.manual_seed(0)
    again = salt_and_pepper(torch.zeros(3, 3, 200, 200), torch.tensor([True, False, True]), share=0.02)
    assert torch.equal(again, images)
