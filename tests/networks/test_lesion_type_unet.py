"""Networks of all strategies: outputs, shared parts, transfer, and the type head of LesionTypeUNet."""

import math
import re
from dataclasses import replace

import pytest
import torch

from liverseg.errors import LiversegError, UsageError
from liverseg.labels import JOINT_LABELS, LESION_TYPES, label_names
from liverseg.networks import (
    LesionTypeUNet,
    SEResUNet,
    SlabClassifier,
    SlabOutput,
    YNet,
    export_weights,
    load_weights,
    recorded_settings,
    transfer_weights,
)
from liverseg.networks.lesion_type_unet import LesionTypeHead

SLABS = torch.rand(2, 3, 50, 70) * 2 - 1
NETWORKS = {
    "segmentation": lambda **more: SEResUNet("small", out_channels=3, **more),
    "joint": lambda **more: SEResUNet("small", out_channels=5, sum_types=True, **more),
    "joint, the paper's": lambda **more: SEResUNet("small", out_channels=5, **more),
    "ynet": lambda **more: YNet("small", **more),
    "ynet_strong": lambda **more: YNet("small", branch="strong", **more),
    "classification": lambda **more: SlabClassifier("small", **more),
    "ours": lambda **more: LesionTypeUNet("small", **more),
}


@pytest.mark.integration
@pytest.mark.parametrize("size", ["small", "full"])
@pytest.mark.parametrize("branch", ["plain", "strong"])
def test_a_ynet_outlines_lesions_and_names_the_slab(size, branch):
    output = YNet(size, branch=branch).eval()(SLABS)
    assert output.maps.shape == (2, 3, 50, 70)
    assert output.types.shape == (2, len(LESION_TYPES))


def test_a_ynet_in_training_supervises_its_maps_deeply():
    assert NETWORKS["ynet"](deep_supervision=True).train()(SLABS).maps.shape == (2, 4, 3, 50, 70)


def test_the_strong_branch_has_more_to_learn_with():
    plain, strong = (
        sum(p.numel() for p in YNet("small", branch=branch).type_head.parameters()) for branch in ("plain", "strong")
    )
    assert strong > 10 * plain


def test_an_unknown_branch_is_refused():
    with pytest.raises(UsageError, match="branch 'fast' is not known; there are plain and strong"):
        YNet("small", branch="fast")


def test_a_classifier_names_and_outlines_nothing():
    output = SlabClassifier("small").eval()(SLABS)
    assert output.maps is None
    assert output.types.shape == (2, len(LESION_TYPES))
    assert not any(name.startswith("decoder") for name in SlabClassifier("small").state_dict())


@pytest.mark.parametrize("name", NETWORKS)
def test_every_strategy_has_the_same_encoder_and_decoder(name):
    joint, state = NETWORKS["joint"]().state_dict(), NETWORKS[name]().state_dict()
    parts = ("encoder.",) if name == "classification" else ("encoder.", "decoder.")
    shared = {key: tensor.shape for key, tensor in state.items() if key.startswith(("encoder.", "decoder."))}
    assert shared == {key: tensor.shape for key, tensor in joint.items() if key.startswith(parts)}


@pytest.mark.integration
@pytest.mark.parametrize("name", NETWORKS)
def test_every_strategy_takes_over_pre_training(name, exported, pretrained, record):
    network = NETWORKS[name]()
    report = transfer_weights(network, exported, input_spec=record.input_spec)
    state = network.state_dict()
    assert report.loaded
    assert all(torch.equal(state[key], pretrained.state_dict()[key]) for key in report.loaded)
    assert {key for key in state if key.startswith(("encoder.", "decoder."))} == {*report.loaded}
    if name == "classification":
        assert report.left["decoder.stage16.block.conv1.conv.weight"] == "not in the network"


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_built_again_from_its_arguments(name):
    network = NETWORKS[name]()
    again = type(network)(**network.arguments())
    assert again.arguments() == network.arguments()
    again.load_state_dict(network.state_dict())


def test_lesion_type_unet_output_in_training_and_evaluation():
    network = LesionTypeUNet("small", deep_supervision=True)
    output = network.train()(SLABS)
    assert isinstance(output, SlabOutput)
    assert output.maps.shape == (2, 4, 3, 50, 70)
    assert output.types.shape == (2, len(LESION_TYPES), 50, 70)
    assert network.eval()(SLABS).shape == (2, 5, 50, 70)


def test_doubt_between_types_makes_no_lesion_smaller():
    torch.manual_seed(0)
    network = LesionTypeUNet("small").eval()
    with torch.no_grad():
        logits = network(SLABS)
        three = SEResUNet.forward(network, SLABS)
    assert torch.equal(logits.argmax(1) >= 2, three.argmax(1) == 2)


def test_summed_types_decide_whether_a_pixel_is_lesion():
    """Three even types are a lesion if together they are likelier than the liver, though none is alone."""
    torch.manual_seed(0)
    network = SEResUNet("small", out_channels=5).eval()
    with torch.no_grad():
        network.head.weight[3:] = network.head.weight[2] + 0.1 * torch.randn_like(
            network.head.weight[3:]
        )  # nearly even
        paper = network(SLABS)
        network.sum_types = True
        ours = network(SLABS)
    probabilities = paper.softmax(dim=1)
    together = torch.cat([probabilities[:, :2], probabilities[:, 2:].sum(dim=1, keepdim=True)], dim=1)
    assert torch.equal(ours.argmax(dim=1).clamp(max=2), together.argmax(dim=1))
    found, found_before = ours.argmax(dim=1) >= 2, paper.argmax(dim=1) >= 2
    assert found[found_before].all()
    assert found.sum() > 1.3 * found_before.sum() > 0
    torch.testing.assert_close(ours[:, 2:].softmax(dim=1), paper[:, 2:].softmax(dim=1))
    torch.testing.assert_close(ours[:, :2], paper[:, :2])


def test_summed_types_change_neither_training_nor_a_map_without_types():
    for channels, mode in ((5, True), (3, True), (3, False)):
        networks = [SEResUNet("small", out_channels=channels, sum_types=sum_types) for sum_types in (False, True)]
        networks[1].load_state_dict(networks[0].state_dict())
        outputs = [network.train(mode)(SLABS) for network in networks]
        assert torch.equal(*outputs)
    assert "sum_types" not in networks[1].arguments()


def test_types_of_ours_move_neither_outline_nor_features():
    network = LesionTypeUNet("small").train()
    network(SLABS).types.sum().backward()
    learnt = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert learnt == {name for name, _ in network.named_parameters() if name.startswith("type_head.")}


@pytest.mark.parametrize("evidence", ["features", "both"])
def test_other_evidence_learns_features_but_no_outline(evidence):
    network = LesionTypeUNet("small", evidence=evidence).train()
    network(SLABS).types.sum().backward()
    assert network.head.weight.grad is None
    assert network.decoder.stage4.block.conv1.conv.weight.grad.abs().sum() > 0
    assert network.arguments()["evidence"] == evidence


def test_unknown_evidence_is_refused():
    with pytest.raises(UsageError, match="evidence 'size' is not known; there are measurements, features, both"):
        LesionTypeUNet("small", evidence="size")


@pytest.mark.parametrize("windows", [[4], [0], [-3], [], [2.5], [True, "9"]])
def test_windows_that_are_not_odd_are_refused(windows):
    with pytest.raises(UsageError, match=r"windows .*: odd numbers of pixels at stride 4 are needed"):
        LesionTypeUNet("small", windows=windows)


def test_windows_are_measured_independently():
    torch.manual_seed(0)
    slab, lesion, features = torch.rand(1, 3, 64, 64), torch.rand(1, 1, 64, 64), torch.rand(1, 4, 16, 16)

    def measured(*windows):
        head = LesionTypeHead(in_channels=3, features=4, windows=windows)
        head.layers = torch.nn.Identity()
        return head(slab, lesion, features)

    assert torch.equal(measured(5, 11), torch.cat([measured(5), measured(11)], dim=1))
    assert not torch.equal(measured(5), measured(11))


def test_recorded_arguments_build_the_same_network(record, tmp_path):
    network = LesionTypeUNet("small", evidence="both", windows=[5, 11]).eval()
    path = tmp_path / "joint.safetensors"
    changes = {"network": "LesionTypeUNet", "arguments": network.arguments(), "labels": label_names(JOINT_LABELS)}
    export_weights(path, network.state_dict(), replace(record, **changes))
    again = recorded_settings(path).network_class("small", in_channels=3, out_channels=5)
    load_weights(again, path)
    assert again.arguments() == network.arguments()
    assert torch.equal(again.eval()(SLABS), network(SLABS))


@pytest.mark.parametrize(("trained", "evaluated"), [([15], [11]), ([5, 11], [5, 15])])
def test_weights_trained_with_other_windows_are_refused(trained, evaluated, record, tmp_path):
    network = LesionTypeUNet("small", windows=trained)
    path = tmp_path / "joint.safetensors"
    changes = {"network": "LesionTypeUNet", "arguments": network.arguments(), "labels": label_names(JOINT_LABELS)}
    export_weights(path, network.state_dict(), replace(record, **changes))
    expected = f"does not fit: windows {trained} in the file, {evaluated} in the network; "
    with pytest.raises(LiversegError, match=re.escape(expected)):
        load_weights(LesionTypeUNet("small", windows=evaluated), path)
    load_weights(LesionTypeUNet("small", windows=trained), path)


@pytest.mark.parametrize("sum_types", [False, True])
def test_recorded_rule_for_types_is_used_again(sum_types, record, tmp_path):
    network = SEResUNet("small", out_channels=5, sum_types=sum_types).eval()
    path = tmp_path / "joint.safetensors"
    changes = {"arguments": network.arguments(), "labels": label_names(JOINT_LABELS)}
    export_weights(path, network.state_dict(), replace(record, **changes))
    settings = recorded_settings(path)
    again = settings.network_class("small", in_channels=3, out_channels=5)
    load_weights(again, path)
    assert settings.sum_types is again.sum_types is sum_types
    assert torch.equal(again.eval()(SLABS), network(SLABS))


def test_measurements_are_what_they_say():
    """The head's input for a lesion of known HU, rim and spread, normalised to about zero mean and unit spread."""
    head = LesionTypeHead(in_channels=3, features=4)
    head.layers = torch.nn.Identity()
    slab = torch.full((1, 3, 64, 64), 0.5)
    lesion = torch.zeros(1, 1, 64, 64)
    lesion[..., 24:40, 24:40] = 1
    slab[..., 24:40, 24:40] = 0.1  # the rim inside its outline
    slab[..., 26:38, 26:38] = -0.2  # its core
    measurements = head(slab, lesion, torch.zeros(1, 4, 16, 16))[0, :, 8, 8]
    core, core_spread, inner, _, outer, outer_spread = measurements[:18].reshape(6, 3)
    assert core.tolist() == pytest.approx([(-0.2 - 0.3) / 0.25] * 3, abs=1e-3)
    assert inner.tolist() == pytest.approx([(0.1 - 0.3) / 0.25] * 3, abs=1e-3)
    assert outer.tolist() == pytest.approx([(0.5 - 0.3) / 0.25] * 3, abs=1e-3)
    assert core_spread.tolist() == pytest.approx([0.01] * 3, abs=0.02)
    assert outer_spread.tolist() == pytest.approx([0.01] * 3, abs=0.02)
    area = 16 * 16 / 60**2
    assert measurements[18].item() == pytest.approx((math.log(area) + 2.5) / 1.2, abs=1e-3)
