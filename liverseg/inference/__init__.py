"""From a CT on disk to its label map, lesion table, preview and record."""

from liverseg.inference.bundles import find_bundle
from liverseg.inference.cases import find_cases
from liverseg.inference.evaluator import CaseEvaluator
from liverseg.inference.failures import SomeCasesFailed
from liverseg.inference.inferer import SlabInferer, SlabPrediction
from liverseg.inference.transforms import FindLesionsd, KeepLargestLiverd, MeasureLesionsd, ReadCTd

__all__ = [
    "CaseEvaluator",
    "FindLesionsd",
    "KeepLargestLiverd",
    "MeasureLesionsd",
    "ReadCTd",
    "SlabInferer",
    "SlabPrediction",
    "SomeCasesFailed",
    "find_bundle",
    "find_cases",
]
