"""Validation scores reach TensorBoard at the epochs they belong to."""

from ignite.engine import Engine, Events
from monai.handlers import TensorBoardStatsHandler
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from liverseg.training import ValidationScalars


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
