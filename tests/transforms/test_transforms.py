"""HU window, slabs and noise."""

import numpy as np
import pytest
import torch

from liverseg.transforms import HUWindow, HUWindowd, RandSaltAndPepperd, slab_indices


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


def test_salt_and_pepper_hits_the_stated_share_and_leaves_its_input_alone():
    noise = RandSaltAndPepperd("image", prob=1, share=0.02)
    noise.set_random_state(seed=0)
    image = torch.zeros(3, 200, 200)
    noisy = noise({"image": image})["image"]
    assert image.abs().sum() == 0
    assert (noisy != 0).float().mean().item() == pytest.approx(0.02, rel=0.05)
    assert (noisy == 1).sum().item() == pytest.approx((noisy == -1).sum().item(), rel=0.2)
    never = RandSaltAndPepperd("image", prob=0)
    assert torch.equal(never({"image": image})["image"], image)
