"""Scores of predictions, independent of the network. docs/evaluation.md has the definitions.

What inference needs is imported at once. What needs pandas or SciPy is imported when it is first used.
"""

from typing import TYPE_CHECKING

from liverseg.evaluation.lesion_ranges import lesion_ranges
from liverseg.evaluation.lesion_threshold import LesionThreshold, calibrate_lesion_threshold
from liverseg.utils.lazy import lazy_imports

if TYPE_CHECKING:
    from liverseg.evaluation.intervals import (
        Difference,
        Estimate,
        bootstrap,
        detectable_difference,
        holm,
        paired_difference,
        patient_weights,
    )
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
    "detectable_difference",
    "dice",
    "holm",
    "lesion_ranges",
    "lesion_scores",
    "paired_difference",
    "patient_weights",
]

__getattr__ = lazy_imports(
    __name__,
    {
        "intervals": (
            "Difference",
            "Estimate",
            "bootstrap",
            "detectable_difference",
            "holm",
            "paired_difference",
            "patient_weights",
        ),
        "lesions": ("compare_lesions", "lesion_scores"),
        "prediction": ("BatchPrediction",),
        "scores": ("SCORES", "UnitScores", "dice"),
    },
)
