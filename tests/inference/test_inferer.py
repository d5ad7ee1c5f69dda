"""The slab inferer: slices as channels, number types, and results."""

import math

import numpy as np
import pytest
import torch

from liverseg.errors import UsageError
from liverseg.inference import SlabInferer, SlabPrediction, resolve_batch_size
from liverseg.networks import SEResUNet, SlabInput
from liverseg.transforms import slab_indices


class Echo(torch.nn.Module):
    """Network that keeps its input slabs."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, slabs):
        self.seen.append(slabs.clone())
        return torch.zeros(len(slabs), 5, *slabs.shape[2:])


@pytest.mark.parametrize("batch_size", [1, 3, 16])
@pytest.mark.parametrize("depth", [1, 2, 3, 7])
def test_slabs_are_neighbours_with_edges_repeated(depth, batch_size):
    echo = Echo()
    hu = np.arange(depth, dtype=np.int16)[:, None, None] * np.ones((1, 2, 3), np.int16)
    SlabInferer(batch_size=batch_size, amp=False)(hu, echo)
    seen = torch.cat(echo.seen)
    assert max(map(len, echo.seen)) <= batch_size
    expected = [[max(i - 1, 0), i, min(i + 1, depth - 1)] for i in range(depth)]
    np.testing.assert_allclose(seen[:, :, 1, 2].numpy() * 225 + 25, expected, atol=1e-4)
    assert seen.shape == (depth, 3, 2, 3)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_slabs_at_a_distance_are_those_of_training(batch_size):
    echo = Echo()
    hu = np.arange(12, dtype=np.int16)[:, None, None] * np.ones((1, 2, 3), np.int16)
    SlabInferer(batch_size=batch_size, amp=False, slab_spacing_mm=5)(hu, echo, slice_mm=1.25)
    expected = slab_indices(np.arange(12), 12, slice_mm=1.25, slab_spacing_mm=5)
    assert expected[6].tolist() == [2, 6, 10]
    np.testing.assert_allclose(torch.cat(echo.seen)[:, :, 1, 2].numpy() * 225 + 25, expected, atol=1e-4)
    with pytest.raises(ValueError, match="need the volume's slice_mm"):
        SlabInferer(slab_spacing_mm=5)(hu, echo)


@pytest.mark.parametrize("kind", ["int16", "uint16", "int32", "int64", "uint8", "float32", ">i2"])
def test_every_number_type_gives_the_same_labels(kind, hu_classes):
    hu = np.random.default_rng(0).integers(0, 250, (4, 9, 8))
    expected = SlabInferer(amp=False)(hu.astype(np.float32), hu_classes)
    found = SlabInferer(amp=False)(hu.astype(kind), hu_classes)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.labels.dtype == np.uint8


def test_views_tensors_and_batch_sizes_agree_with_a_single_pass():
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 5, 3, padding=1)
    hu = np.random.default_rng(1).integers(-300, 300, (7, 12, 10)).astype(np.int16)[::-1, :, ::-1]
    copy = np.ascontiguousarray(hu)
    window = (torch.from_numpy(copy).float().clamp(-200, 250) - 25) / 225
    slabs = torch.stack([window[[max(i - 1, 0), i, min(i + 1, 6)]] for i in range(7)])
    with torch.no_grad():
        logits = network(slabs)
    labels = logits.argmax(1)
    rows = logits.permute(0, 2, 3, 1)[labels >= 2][:, 2:].softmax(1)
    for given in (hu, torch.from_numpy(copy), torch.from_numpy(copy)[None, None]):
        for batch_size in (1, 2, 7):
            found = SlabInferer(batch_size=batch_size, amp=False)(given, network)
            np.testing.assert_array_equal(found.labels, labels)
            np.testing.assert_allclose(found.type_probabilities, rows, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_a_box_is_labelled_with_the_slices_beside_it_as_neighbours(batch_size):
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 5, 1)
    hu = np.random.default_rng(1).integers(-300, 300, (9, 12, 10)).astype(np.int16)
    complete = SlabInferer(amp=False)(hu, network)
    box = (slice(2, 7), slice(3, 9), slice(0, 4))
    found = SlabInferer(batch_size=batch_size, amp=False)(hu, network, box=box)
    np.testing.assert_array_equal(found.inside, complete.labels[box])
    assert (found.box, found.shape) == (box, hu.shape)
    outside = found.labels.copy()
    outside[box] = 0
    assert not outside.any()


def test_the_liver_at_a_lower_resolution_is_that_of_averaged_pixels():
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 5, 1)
    hu = np.random.default_rng(1).integers(-190, 240, (9, 12, 11)).astype(np.int16)
    averaged = hu[:, :, :10].reshape(9, 6, 2, 5, 2).mean(axis=(2, 4), dtype=np.float32)
    expected = SlabInferer(amp=False)(averaged, network).labels[[1, 4, 8]] >= 1
    found = SlabInferer(amp=False).liver(hu, network, np.array([1, 4, 8]), reduction=2)
    assert found.shape == (3, 6, 5)
    assert (found == expected).mean() > 0.98  # averages are rounded in a different order


class Ramp(torch.nn.Module):
    """Network with two labels, liver for HU above 0; keeps its input."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, slabs):
        self.seen.append(tuple(slabs.shape))
        middle = slabs[:, 1:2] * 225 + 25
        return torch.cat([-middle, middle], dim=1)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize(
    ("in_plane_mm", "size"),
    [((0.75, 0.75), (30, 40)), ((0.7, 1.0), (28, 54)), ((1.5, 1.5), (61, 81)), ((2, 2), (81, 108))],
)
def test_labels_of_a_network_with_a_pixel_size_are_on_the_cts_own_grid(in_plane_mm, size, batch_size):
    rows, columns = np.meshgrid(np.arange(61), np.arange(81), indexing="ij")
    hu = np.stack([4 * columns - 162.5 + depth for depth in range(5)] + [3 * rows - 82.0]).astype(np.float32)
    network = Ramp()
    inferer = SlabInferer(batch_size=batch_size, amp=False, pixel_mm=1.5)
    found = inferer(hu, network, in_plane_mm=in_plane_mm)
    if in_plane_mm[0] == 0.75:
        size = (31, 41)  # half pixels are rounded up
    assert {shape[2:] for shape in network.seen} == {size}
    np.testing.assert_array_equal(found.labels, hu > 0)
    box = (slice(1, 4), slice(9, 50), slice(20, 61))
    part = inferer(hu, network, in_plane_mm=in_plane_mm, box=box)
    np.testing.assert_array_equal(part.inside, hu[box] > 0)
    assert inferer.input_spec == SlabInput((-200, 250), pixel_mm=1.5)
    slabs_at_once = {0.75: 4, 0.7: 3, 1.5: 1, 2: 0.5625}[in_plane_mm[0]] * batch_size  # with the same number of pixels
    batches = math.ceil(6 / max(1, int(slabs_at_once)))
    assert network.seen[0][0] == math.ceil(6 / batches)  # of equal size


@pytest.mark.parametrize(
    ("in_plane_mm", "reduction", "size"),
    [((0.75, 0.75), 2, (30, 40)), ((0.9, 0.9), 2, (30, 40)), ((0.6, 0.6), 2, (24, 32)), ((0.75, 0.75), 1, (31, 41))],
)
def test_the_coarse_liver_has_the_same_grid_whatever_the_network_looks_at(in_plane_mm, reduction, size):
    hu = np.broadcast_to(4 * np.arange(81, dtype=np.float32) - 163, (4, 61, 81))
    network, slices = Ramp(), np.array([0, 2])
    found = SlabInferer(amp=False, pixel_mm=1.5).liver(hu, network, slices, reduction, in_plane_mm=in_plane_mm)
    np.testing.assert_array_equal(found, SlabInferer(amp=False).liver(hu, Ramp(), slices, reduction))
    assert found.shape == (2, 61 // reduction, 81 // reduction)
    assert network.seen == [(2, 3, *size)]


def test_types_are_those_of_logits_between_the_networks_pixels():
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 5, 1)
    hu = np.random.default_rng(1).integers(-300, 300, (3, 24, 20)).astype(np.int16)
    found = SlabInferer(amp=False, pixel_mm=1.5)(hu, network, in_plane_mm=(0.75, 0.75))
    means = torch.from_numpy(hu.reshape(3, 12, 2, 10, 2).mean(axis=(2, 4), dtype=np.float32))
    slabs = ((means.clamp(-200, 250) - 25) / 225)[torch.tensor([[0, 0, 1], [0, 1, 2], [1, 2, 2]])]
    with torch.no_grad():
        logits = torch.nn.functional.interpolate(network(slabs), scale_factor=2, mode="bilinear")
    labels = logits.argmax(1)
    assert (found.labels == labels.numpy()).mean() > 0.99
    rows = logits.permute(0, 2, 3, 1)[torch.from_numpy(found.labels) >= 2][:, 2:].softmax(1)
    np.testing.assert_allclose(found.type_probabilities, rows, atol=1e-3)


def test_a_pixel_size_needs_the_volumes_own():
    with pytest.raises(ValueError, match=r"pixels of 1.5 mm need the volume's in_plane_mm"):
        SlabInferer(pixel_mm=1.5)(np.zeros((2, 4, 4), np.int16), Ramp())


def test_a_temperature_makes_types_less_sure_and_leaves_labels_alone():
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 5, 1)
    hu = np.random.default_rng(1).integers(-300, 300, (3, 12, 10)).astype(np.int16)
    sure, unsure = (SlabInferer(amp=False, type_temperature=t)(hu, network) for t in (1.0, 4.0))
    np.testing.assert_array_equal(sure.labels, unsure.labels)
    powers = sure.type_probabilities**0.25
    np.testing.assert_allclose(unsure.type_probabilities, powers / powers.sum(axis=1, keepdims=True), rtol=1e-4)
    with pytest.raises(UsageError, match="type_temperature is 0"):
        SlabInferer(type_temperature=0)


def test_the_probability_of_lesion_is_that_of_all_types_together():
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 5, 1)
    hu = np.random.default_rng(1).integers(-300, 300, (5, 12, 10)).astype(np.int16)
    found = SlabInferer(amp=False, batch_size=2, type_temperature=3)(hu, network)
    logits = []
    SlabInferer(amp=False)(hu, lambda slabs: logits.append(network(slabs)) or logits[-1])
    maps = torch.cat(logits).detach().double().numpy().transpose(0, 2, 3, 1)[found.labels >= 2]
    powers = np.exp(maps)
    np.testing.assert_allclose(found.lesion_probabilities, powers[:, 2:].sum(1) / powers.sum(1), rtol=1e-5)


def test_three_classes_have_one_certain_type():
    torch.manual_seed(0)
    network = SEResUNet("small", out_channels=3).eval()
    found = SlabInferer()(np.zeros((2, 40, 33), np.int16), network)
    assert found.labels.max() <= 2
    assert found.type_probabilities.shape == ((found.labels == 2).sum(), 1)
    assert (found.type_probabilities == 1).all()


def test_no_gradient_is_kept_and_the_network_is_left_alone():
    network = torch.nn.Conv2d(3, 5, 1)
    SlabInferer()(np.zeros((2, 4, 4), np.int16), network)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


def test_the_batch_size_for_a_device():
    assert [resolve_batch_size("auto", device) for device in ("cpu", "cuda:1", "meta")] == [4, 16, 4]
    assert resolve_batch_size(5, "cuda") == 5


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "4", True])
def test_impossible_batch_sizes_are_refused(batch_size):
    with pytest.raises(UsageError, match="batch_size is"):
        SlabInferer(batch_size=batch_size)


def test_precision_is_logged_and_unknown_words_are_refused():
    assert SlabInferer(amp=False).precision("cpu") == "float32"
    assert SlabInferer(amp="auto").precision("cpu") in ("float32", "bfloat16")
    with pytest.raises(UsageError, match="amp is 'sometimes'"):
        SlabInferer(amp="sometimes").precision("cpu")


def test_two_volumes_and_lost_rows_are_refused(hu_classes):
    with pytest.raises(ValueError, match="a volume of shape"):
        SlabInferer()(np.zeros((2, 3, 4, 4), np.int16), hu_classes)
    with pytest.raises(ValueError, match="0 rows of probabilities for 1 lesion voxels"):
        SlabPrediction(np.array([[[2, 1]]], np.uint8), np.zeros((0, 3), np.float32))
    with pytest.raises(ValueError, match="2 probabilities of lesion for 1 lesion voxels"):
        SlabPrediction(np.array([[[2, 1]]], np.uint8), np.ones((1, 3), np.float32), lesion_probabilities=np.ones(2))


def test_a_voxel_threshold_weighs_all_lesion_types_together_against_the_liver():
    # background, liver, and three types: at .4 the liver is likelier than each type, and less likely than all of them
    columns = np.array(
        [[0.1, 0.4, 0.1, 0.25, 0.15], [0.6, 0.1, 0.1, 0.1, 0.1], [0.05, 0.7, 0.05, 0.05, 0.15]], np.float32
    )
    logits = torch.from_numpy(np.log(columns)).T[None, :, None].repeat(1, 1, 2, 1) + 3
    given_lesion = columns[:, 2:].sum(1) / columns[:, 1:].sum(1)  # 0.56, 0.75, 0.26

    def network(slabs):
        return logits.expand(len(slabs), -1, -1, -1)

    hu = np.zeros((2, 2, 3), np.int16)
    assert SlabInferer(amp=False)(hu, network).labels[0, 0].tolist() == [1, 0, 1]
    for threshold in (0.2, 0.3, 0.55, 0.57):
        found = SlabInferer(amp=False, voxel_threshold=threshold)(hu, network)
        expected = np.where(given_lesion >= threshold, [3, 0, 4], 1)
        assert found.labels[0, 0].tolist() == [expected[0], 0, expected[2]]
        lesion = columns[:, 2:].sum(1)[found.labels[0, 0] >= 2]
        np.testing.assert_allclose(found.lesion_probabilities, np.tile(lesion, 4), atol=1e-5)
    for wrong in (0, 1, -0.5):
        with pytest.raises(UsageError, match="it must be null or a number between 0 and 1"):
            SlabInferer(voxel_threshold=wrong)
