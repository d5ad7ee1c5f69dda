"""Random numbers of epochs, the progress bar, the warning, and validation scores in TensorBoard."""

import logging

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.handlers import TensorBoardStatsHandler
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from liverseg.datalists import DataItem
from liverseg.datasets import SlabDataset, SlabSampler
from liverseg.training import EpochSeed, NoLesionWarning, Progress, ValidationScalars


@pytest.fixture
def sampler(tmp_path, write_nifti):
    label = np.zeros((4, 4, 30), np.uint8)
    label[:, :, ::2] = 2
    write_nifti(tmp_path / "ct.nii.gz", np.zeros(label.shape, np.int16))
    write_nifti(tmp_path / "seg.nii.gz", label)
    items = [DataItem("ct.nii.gz", "seg.nii.gz", "p")]
    return SlabSampler(SlabDataset(items, tmp_path, tmp_path / "cache", labels=3, progress=False), lesion_free=0.5)


def drawn(sampler, seed, first_epoch=1, wasted=0):
    """Return (epoch, order of slabs, random numbers) of each epoch to the fourth, in a trainer's order of events."""
    found = []
    trainer = Engine(lambda engine, batch: torch.rand(1))
    EpochSeed(sampler, seed).attach(trainer)

    @trainer.on(Events.STARTED)
    def _resume(engine):
        engine.state.epoch = first_epoch - 1
        torch.rand(wasted)

    @trainer.on(Events.EPOCH_STARTED)
    def _record(engine):
        found.append((engine.state.epoch, list(sampler), torch.rand(3).tolist()))

    trainer.run([0, 0], max_epochs=4)
    return found


def test_random_numbers_depend_only_on_seed_and_epoch(sampler):
    epochs = drawn(sampler, seed=3)
    assert [number for number, _, _ in epochs] == [1, 2, 3, 4]
    assert drawn(sampler, seed=3, first_epoch=3, wasted=17) == epochs[2:]
    assert len({tuple(order) for _, order, _ in epochs}) == len({tuple(numbers) for _, _, numbers in epochs}) == 4
    assert drawn(sampler, seed=4)[0][2] != epochs[0][2]


def shown(capsys, resumed_after=0, **settings):
    trainer, validator = Engine(lambda engine, loss: {"loss": torch.tensor(loss)}), Engine(lambda *_: None)
    validator.state.metrics = {"val_liver_dice": 0.8765, "val_lesion_dice": 0.25}
    Progress("pre-training", validator, ("val_lesion_dice", "val_type_accuracy"), **settings).attach(trainer)

    @trainer.on(Events.STARTED)
    def _resume(engine):
        engine.state.epoch = resumed_after
        engine.state.iteration = 2 * resumed_after

    trainer.run([1.0, 2.0], max_epochs=3)
    return capsys.readouterr()


def test_bar_shows_epoch_loss_and_available_scores(capsys):
    captured = shown(capsys)
    last = captured.err.split("\r")[-1]
    assert last.startswith("pre-training: 100%")
    assert "6/6" in last
    assert "epoch 3/3, loss 1.1359" in last  # from 1 on, 0.95 × old + 0.05 × new, six batches
    assert "val_lesion_dice 0.250" in last
    assert "type_accuracy" not in last
    assert captured.out == ""


def test_bar_of_resumed_training_starts_at_its_epoch(capsys):
    frames = shown(capsys, resumed_after=2).err.split("\r")
    assert "4/6" in next(frame for frame in frames if "/6" in frame)
    assert "6/6" in frames[-1]
    assert "loss 1.0500" in frames[-1]  # of the two new batches


def test_disabled_bar_shows_nothing(capsys):
    assert shown(capsys, enabled=False).err == ""


def warned(caplog, rates, validations=3, interval=1, others=("val_success_rate",)):
    """Return the epochs of the warnings of a training whose validations have these prediction rates."""
    trainer, validator = Engine(lambda *_: None), Engine(lambda *_: None)

    @trainer.on(Events.EPOCH_COMPLETED(every=interval))
    def _validate(engine):
        validator.state.epoch = engine.state.epoch
        rate = rates[engine.state.epoch // interval - 1]
        validator.state.metrics = {"val_prediction_rate": rate, **dict.fromkeys(others, 0.0)}

    NoLesionWarning(validator, "no weights.pt", validations).attach(trainer)
    with caplog.at_level(logging.WARNING):
        trainer.run([0], max_epochs=interval * len(rates))
    return [int(message.split("after epoch ")[1].split()[0]) for message in caplog.messages]


@pytest.mark.parametrize(
    ("rates", "epochs"),
    [
        ([0, 0, 0, 0, 0, 0, 0], [3]),  # once
        ([0, 0, 0.1, 0, 0, 0.1], []),
        ([0, 0, 0, 0.1, 0, 0, 0, 0], [3, 7]),  # and again after a lesion was predicted
        ([0, 0, 0], []),  # the end has a warning of its own
    ],
)
def test_validations_in_a_row_without_a_predicted_lesion_are_warned_of(rates, epochs, caplog):
    assert warned(caplog, rates) == epochs


def test_epochs_without_validation_do_not_count_for_the_warning(caplog):
    assert warned(caplog, [0, 0, 0, 0], interval=4) == [12]


def test_without_a_lesion_in_the_validation_data_there_is_no_warning(caplog):
    assert warned(caplog, [0, 0, 0, 0], others=()) == []


def test_scores_are_written_for_validated_epochs_only(tmp_path):
    trainer, validator = Engine(lambda engine, batch: {"loss": 0.5}), Engine(lambda engine, batch: None)

    @trainer.on(Events.EPOCH_COMPLETED(every=2))
    def validate(engine):
        validator.state.epoch = engine.state.epoch
        validator.state.metrics = {"val_lesion_dice": engine.state.epoch / 10}

    handler = TensorBoardStatsHandler(
        log_dir=str(tmp_path),
        output_transform=lambda output: output["loss"],
        epoch_event_writer=ValidationScalars(validator),
    )
    handler.attach(trainer)
    trainer.run([0, 1], max_epochs=4)
    handler.close()
    written = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, round(event.value, 3)) for event in written.Scalars("val_lesion_dice")] == [(2, 0.2), (4, 0.4)]
