"""Probabilities of types are brought to what validation lesions say, and only their record changes."""

import numpy as np
import pytest
import torch
from monai.engines import SupervisedEvaluator

from liverseg.networks import (
    SEResUNet,
    SlabInput,
    WeightsRecord,
    package_versions,
    read_record,
    read_weights,
    save_state,
)
from liverseg.training import TypeTemperature, fitted_temperature

LABELS = ("background", "liver", "cyst", "hemangioma", "metastasis")


def lesions(sureness, count=400, right=0.6):
    """Lesions of 1 to 30 pixels whose network is right in a share of them, and equally sure of every one."""
    random = np.random.default_rng(0)
    types = random.integers(0, 3, count)
    named = np.where(random.random(count) < right, types, (types + random.integers(1, 3, count)) % 3)
    logits = [np.tile(sureness * np.eye(3)[name], (random.integers(1, 31), 1)) for name in named]
    return logits, types.tolist()


@pytest.mark.parametrize("sureness", [0.8, 3.0, 6.0])
def test_probabilities_become_the_share_that_is_right(sureness):
    logits, types = lesions(sureness)
    calibrated = np.exp(sureness / fitted_temperature(logits, types))
    assert calibrated / (calibrated + 2) == pytest.approx(0.6, abs=0.03)


def test_a_large_lesion_counts_as_much_as_a_small_one():
    logits, types = lesions(3.0)
    larger = [np.repeat(rows, 1 + 9 * (number % 2), axis=0) for number, rows in enumerate(logits)]
    assert fitted_temperature(larger, types) == pytest.approx(fitted_temperature(logits, types), abs=1e-3)


def test_too_few_lesions_say_nothing():
    assert fitted_temperature(*lesions(6.0, count=19)) == 1.0


@pytest.fixture
def trained(tmp_path):
    """A network after its last epoch, its best weights on disk, and an evaluator over 30 slabs with a lesion each."""
    torch.manual_seed(0)
    network = SEResUNet("small", out_channels=5, deep_supervision=True).eval()
    best = SEResUNet("small", out_channels=5)
    with torch.no_grad():
        best.head.weight.zero_()
        best.head.bias.copy_(torch.tensor([0.0, 0, 9, 0, 0]))  # it is sure of a cyst everywhere
    record = WeightsRecord(
        "SEResUNet", best.arguments(), SlabInput((-200.0, 250.0)), LABELS, "none", "ab" * 32, 3, {"val_score": 0.5},
        package_versions(), fold=1,
    )  # fmt: skip
    save_state(tmp_path / "model.pt", best.state_dict(), record)
    slabs = []
    for number in range(30):
        label = torch.ones(1, 32, 32)
        label[0, 4:9, 4:9] = 2 + number % 3
        slabs.append({"image": torch.randn(3, 32, 32), "label": label})
    evaluator = SupervisedEvaluator(
        device="cpu", val_data_loader=torch.utils.data.DataLoader(slabs, 4), network=network, decollate=False
    )
    return network, evaluator, tmp_path / "model.pt"


@pytest.mark.integration
def test_the_record_tells_the_temperature_and_nothing_else_changes(trained):
    network, evaluator, path = trained
    before = {name: value.clone() for name, value in network.state_dict().items()}
    record, weights = read_record(path), read_weights(path)
    handler = TypeTemperature(network, path, evaluator)
    handler(evaluator)
    assert read_record(path) == record  # nothing was learnt
    handler.note_epoch(evaluator)
    handler(evaluator)
    after = read_record(path)
    assert after.type_temperature == pytest.approx(10.0, abs=0.1)  # right in a third: as unsure as may be
    assert {**after.to_json(), "type_temperature": 1.0} == record.to_json()
    assert all(torch.equal(value, weights[name]) for name, value in read_weights(path).items())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    evaluator.run()
    assert not evaluator.has_event_handler(TypeTemperature.look)


def test_a_network_without_types_on_its_map_is_left_alone(trained):
    _, evaluator, path = trained
    untyped = SEResUNet("small", out_channels=3)
    record = WeightsRecord(
        "SEResUNet", untyped.arguments(), SlabInput((-200.0, 250.0)), ("background", "liver", "lesion"), "none",
        "ab" * 32, 3, {}, package_versions(),
    )  # fmt: skip
    save_state(path, untyped.state_dict(), record)
    written = path.with_suffix(".json").read_bytes()
    handler = TypeTemperature(untyped, path, evaluator)
    handler.note_epoch(evaluator)
    handler(evaluator)
    assert path.with_suffix(".json").read_bytes() == written
    assert read_record(path).type_temperature == 1.0
