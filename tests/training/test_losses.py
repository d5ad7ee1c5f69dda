"""The deep supervision loss against its sum written out."""

import pytest
import torch
from monai.losses import DiceCELoss

from liverseg.training import StackedDeepSupervisionLoss


@pytest.fixture
def maps():
    torch.manual_seed(0)
    return torch.randn(2, 4, 3, 16, 16, requires_grad=True), torch.randint(0, 3, (2, 1, 16, 16))


def make_loss():
    return DiceCELoss(softmax=True, to_onehot_y=True)


def test_maps_weigh_half_as_much_from_one_to_the_next(maps):
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
