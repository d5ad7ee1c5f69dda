"""The steps from a CT to its results: read, find the liver, label it, find and measure its lesions, write.

`liverseg.predict`, `liverseg predict`, `liverseg batch` and the bundles' inference take every CT through `Pipeline`. A
case is the dictionary that `liverseg.inference.transforms` describes; each step adds its result to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from liverseg.cases.events import CaseDone
from liverseg.inference.cascade import LiverCascade
from liverseg.inference.output.case_writer import CaseWriter
from liverseg.inference.output.record import RunMetadata
from liverseg.inference.plausibility import check_plausibility
from liverseg.inference.progress import StageTimer
from liverseg.labels import result_labels
from liverseg.networks import SEResUNet

__all__ = ["Pipeline"]

Case = dict[str, Any]


@dataclass
class Pipeline:
    """The steps of one case.

    Attributes:
        preprocessing: `ReadCTd` and, for masks of the liver, `ReadLiverd`.
        network: in eval mode, on its device.
        cascade: finds the liver and labels its surroundings.
        find_lesions: `FindLesionsd`.
        measure_lesions: `MeasureLesionsd`.
        metadata: weights, device and settings, for the record.
        writer: writes a case's folder; None if nothing is written.
    """

    preprocessing: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    network: SEResUNet
    cascade: LiverCascade
    find_lesions: Callable[[Case], Case]
    measure_lesions: Callable[[Case], Case]
    metadata: RunMetadata | None = None
    writer: CaseWriter | None = None

    def __call__(self, item: Mapping[str, Any]) -> Case:
        """Take a CT through all steps.

        Args:
            item: `image` and `case`, as from `find_cases`, and the case's own settings.

        Raises:
            LiversegError: from any step.
        """
        case = self.read(item)
        case = self.compute(case)
        if self.writer is not None:
            self.write(case)
        return case

    def read(self, item: Mapping[str, Any]) -> Case:
        """Read the CT, and the mask of its liver if there is one."""
        stages = StageTimer()
        with stages("read"):
            case = self.preprocessing(item)
        return {**case, "stages": stages, "seconds": stages.seconds}

    def compute(self, case: Case) -> Case:
        """Find the liver, label it, find its lesions, measure them and check that the result is plausible."""
        if self.writer is not None:
            self.writer.check(case["case"], case)
        hu, spacing, liver, stages = case["image"], case["volume"].axial_spacing, case.get("liver"), case["stages"]
        with self.cascade.inference(self.network):
            windows = self.cascade.locate_liver(hu, self.network, spacing, liver, stages)
            prediction = self.cascade.label_windows(hu, self.network, windows, spacing, liver, stages)
        with stages("lesions"):
            case = self.find_lesions({**case, "pred": prediction})
            case = self.measure_lesions(case)
            plausibility = check_plausibility(hu, case["pred"], spacing)
        findings = [finding.sentence for finding in plausibility.findings]
        warnings = [*case["warnings"], *prediction.warnings, *findings]
        return {**case, "plausibility": plausibility, "warnings": warnings}

    def write(self, case: Case) -> CaseDone:
        """Write the case's folder."""
        assert self.writer is not None and self.metadata is not None
        return self.writer(case["case"], case, self.metadata, result_labels(self.network.out_channels))
