"""Write the folder of a comparison: table, JSON, page, picture, transform, and for DICOM a report of the follow-up."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from liverseg.errors import ConflictError
from liverseg.followup.matching import Status
from liverseg.inference.output.case_writer import write_or_warn
from liverseg.networks import package_versions
from liverseg.results.case_folder import RECORD, read_case_record, write_case_files, write_json

if TYPE_CHECKING:
    from liverseg.followup.comparison import LiverComparison
    from liverseg.followup.examination import Examination

__all__ = ["COMPARISON_FILES", "describe_inputs", "refuse_other_results", "write_comparison"]

COMPARISON_FILES = (
    "comparison.json",
    "comparison.csv",
    "transform.tfm",
    "preview.png",
    "report.html",
    "measurements.dcm",
    RECORD,
)
"""Files of a comparison, in the order of writing; the last but one only for DICOM."""
_SCHEMA = "liverseg comparison record"


def describe_inputs(baseline: Examination, followup: Examination) -> dict[str, dict[str, str]]:
    """Return what a comparison was made of: folders, and hashes of the CTs and of the results, for its record."""
    return {
        name: {
            "folder": str(examination.folder),
            "ct_sha256": str(examination.record["input"]["sha256"]),
            "weights_sha256": examination.weights_sha256,
            "lesions_sha256": str(examination.record["files"].get("lesions.nii.gz", "")),
        }
        for name, examination in (("baseline", baseline), ("followup", followup))
    }


def refuse_other_results(folder: Path, inputs: Mapping[str, Mapping[str, str]] | None = None) -> None:
    """Refuse an output folder that holds a case, or a comparison of other CTs.

    Args:
        folder: the output folder, which need not exist.
        inputs: from `describe_inputs`; None checks for a case alone.

    Raises:
        ConflictError: if it does.
    """
    record = read_case_record(folder)
    if record is None:
        return
    if record.get("schema") != _SCHEMA:
        raise ConflictError(f"{folder}: holds the results of a case; choose another output folder")
    earlier = record.get("inputs")
    if inputs is None or not isinstance(earlier, dict):
        return
    for name, own in inputs.items():
        if earlier.get(name, {}).get("ct_sha256") != own["ct_sha256"]:
            raise ConflictError(f"{folder}: holds a comparison of other CTs; choose another output folder")


def write_comparison(
    comparison: LiverComparison,
    folder: Path,
    *,
    settings: Mapping[str, Any],
    seconds: dict[str, float],
    baseline_report: Path | None = None,
    report: bool = True,
    dicom: bool = True,
) -> LiverComparison:
    """Write a comparison, each file complete or not at all, the record last.

    Args:
        comparison: of two examinations.
        folder: created if needed; its parent must exist.
        settings: of the comparison, JSON-able, for the record.
        seconds: by stage, for the record.
        baseline_report: DICOM SR with the tracking UIDs of the baseline's lesions; None uses `measurements.dcm` of the
            baseline's folder if there is one.
        report: write the page.
        dicom: write a DICOM SR of the follow-up, if its CT is DICOM.

    Returns:
        The comparison with its folder, and a warning more if the DICOM report could not be written.

    Raises:
        ConflictError: if the folder holds a case, or a comparison of other CTs.
        LiversegError: if a file cannot be written, none of which is left then.
        UnreadableError: if the baseline's report cannot be read.
    """
    inputs = describe_inputs(comparison.baseline, comparison.followup)
    refuse_other_results(folder, inputs)
    measurements = _measurements(comparison, baseline_report) if dicom and comparison.followup.reference else None
    late: list[str] = []
    files: dict[str, Callable[[Path], Any]] = {}
    if measurements is not None:
        files["measurements.dcm"] = partial(write_or_warn, "measurements.dcm", measurements, late)
    files["comparison.json"] = lambda path: write_json(path, _with_warnings(comparison, late).to_json())
    files["comparison.csv"] = lambda path: path.write_text(comparison.to_csv(), encoding="utf-8", newline="")
    files["transform.tfm"] = partial(_write_transform, comparison)
    files["preview.png"] = lambda path: path.write_bytes(_preview(comparison))
    if report:
        from liverseg.followup.page import comparison_html

        files["report.html"] = lambda path: path.write_text(
            comparison_html(_with_warnings(comparison, late)), encoding="utf-8", errors="backslashreplace"
        )
    for name in COMPARISON_FILES[:-1]:
        if name not in files:
            files[name] = _nothing

    def write_record(path: Path, hashes: dict[str, str]) -> None:
        record = {
            "schema": _SCHEMA,
            "format_version": 1,
            "status": "done",
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "inputs": inputs,
            "settings": dict(settings),
            "versions": {**package_versions(), **_versions(), "python": platform.python_version()},
            "files": hashes,
            "seconds": {stage: round(duration, 3) for stage, duration in seconds.items()},
            "warnings": [*comparison.warnings, *late],
        }
        write_json(path, record)

    write_case_files(folder, files, write_record)
    return replace(_with_warnings(comparison, late), folder=folder)


def _with_warnings(comparison: LiverComparison, late: list[str]) -> LiverComparison:
    return replace(comparison, warnings=(*comparison.warnings, *late))


def _nothing(path: Path) -> bool:
    """Write nothing: a file of an earlier comparison is removed."""
    return False


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("itk-elastix", "SimpleITK")}


def _measurements(comparison: LiverComparison, baseline_report: Path | None) -> Callable[[Path], None]:
    """Return a function that writes the DICOM SR of the follow-up."""
    # imported here because highdicom is slow to import and only DICOM cases need it
    from liverseg.followup.tracking import baseline_tracking, followup_tracking
    from liverseg.inference.output.dicom_sr import AbsentLesion, write_measurement_report

    baseline, followup = comparison.baseline, comparison.followup
    if baseline_report is None and (baseline.folder / "measurements.dcm").is_file():
        baseline_report = baseline.folder / "measurements.dcm"
    earlier = baseline_tracking(baseline, baseline_report)
    tracking = followup_tracking(earlier, [change.match for change in comparison.changes], followup)
    by_name = {label.name: label for label in baseline.labels}
    absent = [
        AbsentLesion(
            earlier.lesions[change.match.baseline[0]],
            by_name[change.baseline_types[0]],
            tuple(round(number, 2) for number in change.followup_mm),
        )
        for change in comparison.changes
        if change.match.status is Status.GONE
    ]
    assert followup.reference is not None
    return partial(
        write_measurement_report,
        series=followup.reference,
        volume=followup.volume,
        lesions=followup.lesions,
        table=followup.table,
        labels=followup.labels,
        weights_sha256=followup.weights_sha256,
        tracking=tracking,
        absent=absent,
    )


def _write_transform(comparison: LiverComparison, path: Path) -> bool:
    import SimpleITK as sitk

    transform = comparison.registration.transform
    if transform is None:
        return False
    sitk.WriteTransform(transform, str(path))
    return True


def _preview(comparison: LiverComparison) -> bytes:
    from liverseg.followup.page import comparison_facts, recist_facts
    from liverseg.followup.pictures import draw_comparison

    facts, recist = comparison_facts(comparison), recist_facts(comparison)
    lines = [
        f"Lesions: {facts['Lesions']}.  Longest diameters: {facts['Longest diameters']}.  "
        f"Liver: {facts['Liver with lesions']}",
        f"RECIST 1.1, arithmetic only: {recist['Because']}",
        f"Surfaces apart after registration: {facts['Surfaces apart after registration']}",
    ]
    return draw_comparison(comparison, lines)
