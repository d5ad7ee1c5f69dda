"""Fine-tuning plans: frozen parts and learning rate of each epoch, also after an interruption."""

import logging

import pytest
import torch
from ignite.engine import Engine, Events

from liverseg.errors import UsageError
from liverseg.networks import SEResUNet
from liverseg.training import FineTuning, PlanStage, read_plan

PLANS = {
    "none": [{"epochs": None, "frozen": []}],
    "stepwise": [
        {"epochs": 2, "frozen": ["encoder"]},
        {"epochs": 1, "frozen": ["encoder.layer0"], "learning_rate_factor": 0.1},
        {"epochs": None, "frozen": [], "learning_rate_factor": 0.5},
    ],
}


def followed(epochs, first=1, tuner=None):
    """Return (frozen, learning rate) of each epoch of a training that halves its rate after every epoch."""
    if tuner is None:
        network = SEResUNet("small")
        optimizer = torch.optim.Adam(network.parameters(), lr=1.0)
        tuner = FineTuning(network, optimizer, read_plan(PLANS, "stepwise", 5))
    seen = []
    trainer = Engine(lambda *_: None)
    tuner.attach(trainer)

    def record(engine):
        seen.append((tuner.network.frozen, tuner.optimizer.param_groups[0]["lr"]))
        tuner.optimizer.param_groups[0]["lr"] *= 0.5  # as a schedule of torch, by a factor

    trainer.add_event_handler(Events.EPOCH_COMPLETED, record)
    trainer.add_event_handler(Events.STARTED, lambda engine: setattr(engine.state, "epoch", first - 1))
    trainer.run([0], max_epochs=first - 1 + epochs)
    return seen, tuner


@pytest.mark.integration
def test_each_epoch_has_its_stage_and_its_rate():
    seen, _ = followed(5)
    assert [frozen for frozen, _ in seen] == [("encoder",), ("encoder",), ("encoder.layer0",), (), ()]
    assert [rate for _, rate in seen] == pytest.approx([1, 0.5, 0.025, 0.0625, 0.03125])


def test_a_resumed_training_goes_on_in_its_stage():
    unbroken, _ = followed(5)
    _, first = followed(3)
    rate = first.optimizer.param_groups[0]["lr"]
    network = SEResUNet("small")
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)  # as restored from the optimizer in the checkpoint
    second = FineTuning(network, optimizer, read_plan(PLANS, "stepwise", 5))
    second.load_state_dict(first.state_dict())
    rest, _ = followed(2, first=4, tuner=second)
    assert rest == unbroken[3:]


def test_the_plan_in_force_is_logged(caplog):
    with caplog.at_level(logging.INFO, logger="liverseg"):
        followed(3)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "epoch 1: frozen encoder; learning rates 1"
    assert lines[2] == "epoch 3: frozen encoder.layer0; learning rates 0.025"


def test_unknown_part_is_refused_before_training():
    network = SEResUNet("small")
    optimizer = torch.optim.Adam(network.parameters())
    with pytest.raises(UsageError, match="no part 'backbone'"):
        FineTuning(network, optimizer, [PlanStage(1, ()), PlanStage(None, ("backbone",))])


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ("encoder", "plans::p is 'encoder'; a list of stages is needed"),
        ([], r"plans::p is \[\]; a list of stages is needed"),
        ([{"epochs": None}], "a stage has the keys epochs, frozen and optionally learning_rate_factor"),
        (
            [{"epochs": None, "frozen": [], "lr": 1}],
            "a stage has the keys epochs, frozen and optionally learning_rate_factor",
        ),
        (
            [{"epochs": 3, "frozen": []}],
            "plans::p::0::epochs is 3; an integer, 1 or more, is needed, and null in the last stage",
        ),
        ([{"epochs": None, "frozen": []}] * 2, "plans::p::0::epochs is None; an integer"),
        ([{"epochs": None, "frozen": "encoder"}], "plans::p::0::frozen is 'encoder'; a list of the network's parts"),
        ([{"epochs": None, "frozen": [], "learning_rate_factor": 0}], "learning_rate_factor is 0; a number above 0"),
    ],
)
def test_a_plan_that_is_not_one(stages, words):
    with pytest.raises(UsageError, match=words):
        read_plan({"p": stages}, "p", 9)


def test_an_unknown_plan_names_those_there_are():
    with pytest.raises(UsageError, match="fine_tuning is 'freeze'; it must be one of none, stepwise"):
        read_plan(PLANS, "freeze", 9)


def test_training_shorter_than_its_plan_is_refused():
    assert len(read_plan(PLANS, "stepwise", 4)) == 3
    with pytest.raises(UsageError, match="its last stage starts after epoch 3, and epochs is 3; shorten"):
        read_plan(PLANS, "stepwise", 3)
