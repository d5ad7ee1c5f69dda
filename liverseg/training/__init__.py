"""Training and evaluation: data loaders, losses, scores, and handlers for the engines."""

from liverseg.training.batches import AugmentedBatch, PrefetchDataLoader, UncroppedBatch, pad_collate, prefetch_factor
from liverseg.training.best_weights import BestWeights
from liverseg.training.calibration import TypeTemperature, fit_temperature
from liverseg.training.checkpoint import RunCheckpoint
from liverseg.training.distributed_batch_norm import CPUSyncBatchNorm
from liverseg.training.distributed_batches import (
    DistributedBatchSampler,
    DistributedFoldSampler,
    GloballySeededNoise,
    fill_cache_once,
)
from liverseg.training.distributed_loss import GlobalBatchLoss, sum_over_ranks
from liverseg.training.evaluation import EvaluationWriter
from liverseg.training.fine_tuning import FineTuning, PlanStage, first_epoch_of_last_stage, read_plan
from liverseg.training.inferer import SlabBatchInferer
from liverseg.training.losses import SlabLoss, StackedDeepSupervisionLoss, map_weights
from liverseg.training.metrics import SlabScores, as_prediction
from liverseg.training.optimisation import (
    describe_optimizer,
    describe_schedule,
    parameter_groups,
    set_batch_norm_momentum,
)
from liverseg.training.partial_labels import MarginalDiceCELoss
from liverseg.training.progress import EpochSeed, NoLesionWarning, Progress, ValidationScalars
from liverseg.training.setup import (
    RunData,
    check_key_score,
    initialise_weights,
    load_for_evaluation,
    load_run_data,
    run_record,
    set_up,
    shared_handler,
    write_transfer,
)

__all__ = [
    "AugmentedBatch",
    "BestWeights",
    "CPUSyncBatchNorm",
    "DistributedBatchSampler",
    "DistributedFoldSampler",
    "EpochSeed",
    "EvaluationWriter",
    "FineTuning",
    "GlobalBatchLoss",
    "GloballySeededNoise",
    "MarginalDiceCELoss",
    "NoLesionWarning",
    "PlanStage",
    "PrefetchDataLoader",
    "Progress",
    "RunCheckpoint",
    "RunData",
    "SlabBatchInferer",
    "SlabLoss",
    "SlabScores",
    "StackedDeepSupervisionLoss",
    "TypeTemperature",
    "UncroppedBatch",
    "ValidationScalars",
    "as_prediction",
    "check_key_score",
    "describe_optimizer",
    "describe_schedule",
    "fill_cache_once",
    "first_epoch_of_last_stage",
    "fit_temperature",
    "initialise_weights",
    "load_for_evaluation",
    "load_run_data",
    "map_weights",
    "pad_collate",
    "parameter_groups",
    "prefetch_factor",
    "read_plan",
    "run_record",
    "set_batch_norm_momentum",
    "set_up",
    "shared_handler",
    "sum_over_ranks",
    "write_transfer",
]
