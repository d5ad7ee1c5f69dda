"""The best weights are saved with their scores, and a training that no longer improves is stopped."""

from dataclasses import replace

import pytest
import torch
from ignite.engine import Engine, Events

from liverseg.networks import SEResUNet, SlabInput, WeightsRecord, package_versions, read_record, read_weights
from liverseg.training import BestWeights

SCORE = "val_lesion_dice"


@pytest.fixture(scope="module")
def network():
    return SEResUNet("small", out_channels=3, deep_supervision=True)


@pytest.fixture
def trained(network, tmp_path):
    """Return a function that trains one epoch per score; each epoch writes its number into the head's bias."""
    record = WeightsRecord(
        "SEResUNet", network.arguments(), SlabInput((-200.0, 250.0)), ("background", "liver", "lesion"), "none",
        "ab" * 32, 0, {}, package_versions(),
    )  # fmt: skip

    def train(scores, state=None, **settings):
        trainer, validator = Engine(lambda *_: None), Engine(lambda *_: None)

        @trainer.on(Events.EPOCH_COMPLETED)
        def _epoch(engine):
            torch.nn.init.constant_(network.head.bias, engine.state.epoch)
            validator.state.metrics = {SCORE: scores[engine.state.epoch - 1], "val_liver_dice": 0.5}

        best = BestWeights(network, tmp_path / "model.pt", record, validator, **settings)
        best.load_state_dict(state or best.state_dict())
        best.attach(trainer)
        trainer.run([0], max_epochs=len(scores))
        return best, trainer

    return train


def test_best_weights_are_saved_with_epoch_and_scores(trained, tmp_path):
    best, trainer = trained([0.2, 0.6, 0.4, 0.6])
    assert trainer.state.epoch == 4
    assert (best.best, best.best_epoch) == (0.6, 2)  # the fourth is no better than the second
    assert read_weights(tmp_path / "model.pt")["head.bias"].tolist() == [2, 2, 2]
    record = read_record(tmp_path / "model.pt")
    assert (record.epoch, record.metrics) == (2, {SCORE: 0.6, "val_liver_dice": 0.5})


def test_saved_weights_have_no_auxiliary_heads(trained, tmp_path):
    trained([0.5])
    network = SEResUNet("small", out_channels=3)
    network.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))


def test_another_score_can_decide(trained, tmp_path):
    trained([0.2, 0.6], metric="val_liver_dice")
    assert read_record(tmp_path / "model.pt").epoch == 1


@pytest.mark.parametrize(
    ("scores", "kept"),
    [([0.9, 0.2, 0.5, 0.6], 4), ([0.9, 0.2, 0.6, 0.6], 3), ([0.2, 0.9], 2), ([0.9, 0.2], 2), ([0.1, 0.2, 0.9], 3)],
)
def test_weights_before_the_first_epoch_to_compare_are_kept_until_then(scores, kept, trained, tmp_path):
    best, _ = trained(scores, best_from=3)
    assert best.best_epoch == read_record(tmp_path / "model.pt").epoch == kept
    assert read_weights(tmp_path / "model.pt")["head.bias"].tolist() == [kept] * 3


@pytest.mark.parametrize(
    ("scores", "stopped_after"),
    [([0.5, 0.4, 0.5, 0.6, 0.6], 3), ([0.5, 0.4, 0.6, 0.5, 0.5, 0.7], 5), ([0.1, 0.2, 0.3], 3)],
)
def test_patience_counts_validations_without_a_better_score(scores, stopped_after, trained):
    _, trainer = trained(scores, patience=2)
    assert trainer.state.epoch == stopped_after


def test_patience_starts_with_the_first_epoch_to_compare(trained):
    best, trainer = trained([0.9, 0.2, 0.2, 0.2, 0.1, 0.1, 0.1], patience=2, best_from=4)
    assert best.best_epoch == 4
    assert trainer.state.epoch == 6


def test_without_patience_every_epoch_is_trained(trained):
    assert trained([0.5] * 6)[1].state.epoch == 6


def test_resumed_training_continues_best_and_patience(trained, tmp_path):
    state = {"best": 0.7, "best_epoch": 3, "waited": 1}
    best, trainer = trained([0.6, 0.9], state, patience=2)
    assert trainer.state.epoch == 1
    assert best.state_dict() == {"best": 0.7, "best_epoch": 3, "waited": 2, "validated": 1}
    assert not (tmp_path / "model.pt").exists()


def test_a_score_that_is_not_there_is_named(trained):
    with pytest.raises(KeyError, match="no validation score 'val_dice'; there are val_lesion_dice, val_liver_dice"):
        trained([0.5], metric="val_dice")


def test_a_record_is_filled_in_not_changed(trained, tmp_path):
    best, _ = trained([0.5])
    assert (best.record.epoch, best.record.metrics) == (0, {})
    saved = read_record(tmp_path / "model.pt")
    assert replace(saved, epoch=0, metrics={}, tensors_sha256="") == best.record
