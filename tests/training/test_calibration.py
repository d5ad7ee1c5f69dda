"""The fitted temperature calibrates type probabilities, and only the record changes."""

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
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
from liverseg.training import TypeTemperature, fit_temperature

LABELS = ("background", "liver", "cyst", "hemangioma", "metastasis")


def lesions(logit, count=400, accuracy=0.6):
    """Return lesions of 1 to 30 pixels with the same confidence, of which a share is classified correctly."""
    random = np.random.default_rng(0)
    types = random.integers(0, 3, count)
    predicted = np.where(random.random(count) < accuracy, types, (types + random.integers(1, 3, count)) % 3)
    logits = [np.tile(logit * np.eye(3)[index], (random.integers(1, 31), 1)) for index in predicted]
    return logits, types.tolist()


@pytest.mark.parametrize("logit", [0.8, 3.0, 6.0])
def test_calibrated_probability_is_the_accuracy(logit):
    logits, types = lesions(logit)
    calibrated = np.exp(logit / fit_temperature(logits, types))
    assert calibrated / (calibrated + 2) == pytest.approx(0.6, abs=0.03)


def test_temperature_weighs_lesions_equally_whatever_their_size():
    logits, types = lesions(3.0)
    larger = [np.repeat(rows, 1 + 9 * (number % 2), axis=0) for number, rows in enumerate(logits)]
    assert fit_temperature(larger, types) == pytest.approx(fit_temperature(logits, types), abs=1e-3)


def test_too_few_lesions_say_nothing():
    assert fit_temperature(*lesions(6.0, count=19)) == 1.0


@pytest.fixture
def trained(tmp_path):
    """A network after its last epoch, its best weights on disk, and an evaluator over 30 slabs with a lesion each."""
    torch.manual_seed(0)
    network = SEResUNet("small", out_channels=5, deep_supervision=True).eval()
    best = SEResUNet("small", out_channels=5)
    with torch.no_grad():
        best.head.weight.zero_()
        best.head.bias.copy_(torch.tensor([0.0, 0, 9, 0, 0]))  # it predicts a cyst everywhere with certainty
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
def test_fit_changes_only_the_recorded_temperature(trained):
    network, evaluator, path = trained
    before = {name: value.clone() for name, value in network.state_dict().items()}
    record, weights = read_record(path), read_weights(path)
    handler, trainer = TypeTemperature(network, path, evaluator), Engine(lambda *_: None)
    trainer.state.epoch, trainer.state.max_epochs = 1, 2
    handler.end_epoch(trainer)
    assert read_record(path) == record  # an epoch follows
    evaluator.state.epoch, evaluator.state.metrics = 2, {"val_score": 0.25}  # the last validation, not yet written
    trainer.terminate()
    handler.end_epoch(trainer)
    assert (evaluator.state.epoch, evaluator.state.metrics) == (2, {"val_score": 0.25})
    after = read_record(path)
    assert after.type_temperature == pytest.approx(10.0, abs=0.1)  # an accuracy of a third gives the upper bound
    assert {**after.to_json(), "type_temperature": 1.0} == record.to_json()
    assert all(torch.equal(value, weights[name]) for name, value in read_weights(path).items())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    evaluator.run()
    assert not evaluator.has_event_handler(TypeTemperature.update)


@pytest.mark.integration
def test_a_missing_fit_is_made_up_for_once(trained):
    network, evaluator, path = trained
    handler, runs = TypeTemperature(network, path, evaluator), []
    evaluator.add_event_handler(Events.COMPLETED, runs.append)
    handler.fit_if_missing(evaluator)
    assert read_record(path).type_temperature == pytest.approx(10.0, abs=0.1)
    handler.fit_if_missing(evaluator)
    assert len(runs) == 1
    path.unlink()
    handler.fit_if_missing(evaluator)
    assert not path.exists()


def test_fit_skips_networks_without_types_on_the_map(trained):
    _, evaluator, path = trained
    untyped = SEResUNet("small", out_channels=3)
    record = WeightsRecord(
        "SEResUNet", untyped.arguments(), SlabInput((-200.0, 250.0)), ("background", "liver", "lesion"), "none",
        "ab" * 32, 3, {}, package_versions(),
    )  # fmt: skip
    save_state(path, untyped.state_dict(), record)
    written = path.with_suffix(".json").read_bytes()
    handler = TypeTemperature(untyped, path, evaluator)
    handler(evaluator)
    assert path.with_suffix(".json").read_bytes() == written
    assert read_record(path).type_temperature == 1.0
