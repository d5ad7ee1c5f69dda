"""Views: position and rotation of a crop, equal for image and label."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from liverseg.errors import UsageError
from liverseg.training import pad_collate
from liverseg.transforms import RandSlabViewd, resample_views

STILL = {"rotation": 0, "zoom": 0, "shift": 0, "flip": 0, "hu_offset": 0, "noise": 0}


def element(height=40, width=50):
    """Return a slab whose pixel values are their positions, with a lesion of nine pixels."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows, columns, rows + columns]).astype(np.int16)
    label = np.zeros((1, height, width), np.uint8)
    label[0, 5:35, 5:45] = 1
    label[0, 20:23, 30:33] = 2
    return {"image": torch.from_numpy(image), "label": torch.from_numpy(label)}


def resampled(drawn, size):
    batch = [drawn[key][None] for key in ("image", "label", "view")]
    image, label = resample_views(*batch, size)
    return image[0], label[0]


def test_view_without_motion_is_a_plain_crop():
    view = RandSlabViewd(11, [1e-9, 1e-9, 1], **STILL)
    view.set_random_state(seed=0)
    for _ in range(20):
        drawn = view(element())
        image, label = resampled(drawn, 11)
        top, left = image[:2, 0, 0].round().int().tolist()
        assert (top + 5, left + 5) in [(row, column) for row in (20, 21, 22) for column in (30, 31, 32)]
        expected = element()
        rows, columns = slice(top, top + 11), slice(left, left + 11)
        torch.testing.assert_close(image, expected["image"][:, rows, columns].float(), atol=1e-4, rtol=0)
        assert torch.equal(label, expected["label"][:, rows, columns])
        assert drawn["noisy"] is False and drawn["hu_offset"] == 0


def test_the_input_is_left_alone():
    data, before = element(), element()
    RandSlabViewd(16, [1, 1, 1])(data)
    assert set(data) == {"image", "label"}
    assert torch.equal(data["image"], before["image"]) and torch.equal(data["label"], before["label"])


def test_slabs_are_cut_to_a_size_that_fits_every_view():
    view = RandSlabViewd(40, [1, 1, 1], rotation=15, zoom=0.1, shift=0.05)
    view.set_random_state(seed=0)
    corners = np.array([[0, 0, 1], [0, 39, 1], [39, 0, 1], [39, 39, 1]])
    beyond = []
    for _ in range(200):
        drawn = view(element(120, 150))
        assert drawn["image"].shape == (3, 61, 61) and drawn["label"].shape == (1, 61, 61)
        cut_corners = corners @ drawn["view"].numpy().T
        origin = drawn["image"][:2, 0, 0].numpy()  # position of the crop
        in_slice = ((cut_corners + origin >= 0) & (cut_corners + origin <= [119, 149])).all(axis=1)
        beyond.append(np.maximum(-cut_corners, cut_corners - 60)[in_slice].max(initial=-9))
    assert max(beyond) <= 0  # nothing in the slice is cut off ...
    assert max(beyond) > -6  # ... and little else is kept


def test_crops_stay_inside_the_slice_before_they_are_turned():
    data = element()
    data["label"][0] = 0
    data["label"][0, 0, 0] = data["label"][0, 39, 49] = 2
    view = RandSlabViewd(21, [1e-9, 1, 1], **STILL)
    view.set_random_state(seed=0)
    corners = {tuple(resampled(view(data), 21)[0][:2, 0, 0].round().int().tolist()) for _ in range(30)}
    assert corners == {(0, 0), (19, 29)}


@pytest.mark.integration
def test_crops_are_centred_on_labels_at_their_ratios():
    view = RandSlabViewd(1, [1, 2, 1, 5], **STILL)
    view.set_random_state(seed=0)
    hit = [int(resampled(view(element()), 1)[1]) for _ in range(800)]
    assert np.bincount(hit, minlength=4) / 800 == pytest.approx([0.25, 0.5, 0.25, 0], abs=0.05)


def test_small_slice_is_centred_and_its_edge_repeated():
    image, label = resampled(RandSlabViewd(60, [1, 1, 1], **STILL)(element(20, 60)), 60)
    assert image[0, :20].unique().tolist() == [0.0] and image[0, 41:].unique().tolist() == [19.0]
    assert (label[0, :20] == 0).all() and (label[0, 41:] == 0).all()
    torch.testing.assert_close(image[0, 20:40, 0], torch.arange(20.0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("seed", range(6))
def test_image_and_label_are_turned_as_scipy_turns_them(seed):
    """Rotation, zoom, shift and flip together against another implementation of the same affine map."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(64, 80)), 2) * 1000
    label = (ndimage.gaussian_filter(rng.normal(size=(64, 80)), 5) > 0).astype(np.uint8)
    places = np.mgrid[:64, :80]
    data = {"image": torch.from_numpy(np.stack([smooth, *places])), "label": torch.from_numpy(label[None])}
    view = RandSlabViewd(33, [1, 1], rotation=30, zoom=0.3, shift=0.1, flip=0.5)
    view.set_random_state(seed=seed)
    drawn = view(data)
    image, turned = resampled(drawn, 33)
    matrix = drawn["view"].numpy().astype(float)
    turn, start = matrix[:, :2], matrix[:, 2] + drawn["image"][1:, 0, 0].numpy()  # in the slice before the crop
    for channel, image_slice in enumerate([smooth, *places.astype(float)]):
        expected = ndimage.affine_transform(image_slice, turn, start, (33, 33), order=1, mode="nearest")
        np.testing.assert_allclose(image[channel].numpy(), expected, atol=0.05)
    expected = ndimage.affine_transform(label, turn, start, (33, 33), order=0)
    assert (turned[0].numpy() != expected).mean() < 0.02  # ties of the nearest pixel


@pytest.mark.integration
def test_ranges_are_kept_and_reached():
    view = RandSlabViewd(101, [1, 1, 1], rotation=15, zoom=0.1, shift=0.05, flip=0.5, hu_offset=10, noise=0.25)
    view.set_random_state(seed=0)
    drawn = [view(element(301, 301)) for _ in range(400)]
    matrices = np.stack([slab["view"].numpy()[:, :2] for slab in drawn])
    sizes = np.sqrt(np.abs(np.linalg.det(matrices)))
    assert 1 / 1.1 <= sizes.min() < 1 / 1.09 and 1 / 0.91 < sizes.max() <= 1 / 0.9
    angles = np.degrees(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    assert -15 <= angles.min() < -14.5 and 14.5 < angles.max() <= 15
    assert np.mean(np.linalg.det(matrices) < 0) == pytest.approx(0.5, abs=0.08)
    offsets = np.array([slab["hu_offset"] for slab in drawn])
    assert -10 <= offsets.min() < -9.5 and 9.5 < offsets.max() <= 10
    assert np.mean([slab["noisy"] for slab in drawn]) == pytest.approx(0.25, abs=0.07)


def test_the_same_seed_draws_the_same_view():
    view = RandSlabViewd(16, [1, 1, 1])
    for number in range(3):
        twice = []
        for _ in range(2):
            view.set_random_state(seed=number)
            twice.append(view(element()))
        assert all(torch.equal(twice[0][key], twice[1][key]) for key in ("view", "hu_offset"))


def test_a_batch_is_resampled_as_its_elements_are():
    view = RandSlabViewd(24, [1, 1, 1])
    view.set_random_state(seed=3)
    drawn = [view(element()) for _ in range(4)]
    image, label = resample_views(
        *(torch.stack([slab[key] for slab in drawn]) for key in ("image", "label", "view")), 24
    )
    assert image.shape == (4, 3, 24, 24) and image.dtype == torch.float32
    assert label.shape == (4, 1, 24, 24) and label.dtype == torch.uint8
    for number, slab in enumerate(drawn):
        alone = resampled(slab, 24)
        torch.testing.assert_close(image[number], alone[0])
        assert torch.equal(label[number], alone[1])


def test_a_slice_of_one_pixel():
    data = {"image": torch.full((3, 1, 1), 7, dtype=torch.int16), "label": torch.ones(1, 1, 1, dtype=torch.uint8)}
    image, _ = resampled(RandSlabViewd(4, [1, 1])(data), 4)
    assert (image == 7).all()


@pytest.mark.parametrize(
    ("name", "value", "most"),
    [
        ("rotation", 400, 180), ("rotation", -1, 180), ("zoom", 1, 0.9), ("zoom", -0.1, 0.9), ("shift", "abc", 1),
        ("shift", True, 1), ("flip", 1.1, 1), ("hu_offset", 1001, 1000), ("noise", None, 1),
    ],
)  # fmt: skip
def test_an_augmentation_beyond_its_range_is_refused(name, value, most):
    with pytest.raises(UsageError) as caught:
        RandSlabViewd(32, [1, 1, 1], **{name: value})
    assert str(caught.value) == f"augmentation: {name} is {value!r}; it must be a number, 0 to {most}"


@pytest.mark.parametrize("zoom", [[1, 0.2], [-0.95, 0.2], [0.2, -0.2], [0.1], [0.1, "x"], [-0.3, True]])
def test_an_uneven_zoom_that_is_no_range_is_refused(zoom):
    with pytest.raises(UsageError) as caught:
        RandSlabViewd(32, [1, 1, 1], zoom=zoom)
    assert str(caught.value) == f"augmentation: zoom is {zoom!r}; it must be two numbers, -0.9 to 0.9, the lower first"


def test_uneven_zoom_stays_inside_the_cut():
    view = RandSlabViewd(40, [1, 1, 1], zoom=[-0.4, 0.2], rotation=0, shift=0, flip=0)
    assert view.arguments()["zoom"] == (-0.4, 0.2)
    view.set_random_state(seed=0)
    drawn = [view(element(120, 150)) for _ in range(100)]
    sizes = np.array([1 / slab["view"][0, 0] for slab in drawn])
    assert 0.6 <= sizes.min() < 0.63 and 1.17 < sizes.max() <= 1.2
    assert {tuple(slab["image"].shape) for slab in drawn} == {(3, 69, 69)}  # 40 / 0.6 and a pixel


@pytest.mark.parametrize("in_plane_mm", [(0.75, 0.75), (0.6, 0.9), (2.0, 1.7)])
def test_crops_of_one_pixel_size_have_equal_extent_in_mm(in_plane_mm):
    view = RandSlabViewd(24, [1, 1, 1], rotation=30, zoom=0.2, shift=0.1, pixel_mm=1.5)
    view.set_random_state(seed=0)
    ends = np.array([[0, 0, 1], [0, 23, 1], [23, 0, 1], [23, 23, 1]])
    sizes, beyond = [], []
    for _ in range(100):
        drawn = view({**element(200, 180), "spacing": torch.tensor([5.0, *in_plane_mm])})
        corners = ends @ drawn["view"].numpy().T
        mm = corners * in_plane_mm
        edges = [np.linalg.norm(mm[a] - mm[b]) for a, b in ((0, 1), (0, 2), (1, 3), (2, 3))]
        diagonals = [np.linalg.norm(mm[a] - mm[b]) for a, b in ((0, 3), (1, 2))]
        assert edges == pytest.approx([edges[0]] * 4, rel=1e-4)
        assert diagonals == pytest.approx([edges[0] * 2**0.5] * 2, rel=1e-4)  # a square at any rotation
        sizes.append(23 * 1.5 / edges[0])
        # half a pixel of the crop is averaged beyond the middles of its outermost pixels
        half = (corners[3] - corners[0]) / 46 if drawn["points"] > 1 else np.zeros(2)
        outermost = np.concatenate([corners - abs(half).max() * 0.7, corners + abs(half).max() * 0.7])
        origin, last = drawn["image"][:2, 0, 0].numpy(), np.array(drawn["image"].shape[1:]) - 1
        in_slice = ((outermost + origin >= 0) & (outermost + origin <= [199, 179])).all(axis=1)
        beyond.append(np.maximum(-outermost, outermost - last)[in_slice].max(initial=-9))
    assert 0.8 <= min(sizes) < 0.82 and 1.18 < max(sizes) <= 1.2
    assert max(beyond) <= 0.5


def test_mixed_pixel_sizes_are_resampled_independently():
    view = RandSlabViewd(24, [1, 1, 1], pixel_mm=1.5)
    view.set_random_state(seed=3)
    drawn = [view({**element(), "spacing": torch.tensor([5.0, mm, mm])}) for mm in (0.5, 0.75, 0.75, 1.5)]
    assert [slab["points"] for slab in drawn] == [3, 2, 2, 1]
    together = pad_collate(drawn)
    image, label = resample_views(
        *(together[key] for key in ("image", "label", "view")), 24, together["points"].tolist()
    )
    for number, slab in enumerate(drawn):
        batch = [slab[key][None] for key in ("image", "label", "view")]
        alone = resample_views(*batch, 24, [slab["points"]])
        torch.testing.assert_close(image[number], alone[0][0], atol=1e-3, rtol=0)
        assert torch.equal(label[number], alone[1][0])
