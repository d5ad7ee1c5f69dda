"""The marginal loss, compared with explicit sums of probabilities."""

import pytest
import torch
from monai.losses import DiceCELoss

from liverseg.labels import LIVER_OR_LESION, UNTYPED_LESION
from liverseg.networks import SlabOutput
from liverseg.training import MarginalDiceCELoss, SlabLoss, StackedDeepSupervisionLoss

WEIGHT = torch.tensor([0.5, 1.0, 2.0, 3.0, 4.0])
CROSS_ENTROPY = {"softmax": True, "to_onehot_y": True, "include_background": False, "batch": True, "lambda_dice": 0}


@pytest.fixture
def logits():
    return torch.randn(3, 5, 8, 9, generator=torch.Generator().manual_seed(0), requires_grad=True)


@pytest.fixture
def target():
    return torch.randint(0, 5, (3, 1, 8, 9), generator=torch.Generator().manual_seed(1))


def summed(logits, target, groups, weights):
    """Return the weighted cross entropy of sums of probabilities; `groups` has the channels of each label value."""
    probabilities = logits.softmax(dim=1)
    total = weight_of_all = 0.0
    for value, channels in groups.items():
        where = target[:, 0] == value
        total = total - weights[value] * probabilities[:, channels].sum(1)[where].log().sum()
        weight_of_all = weight_of_all + weights[value] * where.sum()
    return total / weight_of_all


@pytest.mark.parametrize("dice_weight", [0, 1])
def test_full_label_maps_have_the_plain_loss(logits, target, dice_weight):
    arguments = {**CROSS_ENTROPY, "lambda_dice": dice_weight}
    assert MarginalDiceCELoss(WEIGHT, **arguments)(logits, target) == DiceCELoss(weight=WEIGHT, **arguments)(
        logits, target
    )


def test_liver_or_lesion_uses_the_summed_probability(logits, target):
    target = torch.where(target > 0, LIVER_OR_LESION, 0)
    groups, weights = {0: [0], LIVER_OR_LESION: [1, 2, 3, 4]}, {0: 0.5, LIVER_OR_LESION: 1.0}
    loss = MarginalDiceCELoss(WEIGHT, **CROSS_ENTROPY)(logits, target)
    torch.testing.assert_close(loss, summed(logits, target, groups, weights))
    (gradient,) = torch.autograd.grad(loss, logits)
    # within the sum each logit changes by its share of the probability, so their ratios stay
    inside = (target == LIVER_OR_LESION).expand(-1, 4, -1, -1)
    share = logits[:, 1:].softmax(dim=1) * gradient[:, 1:].sum(dim=1, keepdim=True)
    torch.testing.assert_close(gradient[:, 1:][inside], share[inside])


def test_lesions_of_unknown_type(logits, target):
    target = torch.where(target > 1, UNTYPED_LESION, target)
    groups = {0: [0], 1: [1], UNTYPED_LESION: [2, 3, 4]}
    loss = MarginalDiceCELoss(WEIGHT, **CROSS_ENTROPY)(logits, target)
    torch.testing.assert_close(loss, summed(logits, target, groups, {0: 0.5, 1: 1.0, UNTYPED_LESION: 3.0}))


def test_every_pixel_of_a_mixed_batch_keeps_its_weight(logits, target):
    target[0] = torch.where(target[0] > 0, LIVER_OR_LESION, 0)
    target[1] = torch.where(target[1] > 1, UNTYPED_LESION, target[1])
    groups = {**{label: [label] for label in range(5)}, LIVER_OR_LESION: [1, 2, 3, 4], UNTYPED_LESION: [2, 3, 4]}
    weights = {**dict(enumerate(WEIGHT.tolist())), LIVER_OR_LESION: 1.0, UNTYPED_LESION: 3.0}
    loss = MarginalDiceCELoss(WEIGHT, **CROSS_ENTROPY)(logits, target)
    torch.testing.assert_close(loss, summed(logits, target, groups, weights))


@pytest.mark.parametrize("liver_weight", [1.0, 0.05])
def test_dice_is_that_of_the_sum(liver_weight):
    target = torch.full((1, 1, 4, 4), LIVER_OR_LESION)
    target[..., :2] = 0
    arguments = {**CROSS_ENTROPY, "lambda_dice": 1, "lambda_ce": 0}
    weight = torch.tensor([1, liver_weight, 1, 1, 1])
    loss = MarginalDiceCELoss(weight, **arguments)
    right = torch.zeros(1, 5, 4, 4)
    right[:, 0, :, :2] = 30
    right[:, 3, :, 2:] = 30  # for any of these predictions
    assert loss(right, target).item() == pytest.approx(0, abs=1e-3)
    assert loss(right.flip(-1), target).item() == pytest.approx(liver_weight, rel=0.02)
    both = torch.cat([right, right.flip(-1)]), torch.cat([target, target.clamp(max=1)])
    plain = DiceCELoss(weight=weight, **arguments)(both[0][1:], both[1][1:])
    torch.testing.assert_close(loss(*both), plain / 2, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("channels", [3, 5])
def test_maps_of_every_strategy_learn_from_partial_labels(channels):
    weight = WEIGHT[:channels]
    maps = torch.randn(2, 4, channels, 6, 6, generator=torch.Generator().manual_seed(2))
    labels = torch.randint(0, 3, (2, 1, 6, 6), generator=torch.Generator().manual_seed(3))
    labels[0] = torch.where(labels[0] > 0, LIVER_OR_LESION, 0)
    labels[1] = torch.where(labels[1] > 1, UNTYPED_LESION, labels[1])
    of_map = StackedDeepSupervisionLoss(MarginalDiceCELoss(weight, **CROSS_ENTROPY))
    expected = labels.clone()
    if channels == 3:  # a map without types has lesions
        expected[labels == UNTYPED_LESION] = 2
    assert SlabLoss(of_map)(maps, labels) == of_map(maps, expected)


def test_types_are_learnt_from_lesions_of_known_type_alone():
    maps = torch.zeros(2, 3, 1, 4)
    maps[:, 2] = 40
    types = torch.randn(2, 3, 1, 4, generator=torch.Generator().manual_seed(4), requires_grad=True)
    labels = torch.tensor([[[[LIVER_OR_LESION, LIVER_OR_LESION, 0, 0]]], [[[1, UNTYPED_LESION, UNTYPED_LESION, 0]]]])
    of_map = StackedDeepSupervisionLoss(MarginalDiceCELoss(WEIGHT[:3], **CROSS_ENTROPY))
    loss = SlabLoss(of_map)(SlabOutput(maps, types), labels)
    assert loss == SlabLoss(of_map)(maps, labels)
    vector = SlabLoss(of_map)(SlabOutput(None, types[:, :, 0, 0]), labels)
    assert vector == 0
