"""Scores: what a prediction is worth, whatever network made it."""

from liverseg.evaluation.scores import UnitScores, dice

__all__ = ["UnitScores", "dice"]
