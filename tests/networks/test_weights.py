import json
import pickle
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from liverseg.errors import LiversegError, OutputError
from liverseg.networks import (
    RecordedSettings,
    SEResUNet,
    export_trained,
    export_weights,
    load_weights,
    read_record,
    read_weights,
    recorded_settings,
    save_state,
    tensors_hash,
)


@pytest.fixture
def exported(tmp_path, pretrained, record):
    export_weights(tmp_path / "pretrain.safetensors", pretrained.state_dict(), record)
    return tmp_path / "pretrain.safetensors"


@pytest.fixture
def saved(tmp_path, pretrained, record):
    save_state(tmp_path / "model.pt", pretrained.state_dict(), record)
    return tmp_path / "model.pt"


def _same(state, other):
    return state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)


def test_export_comes_back_with_its_record(exported, pretrained, record):
    state = pretrained.state_dict()
    assert _same(read_weights(exported), state)
    assert read_record(exported) == replace(record, tensors_sha256=tensors_hash(state))
    assert json.loads(exported.with_suffix(".json").read_text(encoding="utf-8")) == read_record(exported).to_json()
    assert sorted(path.name for path in exported.parent.iterdir()) == ["pretrain.json", "pretrain.safetensors"]


def test_export_of_the_same_weights_is_the_same_bytes(exported, tmp_path, pretrained, record):
    again = tmp_path / "other" / "again.safetensors"
    state = pretrained.to(memory_format=torch.channels_last).state_dict()
    export_weights(again, state, record)
    export_weights(tmp_path / "third.safetensors", read_weights(exported), read_record(exported))
    assert exported.read_bytes() == again.read_bytes() == (tmp_path / "third.safetensors").read_bytes()


def test_state_comes_back_and_is_plain(saved, pretrained, record):
    state = pretrained.state_dict()
    assert _same(torch.load(saved, weights_only=True), state)
    assert _same(read_weights(saved), state)
    assert read_record(saved) == replace(record, tensors_sha256=tensors_hash(state))


def test_what_a_training_left_is_exported_with_its_record(saved, tmp_path, pretrained):
    target = export_trained(saved, tmp_path / "out" / "joint.safetensors")
    assert _same(read_weights(target), pretrained.state_dict())
    assert read_record(target) == read_record(saved)


def test_export_with_thresholds_and_ranges_records_them(saved, tmp_path):
    bounds = {"mean_hu": (0, 20), "std_hu": (5, 30), "liver_contrast_hu": (-100, -60), "longest_diameter_mm": (4, 80)}
    ranges = dict.fromkeys(("cyst", "hemangioma", "metastasis"), bounds)
    target = export_trained(saved, tmp_path / "joint.safetensors", 0.3, 0.7, ranges)
    advice = {"voxel_threshold": 0.3, "lesion_threshold": 0.7, "lesion_ranges": ranges}
    assert read_record(target) == replace(read_record(saved), **advice)
    with pytest.raises(LiversegError, match="lesion_threshold is 2"):
        export_trained(saved, tmp_path / "other.safetensors", lesion_threshold=2)


def test_half_the_size_is_read_as_float32_again(saved, tmp_path, pretrained):
    full = export_trained(saved, tmp_path / "full.safetensors")
    half = export_trained(saved, tmp_path / "half.safetensors", half=True)
    assert half.stat().st_size < 0.6 * full.stat().st_size
    state = read_weights(half)
    for name, tensor in pretrained.state_dict().items():
        assert state[name].dtype == tensor.dtype
        torch.testing.assert_close(state[name], tensor, rtol=1e-3, atol=1e-6)
    load_weights(SEResUNet("small", out_channels=3), half)


def test_what_float16_cannot_hold_is_not_halved(saved, tmp_path, pretrained, record):
    state = pretrained.state_dict()
    state["head.bias"] = torch.full_like(state["head.bias"], 1e6)
    save_state(saved, state, record)
    with pytest.raises(
        LiversegError, match=r"model\.pt: head\.bias exceeds the range of float16; export with half False"
    ):
        export_trained(saved, tmp_path / "half.safetensors", half=True)
    assert not (tmp_path / "half.safetensors").exists()


def test_weights_without_a_record_are_not_exported(saved, tmp_path):
    saved.with_suffix(".json").unlink()
    with pytest.raises(LiversegError, match=r"model\.pt: no model\.json beside it"):
        export_trained(saved, tmp_path / "joint.safetensors")
    assert not (tmp_path / "joint.safetensors").exists()


@pytest.mark.parametrize("key", ["network", "model"])
def test_checkpoint_of_a_training_is_unwrapped(tmp_path, pretrained, key):
    torch.save({key: pretrained.state_dict(), "epoch": 3}, tmp_path / "checkpoint.pth")
    assert _same(read_weights(tmp_path / "checkpoint.pth"), pretrained.state_dict())
    assert read_record(tmp_path / "checkpoint.pth") is None


def test_recorded_settings(exported, saved, record, tmp_path, pretrained):
    recorded = recorded_settings(exported)
    assert recorded_settings(str(saved)).network_size == recorded.network_size == "small"
    assert recorded.hu_window == [*record.input_spec.hu_window]
    assert (recorded.slab_spacing_mm, recorded.pixel_mm) == (record.input_spec.slab_spacing_mm, None)


def test_settings_without_a_record_are_the_papers(tmp_path, pretrained):
    torch.save(pretrained.state_dict(), tmp_path / "bare.pt")
    for weights in (tmp_path / "bare.pt", tmp_path / "none.safetensors", None):
        assert recorded_settings(weights) == RecordedSettings()
    assert RecordedSettings().network_class is SEResUNet
    assert (RecordedSettings().network_size, RecordedSettings().hu_window) == ("full", [-200.0, 250.0])
    assert (RecordedSettings().type_temperature, RecordedSettings().lesion_threshold) == (1.0, 0.0)


@pytest.mark.parametrize("name", ["w.pt", "w.bin"])
def test_export_under_another_ending_is_refused(tmp_path, pretrained, record, name):
    with pytest.raises(LiversegError, match=r"exported weights end in .safetensors"):
        export_weights(tmp_path / name, pretrained.state_dict(), record)
    with pytest.raises(LiversegError, match=r"a state_dict ends in .pt or .pth"):
        save_state(tmp_path / "w.bin", pretrained.state_dict(), record)


def test_write_into_impossible_folder_is_refused_without_traces(tmp_path, pretrained, record):
    (tmp_path / "file").write_text("")
    for write, name in ((export_weights, "w.safetensors"), (save_state, "w.pt")):
        with pytest.raises(OutputError, match=r"weights cannot be written .*; choose another folder"):
            write(tmp_path / "file" / name, pretrained.state_dict(), record)
    (tmp_path / "w.pt").mkdir()
    with pytest.raises(OutputError, match=r"weights cannot be written"):
        save_state(tmp_path / "w.pt", pretrained.state_dict(), record)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["none.safetensors", "none.pt"])
def test_missing_file(tmp_path, name):
    for read in (read_record, read_weights):
        with pytest.raises(LiversegError, match=rf"{name}: no such weights file; train and export first"):
            read(tmp_path / name)


def test_another_ending(tmp_path):
    (tmp_path / "weights.onnx").write_bytes(b"")
    with pytest.raises(
        LiversegError, match=r"weights.onnx: not the name of a weights file; .safetensors, .pt and .pth"
    ):
        read_weights(tmp_path / "weights.onnx")


@pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.999])
def test_truncated_export(exported, part):
    content = exported.read_bytes()
    exported.write_bytes(content[: int(len(content) * part)])
    for read in (read_record, read_weights):
        with pytest.raises(LiversegError, match=r"pretrain.safetensors: cannot be read as safetensors, truncated"):
            read(exported)
    assert recorded_settings(exported) == RecordedSettings()


@pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.999])
def test_truncated_state(saved, part):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(LiversegError, match=r"model.pt: .*; copy or export it again"):
        read_weights(saved)


def test_safetensors_of_others(tmp_path):
    save_file({"weight": torch.ones(2)}, tmp_path / "foreign.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        LiversegError, match=r"no record in its header, so not exported by liverseg; run a bundle's export"
    ):
        read_weights(tmp_path / "foreign.safetensors")


@pytest.mark.parametrize("text", ["{", "[]", '{"format_version": 9}'])
def test_record_that_is_not_one(tmp_path, saved, text):
    save_file({"weight": torch.ones(2)}, tmp_path / "odd.safetensors", metadata={"liverseg": text})
    with pytest.raises(LiversegError, match=r"odd.safetensors: .*copy or export it again"):
        read_record(tmp_path / "odd.safetensors")
    saved.with_suffix(".json").write_text(text)
    with pytest.raises(LiversegError, match=r"model.json: .*copy or export it again"):
        read_weights(saved)


def test_tampered_tensor_is_refused(exported, saved):
    state = load_file(exported)
    state["head.bias"][0] += 1
    save_file(state, exported, metadata={"liverseg": read_record(exported).dumps()})
    with pytest.raises(LiversegError, match=r"its tensors are not those of its record \(SHA-256 differs\)"):
        read_weights(exported)
    torch.save(state, saved)
    with pytest.raises(LiversegError, match=r"its tensors are not those of model.json"):
        read_weights(saved)


class _Code:
    """Object that writes a file when unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


def test_pickled_code_is_refused_and_not_run(tmp_path):
    torch.save({"weight": torch.ones(2), "code": _Code(tmp_path / "ran")}, tmp_path / "code.pt")
    with pytest.raises(LiversegError, match=r"code.pt: refused, it contains pickled objects, not only tensors"):
        read_weights(tmp_path / "code.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(_Code(tmp_path / "ran")))
    with pytest.raises(LiversegError, match=r"plain.pt: "):
        read_weights(tmp_path / "plain.pt")
    assert not (tmp_path / "ran").exists()


def test_pickled_network_is_refused(tmp_path, pretrained):
    torch.save(pretrained, tmp_path / "network.pt")
    with pytest.raises(LiversegError, match=r"save the network's state_dict alone"):
        read_weights(tmp_path / "network.pt")


@pytest.mark.integration
def test_torchscript_is_refused(tmp_path, pretrained):
    torch.jit.save(torch.jit.script(pretrained), tmp_path / "model.pt")
    with pytest.raises(LiversegError, match=r"model.pt: cannot be read, truncated or foreign"):
        read_weights(tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(2)], "holds a list, not a state_dict"),
        ({}, "holds a dict, not a state_dict"),
        (torch.ones(2), "holds a Tensor, not a state_dict"),
        ({"weight": 3}, "not a state_dict, 'weight' is a int"),
    ],
)
def test_something_else_than_a_state_dict(tmp_path, content, message):
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(LiversegError, match=message):
        read_weights(tmp_path / "odd.pt")
