import pytest
import torch
from monai.networks.blocks import Convolution
from torch import nn

from liverseg.networks import LesionTypeUNet, SEResUNet
from liverseg.networks.blocks import fold_batch_norm


def learnt(network):
    """Give every batch norm random statistics and weights, as after training."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in ((module.running_mean, -1, 1), (module.running_var, 0.3, 3)):
                nn.init.uniform_(tensor, low, high)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -1, 1)
    return network.eval()


@pytest.mark.integration
@pytest.mark.parametrize("size", ["small", "full"])
@pytest.mark.parametrize("kind", [SEResUNet, LesionTypeUNet])
def test_folded_networks_say_the_same(kind, size):
    network = learnt(kind(size, out_channels=5))
    slabs = torch.rand(2, 3, 64, 96) * 2 - 1
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    with torch.inference_mode():
        before = network(slabs)
        assert fold_batch_norm(network) == norms > 10
        after = network(slabs)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3 * float(before.abs().max()))


def test_only_what_follows_a_convolution_directly_is_folded():
    network = nn.Sequential(Convolution(2, 3, 4, act="relu", norm="batch", adn_ordering="AN"), nn.BatchNorm2d(4))
    learnt(network)
    slabs = torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        before = network(slabs)
        assert fold_batch_norm(network) == 0
        torch.testing.assert_close(network(slabs), before)


def test_a_network_that_learns_is_refused():
    with pytest.raises(ValueError, match=r"call eval\(\) first"):
        fold_batch_norm(SEResUNet("small"))
