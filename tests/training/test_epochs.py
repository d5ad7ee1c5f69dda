"""Every epoch has random numbers of its own, and the bar tells what there is to tell."""

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events

from liverseg.datalists import DataItem
from liverseg.datasets import SlabDataset, SlabSampler
from liverseg.training import EpochSeed, Progress


@pytest.fixture
def sampler(tmp_path, write_nifti):
    label = np.zeros((4, 4, 30), np.uint8)
    label[:, :, ::2] = 2
    write_nifti(tmp_path / "ct.nii.gz", np.zeros(label.shape, np.int16))
    write_nifti(tmp_path / "seg.nii.gz", label)
    items = [DataItem("ct.nii.gz", "seg.nii.gz", "p")]
    return SlabSampler(SlabDataset(items, tmp_path, tmp_path / "cache", labels=3, progress=False), lesion_free=0.5)


def drawn(sampler, seed, first_epoch=1, wasted=0):
    """(epoch, order of slabs, random numbers) of each epoch to the fourth, in a trainer's own order of events."""
    found = []
    trainer = Engine(lambda engine, batch: torch.rand(1))
    EpochSeed(sampler, seed).attach(trainer)

    @trainer.on(Events.STARTED)
    def _resume(engine):
        engine.state.epoch = first_epoch - 1
        torch.rand(wasted)

    @trainer.on(Events.EPOCH_STARTED)
    def _remember(engine):
        found.append((engine.state.epoch, list(sampler), torch.rand(3).tolist()))

    trainer.run([0, 0], max_epochs=4)
    return found


def test_an_epochs_random_numbers_depend_on_seed_and_number_alone(sampler):
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


def test_the_bar_tells_epoch_loss_and_the_scores_there_are(capsys):
    told = shown(capsys)
    last = told.err.split("\r")[-1]
    assert last.startswith("pre-training: 100%")
    assert "6/6" in last
    assert "epoch 3/3, loss 1.1359" in last  # from 1 on, 0.95 × the old + 0.05 × the new, six batches
    assert "val_lesion_dice 0.250" in last
    assert "type_accuracy" not in last
    assert told.out == ""


def test_a_resumed_bar_begins_where_the_training_does(capsys):
    frames = shown(capsys, resumed_after=2).err.split("\r")
    assert "4/6" in next(frame for frame in frames if "/6" in frame)
    assert "6/6" in frames[-1]
    assert "loss 1.0500" in frames[-1]  # of this process's two batches


def test_no_bar_when_none_is_wanted(capsys):
    assert shown(capsys, enabled=False).err == ""
