"""Networks prepared for inference: batch norm, padding and activations folded, weights in another number format."""

import copy

import pytest
import torch
from monai.networks.blocks import Convolution
from torch import nn

from liverseg.networks import LesionTypeUNet, SEResUNet
from liverseg.networks.efficientnet_lite import SamePadding
from liverseg.networks.fusion import FusedConvolution, fold_batch_norm, optimize_for_inference


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


def assert_about_equal(found, expected, tolerance=1e-3):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


def slabs(height=64, width=96):
    return torch.rand(2, 3, height, width, generator=torch.manual_seed(2)) * 2 - 1


@pytest.mark.integration
@pytest.mark.parametrize("size", ["small", "full", "lite"])
@pytest.mark.parametrize("kind", [SEResUNet, LesionTypeUNet])
def test_folded_and_optimised_networks_say_the_same(kind, size):
    network = learnt(kind(size, out_channels=5))
    optimised = copy.deepcopy(network)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    with torch.inference_mode():
        before = network(slabs())
        assert fold_batch_norm(network) == norms > 10
        after = network(slabs())
        optimize_for_inference(optimised)
        assert_about_equal(optimised(slabs()), before)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert_about_equal(after, before)


@pytest.mark.parametrize("size", ["small", "lite"])
def test_no_pass_is_left_for_what_was_folded(size):
    network = learnt(SEResUNet(size, out_channels=5))
    optimize_for_inference(network)
    kinds = {type(module) for module in network.modules()}
    assert FusedConvolution in kinds
    assert not kinds & {nn.BatchNorm2d, nn.ReLU6, nn.AdaptiveAvgPool2d, SamePadding}


@pytest.mark.parametrize("shape", [(64, 96), (32, 33), (40, 200)])
def test_padding_of_strided_convolutions_is_the_same_for_any_shape(shape):
    network = learnt(SEResUNet("lite", out_channels=5))
    with torch.inference_mode():
        before = network(slabs(*shape))
        optimize_for_inference(network)
        assert_about_equal(network(slabs(*shape)), before)


@pytest.mark.skipif(not torch.cpu._is_avx512_bf16_supported(), reason="this processor has no bfloat16")
@pytest.mark.parametrize("kind", [SEResUNet, LesionTypeUNet])
def test_bfloat16_weights_say_what_autocast_says(kind):
    network = learnt(kind("small", out_channels=5))
    optimised = copy.deepcopy(network)
    optimize_for_inference(optimised, torch.bfloat16)
    with torch.inference_mode():
        exact = network(slabs())
        found = optimised(slabs().bfloat16()).float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            expected = network(slabs()).float()
    # as far from float32 as autocast, which rounds as often
    assert (found - exact).abs().mean() < 1.5 * (expected - exact).abs().mean()


def test_parts_that_need_float32_keep_it():
    network = learnt(LesionTypeUNet("small"))
    optimize_for_inference(network, torch.bfloat16)
    assert {parameter.dtype for parameter in network.type_head.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in network.decoder.parameters()} == {torch.bfloat16}


def test_a_torch_without_the_operator_computes_the_same(monkeypatch):
    network = learnt(SEResUNet("small", out_channels=5))
    with torch.inference_mode():
        before = network(slabs())
        monkeypatch.setattr(FusedConvolution, "is_available", staticmethod(lambda: False))
        optimize_for_inference(network)
        assert_about_equal(network(slabs()), before)
    assert not any(isinstance(module, FusedConvolution) for module in network.modules())


def test_only_what_follows_a_convolution_directly_is_folded():
    network = nn.Sequential(Convolution(2, 3, 4, act="relu", norm="batch", adn_ordering="AN"), nn.BatchNorm2d(4))
    learnt(network)
    pixels = torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        before = network(pixels)
        assert fold_batch_norm(network) == 0
        torch.testing.assert_close(network(pixels), before)


def test_a_network_that_learns_is_refused():
    with pytest.raises(ValueError, match=r"call eval\(\) first"):
        fold_batch_norm(SEResUNet("small"))
