"""Losses, compared with explicit sums."""

import math

import pytest
import torch
from monai.losses import DiceCELoss

from liverseg.labels import UNTYPED_LESION
from liverseg.networks import SEResUNet, SlabOutput
from liverseg.training import SlabLoss, StackedDeepSupervisionLoss, map_weights
from liverseg.training.losses import slab_types


@pytest.fixture
def maps():
    torch.manual_seed(0)
    return torch.randn(2, 4, 3, 16, 16, requires_grad=True), torch.randint(0, 3, (2, 1, 16, 16))


def make_loss():
    return DiceCELoss(softmax=True, to_onehot_y=True)


def test_deep_supervision_halves_weights_from_map_to_map(maps):
    logits, labels = maps
    expected = sum(make_loss()(logits[:, number], labels) / 2**number for number in range(4))
    assert StackedDeepSupervisionLoss(make_loss())(logits, labels).item() == pytest.approx(expected.item(), rel=1e-6)


def test_every_map_is_learnt_from(maps):
    logits, labels = maps
    StackedDeepSupervisionLoss(make_loss())(logits, labels).backward()
    assert (logits.grad.abs().amax(dim=(0, 2, 3, 4)) > 0).all()


def test_one_plain_map_is_the_plain_loss(maps):
    logits, labels = maps
    assert StackedDeepSupervisionLoss(make_loss())(logits[:, 0], labels) == make_loss()(logits[:, 0], labels)


def test_slab_types_are_those_of_the_label_map():
    labels = torch.tensor([[[[1, 2, 4, 4]]], [[[1, 1, 0, 0]]], [[[3, 1, 1, 1]]]])
    assert slab_types(labels).tolist() == [2, -100, 1]


def test_a_type_vector_adds_its_cross_entropy(maps):
    logits, labels = maps
    labels[0, 0, :3], labels[1, 0, :9] = 2, 4
    labels[labels == 3] = 1
    labels[1][labels[1] == 2] = 1
    types = torch.randn(2, 3)
    merged = labels.clamp(max=2)
    of_map = StackedDeepSupervisionLoss(make_loss())
    expected = of_map(logits, merged) + 0.5 * torch.nn.functional.cross_entropy(types, torch.tensor([0, 2]))
    loss = SlabLoss(of_map, type_weight=0.5)(SlabOutput(logits, types), labels)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_classifier_loss_without_lesions_is_zero():
    types = torch.zeros(1, 3, requires_grad=True)
    loss = SlabLoss(StackedDeepSupervisionLoss(make_loss()))
    assert loss(SlabOutput(None, types), torch.tensor([[[[1, 3]]]])).item() == pytest.approx(math.log(3))
    nothing = loss(SlabOutput(None, types), torch.tensor([[[[1, 1]]]]))
    nothing.backward()
    assert nothing == 0
    assert types.grad.abs().sum() == 0


def test_type_loss_ignores_slabs_without_lesion():
    loss = SlabLoss(StackedDeepSupervisionLoss(make_loss()))
    labels = torch.tensor([[[[1, 3]]], [[[1, 1]]], [[[0, 0]]]])
    assert loss(SlabOutput(None, torch.zeros(3, 3)), labels).item() == pytest.approx(math.log(3))


def test_types_of_pixels_weigh_each_slab_alike():
    types = torch.zeros(2, 3, 1, 4)
    types[0, 0] = 5  # the first slab: all predicted as cyst, half of them correct; the second: undecided
    labels = torch.tensor([[[[2, 2, 3, 3]]], [[[3, 3, 3, 1]]]])
    maps = torch.zeros(2, 3, 1, 4)
    maps[:, 2] = 40  # all found
    total = math.exp(5) + 2
    first = -(math.log(math.exp(5) / total) + math.log(1 / total)) / 2
    assert type_loss(maps, types, labels) == pytest.approx((first + math.log(3)) / 2, rel=1e-5)


def test_balanced_types_have_equal_weight():
    types = torch.zeros(3, 3, 1, 4)
    types[:, 0] = 5  # all predicted as cyst
    labels = torch.tensor([[[[2, 2, 2, 2]]], [[[2, 2, 2, 2]]], [[[3, 3, 2, 2]]]])
    maps = torch.zeros(3, 3, 1, 4)
    maps[:, 2] = 40
    right, wrong = -math.log(math.exp(5) / (math.exp(5) + 2)), -math.log(1 / (math.exp(5) + 2))
    assert type_loss(maps, types, labels, balanced_types=True) == pytest.approx((right + wrong) / 2, rel=1e-5)
    assert type_loss(maps, types, labels) == pytest.approx((2 * right + (right + wrong) / 2) / 3, rel=1e-5)
    assert type_loss(maps, types, labels.clamp(max=1), balanced_types=True) == pytest.approx(0, abs=1e-6)


def test_a_pixel_that_is_not_found_teaches_no_type():
    types = torch.zeros(1, 3, 1, 4)
    types[0, 0] = 5
    labels = torch.tensor([[[[2, 2, 3, 3]]]])
    maps = torch.zeros(1, 3, 1, 4)
    maps[0, 2, 0, :2], maps[0, 1, 0, 2:] = 40, 40  # the hemangioma pixels are predicted as liver
    assert type_loss(maps, types, labels) == pytest.approx(-math.log(math.exp(5) / (math.exp(5) + 2)), rel=1e-5)
    maps[0, 1] = 90
    assert type_loss(maps, types, labels) == pytest.approx(0, abs=1e-6)


def type_loss(maps, types, labels, **arguments):
    """Return the loss of types: the total minus that of the map."""
    map_loss = StackedDeepSupervisionLoss(make_loss())
    total = SlabLoss(map_loss, **arguments)(SlabOutput(maps, types), labels)
    return (total - SlabLoss(map_loss, type_weight=0)(SlabOutput(maps, types), labels)).item()


def test_map_weights_of_three_channels_use_the_first_type():
    weights = [0.1, 0.2, 0.5, 0.6, 0.7]
    assert map_weights(weights, SEResUNet("small", out_channels=3)).tolist() == pytest.approx([0.1, 0.2, 0.5])
    assert map_weights(weights, SEResUNet("small", out_channels=5)).tolist() == pytest.approx(weights)
    assert map_weights(weights, SEResUNet("small", out_channels=5), 0.3).tolist() == pytest.approx(weights[:3])


def test_regions_weigh_alike_whatever_their_area_and_so_do_types():
    """A cyst of three pixels and one of one, a hemangioma of two; one pixel of a region is no lesion."""
    labels = torch.tensor([[[[2, 2, 2, 1, 2, 3, 3, 1]]]])
    ids = torch.tensor([[[1, 1, 1, 0, 2, 3, 3, 3]]])
    logits = torch.tensor([[4.0, 0, 0], [0, 4, 0], [0, 0, 4]])
    types = logits[ids - 1].permute(0, 3, 1, 2)[:, None] * (ids > 0)[:, None, None]
    areas = torch.tensor([1.0, 3, 1, 3])
    weights = torch.where(ids > 0, 1 / areas[ids], 0)[:, None]
    right, wrong = -math.log(math.exp(4) / (math.exp(4) + 2)), -math.log(1 / (math.exp(4) + 2))
    output = SlabOutput(None, types, weights)
    loss = SlabLoss(StackedDeepSupervisionLoss(make_loss()))
    # cysts: the first is right, the second is not; the hemangioma is taken for a metastasis
    assert loss(output, labels).item() == pytest.approx(((right + wrong) / 2 + wrong) / 2, rel=1e-5)
    twice = SlabOutput(None, types.repeat(1, 2, 1, 1, 1), weights.repeat(1, 2, 1, 1))
    assert loss(twice, labels).item() == pytest.approx(2 * loss(output, labels).item(), rel=1e-5)
    assert loss(output, labels.clamp(max=1)) == 0


def test_lesion_or_not_and_types_of_pixels_may_have_losses_of_their_own():
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 5, 8, 8)
    labels = torch.randint(0, 2, (2, 1, 8, 8))
    labels[0, 0, :2, :3], labels[0, 0, 5:, 5:], labels[1, 0, 2:5, 2:5] = 2, 4, 3
    labels[1, 0, 7, 7] = UNTYPED_LESION
    merged = torch.cat([maps[:, :, :2], maps[:, :, 2:].logsumexp(dim=2, keepdim=True)], dim=2)
    of_map = StackedDeepSupervisionLoss(make_loss())
    expected = of_map(merged, labels.clamp(max=2))
    for level in range(3):
        log_types = maps[:, level, 2:].log_softmax(dim=1)
        regions = [log_types[0, 0, :2, :3], log_types[0, 2, 5:, 5:], log_types[1, 1, 2:5, 2:5]]
        expected -= 0.4 / 2**level * sum(region.mean() for region in regions) / 3
    loss = SlabLoss(of_map, pixel_type_weight=0.4)(maps, labels)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    three = torch.randn(2, 3, 3, 8, 8)
    assert SlabLoss(of_map, pixel_type_weight=0.4)(three, labels) == SlabLoss(of_map)(three, labels)


def test_a_few_pixels_of_a_region_are_no_type():
    types = torch.randn(1, 1, 3, 8, 8)
    weights = torch.full((1, 1, 8, 8), 1 / 64)
    labels = torch.ones(1, 1, 8, 8, dtype=torch.int64)
    labels[0, 0, 0, :6] = 3
    loss = SlabLoss(StackedDeepSupervisionLoss(make_loss()))
    assert loss(SlabOutput(None, types, weights), labels) == 0
    labels[0, 0, 0] = 3
    assert loss(SlabOutput(None, types, weights), labels) > 0
