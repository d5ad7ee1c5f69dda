import warnings

import numpy as np
import pytest
import torch
from monai.networks import convert_to_onnx
from monai.networks.nets import SEResNet50
from torch.utils.flop_counter import FlopCounterMode

from liverseg.errors import UsageError
from liverseg.networks import SIZES, SEResUNet


@pytest.fixture(scope="module")
def full():
    return SEResUNet("full", deep_supervision=True)


def _slabs(batch, height, width):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (31, 33), (32, 64), (65, 47)])
@pytest.mark.parametrize("out_channels", [3, 5])
def test_any_height_and_width_comes_back_as_it_was(shape, out_channels):
    network = SEResUNet("small", out_channels=out_channels).eval()
    with torch.inference_mode():
        logits = network(_slabs(2, *shape))
    assert logits.shape == (2, out_channels, *shape)
    assert torch.isfinite(logits).all()


def test_full_size_takes_odd_shapes(full):
    with torch.inference_mode():
        assert full.eval()(_slabs(1, 33, 50)).shape == (1, 5, 33, 50)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("size", "pixels", "parameters", "flops"),
    [("full", 320, (34e6, 37e6), (30e9, 35e9)), ("small", 160, (0.5e6, 2e6), (0, 1e9))],
)
def test_size_and_cost_are_as_designed(size, pixels, parameters, flops):
    with torch.device("meta"):
        network = SEResUNet(size).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 3, pixels, pixels))
    assert parameters[0] <= sum(tensor.numel() for tensor in network.parameters()) <= parameters[1]
    assert flops[0] <= counter.get_total_flops() <= flops[1]


def test_padding_does_not_reach_what_the_input_says():
    """A slab gives the same output as the same slab padded by repetition."""
    network = SEResUNet("small").eval()
    slab = _slabs(1, 50, 70)
    padded = torch.nn.functional.pad(slab, [0, 26, 0, 14], mode="replicate")
    with torch.inference_mode():
        torch.testing.assert_close(network(slab), network(padded)[:, :, :50, :70])


def test_deep_supervision_stacks_four_maps_only_while_training():
    network = SEResUNet("small", out_channels=3, deep_supervision=True)
    assert network(_slabs(2, 37, 70)).shape == (2, 4, 3, 37, 70)
    assert network.eval()(_slabs(2, 37, 70)).shape == (2, 3, 37, 70)
    assert SEResUNet("small", out_channels=3)(_slabs(2, 37, 70)).shape == (2, 3, 37, 70)


def test_first_map_of_deep_supervision_is_the_eval_output():
    network = SEResUNet("small", deep_supervision=True).eval()
    slab = _slabs(2, 64, 64)
    expected = network(slab)
    network.training = True  # its batch norms stay in eval mode, so only the stacking changes
    stacked = network(slab)
    torch.testing.assert_close(stacked[:, 0], expected)
    assert not torch.allclose(stacked[:, 1], expected)


@pytest.mark.integration
@pytest.mark.parametrize("size", list(SIZES))
def test_gradient_reaches_every_parameter(size):
    network = SEResUNet(size, deep_supervision=True)
    network(_slabs(2, 64, 64)).square().mean().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.integration
def test_encoder_has_the_tensors_of_monai_se_resnet50(full):
    theirs = SEResNet50(spatial_dims=2, in_channels=3).eval()
    state = theirs.state_dict()
    ours = full.encoder.state_dict()
    assert [*ours, "last_linear.weight", "last_linear.bias"] == [*state]
    theirs.load_state_dict({**state, **ours})
    slabs = torch.rand(1, 3, 64, 96) * 2 - 1
    with torch.inference_mode():
        assert torch.equal(full.eval().encoder(slabs)[-1], theirs.features(slabs))


@pytest.mark.integration
@pytest.mark.parametrize("size", list(SIZES))
def test_tensors_are_grouped(size):
    plain = SEResUNet(size).state_dict()
    assert {name.split(".")[0] for name in plain} == {"encoder", "decoder", "head"}
    assert {name.split(".")[1] for name in plain if name.startswith("encoder.")} == {f"layer{n}" for n in range(5)}
    assert {name.split(".")[1] for name in plain if name.startswith("decoder.")} == {f"stage{2**n}" for n in range(5)}
    supervised = SEResUNet(size, deep_supervision=True).state_dict()
    assert {name.split(".")[0] for name in supervised.keys() - plain.keys()} == {"aux_heads"}


@pytest.mark.integration
@pytest.mark.parametrize("deep_supervision", [False, True])
def test_torchscript_agrees(deep_supervision):
    network = SEResUNet("small", deep_supervision=deep_supervision).eval()
    scripted = torch.jit.script(network)
    with torch.inference_mode():
        for shape in ((64, 64), (41, 70), (1, 1)):
            torch.testing.assert_close(scripted(_slabs(1, *shape)), network(_slabs(1, *shape)))


@pytest.mark.integration
def test_full_size_scripts(full):
    torch.jit.script(full.eval())


@pytest.mark.integration
def test_onnx_export_agrees_at_other_sizes(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    network = SEResUNet("small").eval()
    axes = {0: "batch", 2: "height", 3: "width"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the TorchScript-based exporter is deprecated, and the only one for free sizes
        convert_to_onnx(
            network,
            [_slabs(1, 64, 64)],
            input_names=["image"],
            output_names=["pred"],
            dynamic_axes={"image": axes, "pred": axes},
            filename=str(tmp_path / "network.onnx"),
            dynamo=False,
        )
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    for shape in ((1, 64, 64), (3, 50, 77), (2, 1, 5)):
        slab = _slabs(*shape)
        with torch.inference_mode():
            expected = network(slab).numpy()
        np.testing.assert_allclose(session.run(None, {"image": slab.numpy()})[0], expected, atol=1e-3)


def test_bfloat16_autocast_trains_and_stays_close():
    network = SEResUNet("small", deep_supervision=True).to(memory_format=torch.channels_last)
    slab = _slabs(2, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = network(slab).float().square().mean()
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())
    network.eval()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        low = network(slab).float()
    with torch.inference_mode():
        high = network(slab)
    assert (low - high).abs().mean() < 0.05 * high.abs().mean()


def test_arguments_build_the_same_network():
    network = SEResUNet("small", in_channels=5, out_channels=3, deep_supervision=True)
    again = SEResUNet(**network.arguments())
    assert again.arguments() == network.arguments()
    assert (network.size, network.stride) == ("small", 32)
    again.load_state_dict(network.state_dict())


def test_unknown_size_is_refused():
    with pytest.raises(UsageError, match="'huge' is not known; there are full, small, lite"):
        SEResUNet("huge")


@pytest.mark.integration
def test_small_network_learns_blobs_a_few_pixels_across():
    """Lesions of 4 to 6 pixels survive the strides: one batch of discs is learnt almost perfectly."""
    torch.manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    labels = torch.zeros(4, 64, 64, dtype=torch.long)
    for index in range(4):
        for row, column, radius in ((12 + index, 15, 2.0), (40, 20 + 3 * index, 2.5), (30, 50 - index, 3.0)):
            labels[index][(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = 1
    slab = (labels[:, None].float() + 0.3 * torch.randn(4, 3, 64, 64)).contiguous(memory_format=torch.channels_last)
    network = SEResUNet("small", out_channels=2).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(slab), labels, weight=torch.tensor([1.0, 5.0])).backward()
        optimizer.step()
    with torch.inference_mode():
        found = network(slab).argmax(1) == 1
    dice = 2 * (found & (labels == 1)).sum() / (found.sum() + (labels == 1).sum())
    assert dice > 0.9
