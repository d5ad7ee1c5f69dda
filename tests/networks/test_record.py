import json
import math
from dataclasses import replace

import pytest
import torch

from liverseg.errors import LiversegError
from liverseg.networks import SlabInput, WeightsRecord, package_versions, tensors_hash


def test_record_survives_json(record):
    assert WeightsRecord.from_json(json.loads(record.dumps())) == record
    spaced = replace(record, input_spec=SlabInput([-150, 250], 5))
    assert json.loads(spaced.dumps())["slab_spacing_mm"] == 5.0
    assert WeightsRecord.from_json(json.loads(spaced.dumps())) == spaced


def test_record_with_pixel_size_has_format_version_two(record):
    assert record.to_json().keys() & {"pixel_mm", "format_version"} == {"format_version"}
    assert record.to_json()["format_version"] == record.format_version == 1  # readable by older versions
    sized = replace(record, input_spec=SlabInput((-200, 250), pixel_mm=2))
    assert sized.input_spec.differences(record.input_spec) == [("pixel size", "2 mm", "each CT's own")]
    content = json.loads(sized.dumps())
    assert (content["pixel_mm"], content["format_version"]) == (2.0, 2)
    assert WeightsRecord.from_json(content) == sized
    assert replace(sized, input_spec=record.input_spec) == record


def test_undefined_score_is_null_in_json_and_nan_again(record):
    text = replace(record, metrics={"val_lesion_dice": math.nan}).dumps()
    assert json.loads(text)["metrics"] == {"val_lesion_dice": None}
    assert math.isnan(WeightsRecord.from_json(json.loads(text)).metrics["val_lesion_dice"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hu_window": [250]}, "hu_window"),
        ({"hu_window": "wide"}, "hu_window is 'wide'; a list is needed"),
        ({"epoch": -1}, "epoch is -1"),
        ({"epoch": True}, "epoch is True"),
        ({"slab_slices": 0}, "slab_slices is 0"),
        ({"slab_spacing_mm": "wide"}, "slab_spacing_mm is 'wide'"),
        ({"pixel_mm": 0}, "pixel_mm is 0"),
        ({"pixel_mm": "small"}, "pixel_mm is 'small'"),
        ({"labels": ["background", "liver"]}, "2 labels for 3 output channels"),
        ({"metrics": {"dice": "good"}}, "metrics"),
        ({"versions": {"torch": 2}}, "versions"),
        ({"arguments": {"size": "small"}}, "arguments"),
        ({"network": ""}, "network"),
        ({"colour": "red"}, "colour is unknown"),
        ({"type_temperature": 0}, "type_temperature is 0"),
        ({"type_temperature": None}, "type_temperature is None"),
        ({"lesion_threshold": 1.5}, "lesion_threshold is 1.5"),
        ({"lesion_threshold": True}, "lesion_threshold is True"),
        ({"voxel_threshold": 1}, "voxel_threshold is 1"),
        ({"lesion_ranges": {}}, "lesion_ranges is {}"),
        ({"lesion_ranges": {"cyst": {"mean_hu": [20, 0]}}}, "lesion_ranges is"),
        ({"lesion_ranges": {"cyst": {"mean_hu": [0, 10, 20]}}}, "lesion_ranges is"),
        ({"lesion_ranges": {"cyst": [0, 20]}}, "lesion_ranges is"),
        ({"lesion_ranges": [1, 2]}, "lesion_ranges is"),
        ({"format_version": 3}, "record of format 3; this liverseg reads 1 to 2: update liverseg"),
    ],
)
def test_unsound_record_is_refused(record, change, message):
    with pytest.raises(LiversegError, match=message):
        WeightsRecord.from_json({**record.to_json(), **change})


def test_incomplete_or_foreign_record_is_refused(record):
    content = record.to_json()
    del content["epoch"]
    with pytest.raises(LiversegError, match=r"epoch is missing"):
        WeightsRecord.from_json(content)
    for other in ([], {"size": "small"}, "text", None):
        with pytest.raises(LiversegError, match=r"not a record of liverseg weights"):
            WeightsRecord.from_json(other)


def test_record_without_temperature_has_temperature_one(record):
    content = replace(record, type_temperature=1.7).to_json()
    assert WeightsRecord.from_json(content).type_temperature == 1.7
    del content["type_temperature"]
    assert WeightsRecord.from_json(content).type_temperature == 1.0


def test_record_writes_optional_fields_only_with_a_value(record):
    assert not {"lesion_threshold", "lesion_ranges"} & set(record.to_json())  # readable by older versions too
    ranges = {"cyst": {"mean_hu": (-3.0, 22.5), "std_hu": (5.0, 14.0)}, "metastasis": {"mean_hu": (20.0, 95.0)}}
    full = replace(record, lesion_threshold=0.55, lesion_ranges=ranges)
    assert WeightsRecord.from_json(json.loads(full.dumps())) == full
    assert json.loads(full.dumps())["lesion_ranges"]["cyst"]["mean_hu"] == [-3.0, 22.5]


def test_tensors_hash_depends_on_names_types_shapes_and_values():
    state = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(3), "c": torch.ones(2, 3, 4, 4)}
    base = tensors_hash(state)
    assert tensors_hash(dict(reversed(state.items()))) == base
    assert tensors_hash({**state, "c": state["c"].contiguous(memory_format=torch.channels_last)}) == base
    assert tensors_hash({**state, "a": torch.tensor(4)}) != base
    assert tensors_hash({**state, "a": torch.tensor(3, dtype=torch.int32)}) != base
    assert tensors_hash({**state, "b": state["b"].reshape(3, 2)}) != base
    assert tensors_hash({"b": state["b"], "d": state["a"], "c": state["c"]}) != base
    assert tensors_hash({"half": torch.ones(3, dtype=torch.bfloat16)}) != tensors_hash({"half": torch.ones(3)})


def test_versions_are_those_of_the_packages():
    assert set(package_versions()) == {"liverseg", "monai", "torch", "numpy"}
    assert package_versions()["torch"] == str(torch.__version__)
