"""Resampling to a pixel size: no shift, no lost pixel, and views have the same pixels."""

import numpy as np
import pytest
import torch

from liverseg.transforms import RandSlabViewd, ResamplePixelsd, back_to_slice, resample_views, to_pixel_mm
from liverseg.transforms.pixels import points_per_pixel

GRIDS = [
    ((512, 512), (0.75, 0.75), 1.5),
    ((511, 334), (0.7, 0.7), 1.5),
    ((161, 160), (0.6, 0.95), 1.5),  # pixels that are not square
    ((99, 90), (2.0, 1.25), 1.5),  # rows to smaller pixels, columns to larger ones
    ((40, 51), (0.8, 0.8), 0.5),
    ((100, 64), (1.6, 1.6), 1.5),
]


@pytest.mark.parametrize(("shape", "in_plane_mm", "pixel_mm"), GRIDS)
def test_a_ramp_comes_back_where_it_was(shape, in_plane_mm, pixel_mm):
    places = torch.stack(torch.meshgrid(*(torch.arange(float(length)) for length in shape), indexing="ij"))
    resampled = to_pixel_mm(places, in_plane_mm, pixel_mm)
    assert [*resampled.shape[1:]] == [round(n * mm / pixel_mm) for n, mm in zip(shape, in_plane_mm, strict=True)]
    back = back_to_slice(resampled[None], shape)[0]
    assert back.shape == places.shape
    rim = 2 * int(np.ceil(pixel_mm / min(in_plane_mm)))  # unknown outside the centres of the outermost pixels
    inside = (slice(None), slice(rim, -rim), slice(rim, -rim))
    torch.testing.assert_close(back[inside], places[inside], atol=0.01, rtol=0)
    # in mm from the edge of the slice, the value of a pixel is that of its centre
    middles = (resampled[1, 0] + 0.5) * in_plane_mm[1]
    edge = shape[1] * in_plane_mm[1] / resampled.shape[2]
    torch.testing.assert_close(middles[2:-2], (torch.arange(len(middles))[2:-2] + 0.5) * edge, atol=0.01, rtol=0)


def test_pixels_of_twice_the_size_are_means_of_four():
    hu = torch.from_numpy(np.random.default_rng(0).integers(-1000, 1000, (3, 40, 62)).astype(np.int16))
    means = hu.float().reshape(3, 20, 2, 31, 2).mean(dim=(2, 4))
    torch.testing.assert_close(to_pixel_mm(hu, (0.75, 0.75), 1.5), means, atol=0.05, rtol=0)


def test_slices_of_that_pixel_size_are_left_alone():
    hu = torch.zeros(3, 30, 40, dtype=torch.int16)
    assert to_pixel_mm(hu, (1.5, 1.5001), 1.5) is hu
    assert back_to_slice(hu, (30, 40)) is hu


@pytest.mark.parametrize("mm", [0.5, 0.6, 0.7, 0.8, 0.95, 1.1])
def test_noise_is_averaged_and_not_picked(mm):
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 200, 200)).astype(np.float32))
    kept = to_pixel_mm(noise, (mm, mm), 1.5).std().item()
    assert mm / 1.5 * 0.65 < kept < mm / 1.5 * 1.1  # the mean over a pixel gives mm / 1.5


@pytest.mark.parametrize(
    ("mm", "points"), [(3.0, 1), (1.5, 1), (1.16, 1), (1.14, 2), (0.75, 2), (0.74, 3), (0.5, 3), (0.4, 4)]
)
def test_points_are_no_farther_apart_than_the_slices_pixels(mm, points):
    assert points_per_pixel((3.0, mm), 1.5) == points_per_pixel((mm, mm), 1.5) == points


def test_places_are_exact_in_mixed_precision():
    hu = torch.arange(512.0).expand(1, 512, 512)
    alone = to_pixel_mm(hu, (0.7, 0.7), 1.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(to_pixel_mm(hu, (0.7, 0.7), 1.5), alone, atol=0, rtol=0)


@pytest.mark.parametrize("corner", [(0, 0), (-1, -1)])
@pytest.mark.parametrize("in_plane_mm", [(0.75, 0.75), (0.6, 1.0), (1.5, 0.5), (2.0, 1.2)])
def test_a_still_view_shows_the_pixels_of_inference(in_plane_mm, corner):
    hu = torch.from_numpy(np.random.default_rng(1).integers(-1000, 1000, (3, 60, 90)).astype(np.int16))
    label = torch.zeros(1, 60, 90, dtype=torch.uint8)
    label[0][corner] = 1  # the crop is in that corner
    view = RandSlabViewd(16, [1e-9, 1], 0, 0, 0, 0, 0, 0, pixel_mm=1.5)
    view.set_random_state(seed=0)
    drawn = view({"image": hu, "label": label, "spacing": torch.tensor([5.0, *in_plane_mm])})
    crop, _ = resample_views(*(drawn[key][None] for key in ("image", "label", "view")), 16, [drawn["points"]])
    resampled = to_pixel_mm(hu, in_plane_mm, 1.5)
    expected = resampled[:, :16, :16] if corner == (0, 0) else resampled[:, -16:, -16:]
    torch.testing.assert_close(crop[0], expected.float(), atol=0.1, rtol=0)


def test_the_dictionary_form_resamples_the_image_alone():
    data = {"image": torch.full((3, 40, 50), -100, dtype=torch.int16), "label": torch.ones(1, 40, 50), "box": 7}
    data["spacing"] = torch.tensor([5.0, 0.75, 0.6])
    out = ResamplePixelsd("image", 1.5)(data)
    assert out["image"].shape == (3, 20, 20) and (out["image"] == -100).all()
    assert out["label"] is data["label"] and out["box"] == 7
    assert ResamplePixelsd("image")(data) == data
