from dataclasses import replace

import pytest
import torch

from liverseg.errors import LiversegError, UsageError
from liverseg.networks import (
    LesionTypeUNet,
    SEResUNet,
    SlabInput,
    average_weights,
    export_weights,
    load_weights,
    read_record,
    read_weights,
    save_state,
    transfer_weights,
)

INPUT_SPEC = SlabInput((-200, 250))


def _unchanged(network, before):
    return all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def _copy(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def test_load_takes_everything(exported, pretrained, record):
    network = SEResUNet("small", out_channels=3)
    loaded = load_weights(network, exported, input_spec=INPUT_SPEC)
    assert loaded is not None and loaded.epoch == record.epoch
    assert _unchanged(network, pretrained.state_dict())


def test_load_of_a_bare_state_has_no_record(tmp_path, pretrained):
    torch.save(pretrained.state_dict(), tmp_path / "model.pt")
    network = SEResUNet("small", out_channels=3)
    assert load_weights(network, tmp_path / "model.pt") is None
    assert _unchanged(network, pretrained.state_dict())


@pytest.mark.integration
def test_load_without_aux_heads_ignores_those_of_the_file(tmp_path, record):
    supervised = SEResUNet("small", out_channels=3, deep_supervision=True)
    save_state(tmp_path / "model.pt", supervised.state_dict(), replace(record, arguments=supervised.arguments()))
    plain = SEResUNet("small", out_channels=3)
    load_weights(plain, tmp_path / "model.pt")
    assert _unchanged(plain, supervised.state_dict())
    again = SEResUNet("small", out_channels=3, deep_supervision=True)
    load_weights(again, tmp_path / "model.pt")
    assert _unchanged(again, supervised.state_dict())
    save_state(tmp_path / "plain.pt", plain.state_dict(), record)
    with pytest.raises(LiversegError, match=r"aux_heads.stride2.weight missing in the file; .*; and 3 others"):
        load_weights(again, tmp_path / "plain.pt")


def test_load_error_names_three_differences_and_counts_the_rest(exported):
    network = SEResUNet("small", out_channels=5)
    before = _copy(network)
    with pytest.raises(LiversegError) as refusal:
        load_weights(network, exported)
    assert str(refusal.value) == (
        f"{exported}: does not fit: out_channels 3 in the file, 5 in the network; labels background, liver, lesion in "
        "the file, background, liver, cyst, hemangioma, metastasis in the network; head.weight 3×8×1×1 in the file, "
        "5×8×1×1 in the network; and 1 other; use weights of the same network, or the bundle of "
        "these weights"
    )
    assert _unchanged(network, before)


@pytest.mark.integration
def test_load_of_another_size_reports_the_size_first(exported):
    with pytest.raises(LiversegError, match=r"does not fit: size small in the file, full in the network; .* others; "):
        load_weights(SEResUNet("full", out_channels=3), exported)


def test_load_compares_window_slab_and_labels(tmp_path, pretrained, record, exported):
    network = SEResUNet("small", out_channels=3)
    with pytest.raises(LiversegError, match=r"HU window \[-200, 250\] in the file, \[-100, 200\] in the network; use"):
        load_weights(network, exported, input_spec=SlabInput((-100, 200)))
    with pytest.raises(LiversegError, match=r"slab slices 3 in the file, 5 in the network"):
        load_weights(network, exported, input_spec=replace(INPUT_SPEC, slab_slices=5))
    relabelled = replace(record, labels=("background", "spleen", "lesion"))
    save_state(tmp_path / "model.pt", pretrained.state_dict(), relabelled)
    with pytest.raises(
        LiversegError, match=r"labels background, spleen, lesion in the file, background, liver, lesion"
    ):
        load_weights(network, tmp_path / "model.pt")


def test_load_of_another_networks_state_names_tensors(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "other.pt")
    with pytest.raises(LiversegError, match=r"encoder.layer0.conv1.weight missing in the file; .*; and \d+ others"):
        load_weights(SEResUNet("small"), tmp_path / "other.pt")


def test_load_refuses_other_number_types(tmp_path, pretrained):
    torch.save(pretrained.double().state_dict(), tmp_path / "double.pt")
    with pytest.raises(LiversegError, match=r"encoder.layer0.conv1.weight torch.float64 in the file, torch.float32 in"):
        load_weights(SEResUNet("small", out_channels=3), tmp_path / "double.pt")


def test_transfer_loads_all_but_the_head(exported, pretrained):
    network = SEResUNet("small", out_channels=5)
    before = _copy(network)
    report = transfer_weights(network, exported, input_spec=INPUT_SPEC)
    state = network.state_dict()
    assert set(report.loaded) == {name for name in state if name.startswith(("encoder.", "decoder."))}
    assert all(torch.equal(state[name], pretrained.state_dict()[name]) for name in report.loaded)
    assert all(torch.equal(state[name], before[name]) for name in report.left)
    assert report.left == {
        "head.weight": "5 channels here, 3 in the file",
        "head.bias": "5 channels here, 3 in the file",
    }
    assert report.summary() == (
        f"transfer: {len(state) - 2} tensors loaded, 2 left: head.weight (5 channels here, 3 in the file), "
        "head.bias (5 channels here, 3 in the file)"
    )
    assert report.to_json() == {"loaded": list(report.loaded), "left": report.left}


def test_transfer_reports_aux_heads_on_either_side(tmp_path, exported, record):
    network = SEResUNet("small", out_channels=5, deep_supervision=True)
    report = transfer_weights(network, exported, input_spec=INPUT_SPEC)
    assert report.left["aux_heads.stride2.weight"] == "not in the file" and len(report.left) == 8
    other = SEResUNet("small", out_channels=3, deep_supervision=True)
    path = tmp_path / "supervised.safetensors"
    export_weights(path, other.state_dict(), replace(record, arguments=other.arguments()))
    report = transfer_weights(SEResUNet("small", out_channels=3), path, input_spec=INPUT_SPEC)
    assert report.left["aux_heads.stride8.bias"] == "not in the network"
    assert report.left["head.weight"] == "a head starts new"


@pytest.mark.integration
@pytest.mark.parametrize(
    ("arguments", "input_spec", "message"),
    [
        ({"size": "full"}, INPUT_SPEC, "size small in the file, full in the network; .* others; pre-train with"),
        (
            {"in_channels": 5},
            replace(INPUT_SPEC, slab_slices=5),
            "in_channels 3 in the file, 5 in the network; slab slices 3 in the file, 5 in",
        ),
        ({}, replace(INPUT_SPEC, pixel_mm=1.5), "pixel size each CT's own in the file, 1.5 mm in the network; pre-"),
        (
            {},
            replace(INPUT_SPEC, slab_spacing_mm=5),
            "slab spacing adjacent slices in the file, 5 mm in the network; pre-",
        ),
        ({}, SlabInput((-150, 250)), r"HU window \[-200, 250\] in the file, \[-150, 250\] in the network; pre-train"),
    ],
)
def test_transfer_refuses_what_was_trained_otherwise(exported, arguments, input_spec, message):
    network = SEResUNet(**{"size": "small", **arguments})
    before = _copy(network)
    with pytest.raises(LiversegError, match=message):
        transfer_weights(network, exported, input_spec=input_spec)
    assert _unchanged(network, before)


def test_transfer_refuses_another_network(tmp_path, pretrained, record):
    export_weights(tmp_path / "w.safetensors", pretrained.state_dict(), replace(record, network="UNet"))
    with pytest.raises(LiversegError, match=r"network UNet in the file, SEResUNet in the network"):
        transfer_weights(SEResUNet("small"), tmp_path / "w.safetensors", input_spec=INPUT_SPEC)


def test_transfer_refuses_a_state_without_record(tmp_path, pretrained):
    torch.save(pretrained.state_dict(), tmp_path / "model.pt")
    with pytest.raises(LiversegError, match=r"model.pt: no record describes these weights; run the pretrain bundle's"):
        transfer_weights(SEResUNet("small"), tmp_path / "model.pt", input_spec=INPUT_SPEC)


def _tuned(pretrained, record, **changed):
    network = LesionTypeUNet("small", out_channels=5)
    network.load_state_dict(
        {
            name: tensor + 1
            for name, tensor in pretrained.state_dict().items()
            if name.startswith(("encoder.", "decoder."))
        },
        strict=False,
    )
    labels = ("background", "liver", "cyst", "hemangioma", "metastasis")
    known = {"network": "LesionTypeUNet", "arguments": network.arguments(), "labels": labels, "lesion_threshold": 0.8}
    return network.state_dict(), replace(record, **{**known, **changed})


def test_average_interpolates_shared_tensors_and_keeps_new_heads(tmp_path, exported, pretrained, record, caplog):
    state, tuned_record = _tuned(pretrained, record)
    export_weights(tmp_path / "joint.safetensors", state, tuned_record)
    target = average_weights(tmp_path / "joint.safetensors", exported, tmp_path / "out" / "averaged.safetensors", 0.25)
    averaged = read_weights(target)
    shared = [name for name, tensor in pretrained.state_dict().items() if state[name].shape == tensor.shape]
    assert {name.split(".")[0] for name in shared} == {"encoder", "decoder", "head"}
    for name in shared:
        started = pretrained.state_dict()[name]
        expected = 0.75 * state[name] + 0.25 * started if started.is_floating_point() else state[name]
        torch.testing.assert_close(averaged[name], expected)
    own_heads = [name for name in state if name not in shared]
    assert own_heads and all(torch.equal(averaged[name], state[name]) for name in own_heads)
    record_of_average = read_record(target)
    assert record_of_average.network == "LesionTypeUNet"
    assert (record_of_average.metrics, record_of_average.lesion_threshold) == ({}, None)
    assert record_of_average.averaged_share == 0.25
    network = LesionTypeUNet("small", out_channels=5)
    transfer_weights(network, target, input_spec=tuned_record.input_spec)
    own_name = next(name for name in averaged if name.startswith("decoder."))
    assert torch.equal(network.state_dict()[own_name], averaged[own_name])
    with caplog.at_level("WARNING"):
        load_weights(network, target)
    assert "their heads have not been trained since" in caplog.text


def test_average_with_equal_heads_needs_no_further_training(tmp_path, exported, pretrained, record):
    state = {
        name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in read_weights(exported).items()
    }
    export_weights(tmp_path / "tuned.safetensors", state, record)
    target = average_weights(tmp_path / "tuned.safetensors", exported, tmp_path / "averaged.safetensors")
    assert read_record(target).averaged_share is None


@pytest.mark.parametrize("share", [-0.1, 1.5, "x", True, float("nan")])
def test_a_share_is_between_0_and_1(tmp_path, exported, share):
    with pytest.raises(UsageError, match="it must be a number, 0 to 1"):
        average_weights(exported, exported, tmp_path / "averaged.safetensors", share)
    assert not (tmp_path / "averaged.safetensors").exists()


def test_an_average_is_of_one_design_and_input(tmp_path, exported, pretrained, record):
    state, tuned_record = _tuned(pretrained, record, input_spec=SlabInput((0, 250)))
    export_weights(tmp_path / "joint.safetensors", state, tuned_record)
    with pytest.raises(LiversegError, match=r"HU window \[-200, 250\] here, \[0, 250\] in .*the fine-tuning started"):
        average_weights(tmp_path / "joint.safetensors", exported, tmp_path / "averaged.safetensors")
    assert not (tmp_path / "averaged.safetensors").exists()


def test_an_average_is_of_two_files_in_their_order(tmp_path, exported, pretrained, record):
    state, tuned_record = _tuned(pretrained, record)
    export_weights(tmp_path / "joint.safetensors", state, tuned_record)
    target = tmp_path / "averaged.safetensors"
    with pytest.raises(LiversegError, match="are they swapped"):
        average_weights(exported, tmp_path / "joint.safetensors", target)
    with pytest.raises(LiversegError, match="the same tensors"):
        average_weights(exported, exported, target)
    assert not target.exists()


def test_an_average_needs_records(tmp_path, exported, pretrained):
    torch.save(pretrained.state_dict(), tmp_path / "model.pt")
    with pytest.raises(LiversegError, match="no record describes these weights"):
        average_weights(tmp_path / "model.pt", exported, tmp_path / "averaged.safetensors")


def test_heads_are_carried_where_they_are_asked_for(tmp_path, pretrained, record):
    state, tuned_record = _tuned(pretrained, record)
    export_weights(tmp_path / "joint.safetensors", state, tuned_record)
    network = LesionTypeUNet("small", out_channels=5, deep_supervision=True)
    before = _copy(network)
    report = transfer_weights(network, tmp_path / "joint.safetensors", input_spec=tuned_record.input_spec, heads=True)
    after = network.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in state.items())
    aux = [name for name in after if name not in state]
    assert aux and all(torch.equal(after[name], before[name]) for name in aux)
    assert set(report.left) == set(aux)


def test_heads_of_other_labels_are_not_carried(exported):
    network = SEResUNet("small", out_channels=5)
    before = _copy(network)
    with pytest.raises(LiversegError, match="out_channels 3 in the file, 5 in the network"):
        transfer_weights(network, exported, input_spec=INPUT_SPEC, heads=True)
    assert _unchanged(network, before)
