"""Scores of predictions, independent of the network. docs/evaluation.md has the definitions."""

from liverseg.evaluation.intervals import Difference, Estimate, bootstrap, holm, paired_difference, patient_weights
from liverseg.evaluation.lesion_ranges import lesion_ranges
from liverseg.evaluation.lesion_threshold import LesionThreshold, calibrate_lesion_threshold
from liverseg.evaluation.lesions import compare_lesions, lesion_scores
from liverseg.evaluation.prediction import BatchPrediction
from liverseg.evaluation.scores import SCORES, UnitScores, dice

__all__ = [
    "SCORES",
    "BatchPrediction",
    "Difference",
    "Estimate",
    "LesionThreshold",
    "UnitScores",
    "bootstrap",
    "calibrate_lesion_threshold",
    "compare_lesions",
    "dice",
    "holm",
    "lesion_ranges",
    "lesion_scores",
    "paired_difference",
    "patient_weights",
]
