"""Scores: what a prediction is worth, whatever network made it."""

from liverseg.evaluation.prediction import BatchPrediction
from liverseg.evaluation.scores import UnitScores, dice

__all__ = ["BatchPrediction", "UnitScores", "dice"]
