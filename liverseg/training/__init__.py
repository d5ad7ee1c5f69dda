"""Training and evaluation glue: losses, scores, handlers."""

from liverseg.training.batches import AheadDataLoader, AugmentedBatch, WholeSlices, batches_ahead, collate_whole_slices
from liverseg.training.best_weights import BestWeights
from liverseg.training.calibration import TypeTemperature, fitted_temperature
from liverseg.training.checkpoint import RunCheckpoint
from liverseg.training.distributed_batch_norm import SharedBatchNorm
from liverseg.training.distributed_batches import BatchShares, SharedNoise, ShareOfFold, fill_cache_together
from liverseg.training.distributed_loss import WholeBatchLoss, across_processes
from liverseg.training.evaluation import EvaluationWriter
from liverseg.training.fine_tuning import FineTuning, PlanStage, last_stage_begins, read_plan
from liverseg.training.inferer import SlabBatchInferer
from liverseg.training.losses import SlabLoss, StackedDeepSupervisionLoss, map_weights
from liverseg.training.metrics import SlabScores, as_prediction
from liverseg.training.optimisation import optimizer_in_words, parameter_groups, schedule_in_words
from liverseg.training.partial_labels import MarginalDiceCELoss
from liverseg.training.progress import EpochSeed, Progress, ValidationScalars
from liverseg.training.run import (
    RunData,
    check_key_score,
    load_for_evaluation,
    load_run_data,
    run_record,
    start_from,
    write_transfer,
)

__all__ = [
    "AheadDataLoader",
    "AugmentedBatch",
    "BatchShares",
    "BestWeights",
    "EpochSeed",
    "EvaluationWriter",
    "FineTuning",
    "MarginalDiceCELoss",
    "PlanStage",
    "Progress",
    "RunCheckpoint",
    "RunData",
    "ShareOfFold",
    "SharedBatchNorm",
    "SharedNoise",
    "SlabBatchInferer",
    "SlabLoss",
    "SlabScores",
    "StackedDeepSupervisionLoss",
    "TypeTemperature",
    "ValidationScalars",
    "WholeBatchLoss",
    "WholeSlices",
    "across_processes",
    "as_prediction",
    "batches_ahead",
    "check_key_score",
    "collate_whole_slices",
    "fill_cache_together",
    "fitted_temperature",
    "last_stage_begins",
    "load_for_evaluation",
    "load_run_data",
    "map_weights",
    "optimizer_in_words",
    "parameter_groups",
    "read_plan",
    "run_record",
    "schedule_in_words",
    "start_from",
    "write_transfer",
]
