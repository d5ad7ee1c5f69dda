"""Inference: from a CT to its label map, lesion table, preview and record."""

from liverseg.bundle.paths import find_bundle
from liverseg.cases.discover import find_cases
from liverseg.errors import SomeCasesFailed
from liverseg.imageio.liver_mask import LiverSource
from liverseg.inference.cascade import LiverCascade
from liverseg.inference.evaluator import CaseEvaluator
from liverseg.inference.inferer import SlabInferer, resolve_batch_size
from liverseg.inference.output.case_writer import CaseWriter
from liverseg.inference.pipeline import Pipeline
from liverseg.inference.prediction import SlabPrediction
from liverseg.inference.transforms import FindLesionsd, MeasureLesionsd, ReadCTd, ReadLiverd

__all__ = [
    "CaseEvaluator",
    "CaseWriter",
    "FindLesionsd",
    "LiverCascade",
    "LiverSource",
    "MeasureLesionsd",
    "Pipeline",
    "ReadCTd",
    "ReadLiverd",
    "SlabInferer",
    "SlabPrediction",
    "SomeCasesFailed",
    "find_bundle",
    "find_cases",
    "resolve_batch_size",
]
