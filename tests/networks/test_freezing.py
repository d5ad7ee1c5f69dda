"""Frozen parts do not change, neither weights nor batch norm statistics."""

import pytest
import torch

from liverseg.errors import UsageError
from liverseg.networks import LesionTypeUNet, SEResUNet, SlabClassifier, SlabOutput, YNet


def trained(network, steps=2):
    """Return the names of the tensors that two steps of Adam, with earlier momentum, change."""
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    torch.manual_seed(1)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for _ in range(steps):
        network.train()  # as a trainer does before every batch
        optimizer.zero_grad(set_to_none=False)
        loss_of(network(torch.rand(2, 3, 32, 32))).backward()
        optimizer.step()
    return {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}


def loss_of(output):
    """Return a number that depends on all outputs of a network."""
    tensors = [part for part in output if part is not None] if isinstance(output, SlabOutput) else [output]
    return sum(part.square().mean() for part in tensors)


@pytest.mark.integration
@pytest.mark.parametrize("kind", [YNet, SlabClassifier, LesionTypeUNet])
def test_the_encoder_of_every_strategy_can_be_frozen(kind):
    network = kind("small")
    network.freeze(["encoder"])
    changed = trained(network)
    assert not {name for name in changed if name.startswith("encoder.")}
    assert any(name.startswith("type_head.") for name in changed)
    network.freeze([])
    assert {"encoder.layer0.bn1.running_mean", "encoder.layer0.conv1.weight"} <= trained(network)


@pytest.mark.integration
def test_nothing_is_frozen_at_first():
    changed = trained(SEResUNet("small"))
    assert "encoder.layer0.bn1.running_mean" in changed
    assert "encoder.layer4.0.conv1.conv.weight" in changed


@pytest.mark.parametrize("parts", [("encoder",), ("encoder.layer0", "encoder.layer2"), ("decoder",)])
def test_frozen_parts_stay_and_the_others_learn(parts):
    network = SEResUNet("small")
    network.freeze(parts)
    changed = trained(network)
    inside = tuple(f"{part}." for part in parts)
    assert not {name for name in changed if name.startswith(inside)}
    assert "head.weight" in changed
    assert network.head.training
    assert not network.get_submodule(parts[0]).training


def test_freeze_during_training_ignores_momentum():
    network = SEResUNet("small")
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    network(torch.rand(2, 3, 32, 32)).square().mean().backward()
    optimizer.step()
    network.freeze(["encoder.layer1"])
    before = network.encoder.layer1[0].conv1.conv.weight.clone()
    optimizer.zero_grad(set_to_none=False)
    network.train()
    network(torch.rand(2, 3, 32, 32)).square().mean().backward()
    optimizer.step()
    assert torch.equal(network.encoder.layer1[0].conv1.conv.weight, before)


def test_thawed_parts_learn_again():
    network = SEResUNet("small")
    network.freeze(["encoder"])
    network.freeze([])
    assert "encoder.layer0.conv1.weight" in trained(network)


def test_an_unknown_part_is_named():
    with pytest.raises(
        UsageError, match=r"no part 'encoder.layer9' of the network to freeze; there are encoder, decoder"
    ):
        SEResUNet("small").freeze(["encoder.layer9"])
