"""Scores: what a prediction is worth, whatever network made it. docs/evaluation.md has the definitions."""

from liverseg.evaluation.intervals import Difference, Estimate, bootstrap, holm, paired_difference, patient_weights
from liverseg.evaluation.lesions import compare_lesions, lesion_scores
from liverseg.evaluation.prediction import BatchPrediction
from liverseg.evaluation.scores import SCORES, UnitScores, dice

__all__ = [
    "SCORES",
    "BatchPrediction",
    "Difference",
    "Estimate",
    "UnitScores",
    "bootstrap",
    "compare_lesions",
    "dice",
    "holm",
    "lesion_scores",
    "paired_difference",
    "patient_weights",
]
