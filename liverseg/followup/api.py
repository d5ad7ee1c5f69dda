"""The public Python interface of comparisons."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from liverseg.errors import UsageError
from liverseg.followup.comparison import LiverComparison, compare_examinations
from liverseg.followup.examination import check_pair, is_case_folder, read_examination
from liverseg.followup.recist import choose_targets
from liverseg.followup.registration import register_livers
from liverseg.followup.writer import describe_inputs, refuse_other_results, write_comparison
from liverseg.inference.progress import StageTimer
from liverseg.utils.files import ensure_writable

__all__ = ["compare"]

_SIDES = ("baseline", "followup")


def compare(
    baseline: str | os.PathLike,
    followup: str | os.PathLike,
    output: str | os.PathLike | None = None,
    *,
    baseline_ct: str | os.PathLike | None = None,
    followup_ct: str | os.PathLike | None = None,
    targets: Sequence[int] | None = None,
    indeterminate_targets: bool = False,
    baseline_report: str | os.PathLike | None = None,
    keep_identifiers: bool = False,
    report: bool = True,
    dicom: bool = True,
    on_progress: Callable[[str, float], None] | None = None,
    **settings: Any,
) -> LiverComparison:
    """Find what has changed in the liver since an earlier CT, as `liverseg compare` does.

    Args:
        baseline, followup: the earlier and the later examination: a case folder that `liverseg predict` wrote, or a CT,
            which is predicted first, into the folders `baseline` and `followup` of the output.
        output: folder of the comparison; None writes nothing.
        baseline_ct, followup_ct: the CT of a case folder, if it is no longer where its record says.
        targets: ids of the baseline's lesions whose diameters are added up; by default the largest two measurable ones.
        indeterminate_targets: lesions of indeterminate type can be targets, and count as new lesions.
        baseline_report: DICOM SR with the tracking UIDs of the baseline's lesions, such as `measurements.dcm` of the
            previous comparison; by default that of the baseline's case folder.
        keep_identifiers: keep patient and study in the DICOM report.
        report: write `report.html`.
        dicom: write `measurements.dcm`, if the follow-up's CT is DICOM.
        on_progress: called with each stage when it starts, and its fraction done.
        settings: of the prediction of a CT, as for `liverseg.load_model`; `series` too.

    Returns:
        The comparison: a row for each lesion, sums of diameters, warnings.

    Raises:
        LiversegError: if the examinations cannot be read or compared, or the output cannot be written.

    Example:
        >>> import liverseg
        >>> found = liverseg.compare("results/march", "results/june", "change")  # doctest: +SKIP
        >>> found.lesions[["status", "longest_change_mm"]]  # doctest: +SKIP
    """
    paths = {name: Path(path).absolute() for name, path in zip(_SIDES, (baseline, followup), strict=True)}
    cts = {
        name: None if path is None else Path(path).absolute()
        for name, path in zip(_SIDES, (baseline_ct, followup_ct), strict=True)
    }
    folder = None if output is None else Path(output).absolute()
    report_path = None if baseline_report is None else Path(baseline_report).absolute()
    to_predict = _check_paths(paths, cts, folder, settings)
    stages = StageTimer(on_progress)
    with ExitStack() as stack:
        if to_predict:
            place = folder
            if place is None:
                place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="liverseg-")))
            with stages("predict"):
                _predict(paths, to_predict, place, keep_identifiers, settings)
        with stages("read"):
            first, second = (
                read_examination(paths[name], cts[name], keep_identifiers, f"--{name}-ct") for name in _SIDES
            )
    check_pair(first, second)
    choose_targets(first.table.rows, first.volume.axial_spacing[0], indeterminate_targets, targets)
    if folder is not None:
        refuse_other_results(folder, describe_inputs(first, second))
        if report_path is not None:
            from liverseg.followup.tracking import baseline_tracking  # with highdicom

            baseline_tracking(first, report_path)  # a wrong report is refused before the registration
        ensure_writable(folder)
    with stages("register"):
        registration = register_livers(first, second)
    with stages("compare"):
        comparison = compare_examinations(first, second, targets, indeterminate_targets, registration)
    if folder is None:
        return comparison
    return write_comparison(
        comparison,
        folder,
        settings={
            "targets": None if targets is None else list(targets),
            "indeterminate_targets": indeterminate_targets,
            "keep_identifiers": keep_identifiers,
        },
        seconds=stages.seconds,
        baseline_report=report_path,
        report=report,
        dicom=dicom,
    )


def _check_paths(
    paths: dict[str, Path], cts: dict[str, Path | None], folder: Path | None, settings: dict[str, Any]
) -> list[str]:
    """Refuse arguments that cannot be used before anything is read; return which of the two are CTs to predict."""
    to_predict = []
    for name, path in paths.items():
        if is_case_folder(path):
            continue
        if cts[name] is not None:
            raise UsageError(f"{path}: no case folder, so --{name}-ct has nothing to belong to; leave it out")
        to_predict.append(name)
    given = [name for name, value in settings.items() if value is not None]
    if given and not to_predict:
        raise UsageError(f"{given[0]} is for CTs to predict, but both examinations are case folders; leave it out")
    if paths["baseline"] == paths["followup"]:
        raise UsageError(f"{paths['baseline']}: given twice; give two examinations")
    if folder is not None:
        for path in (*paths.values(), *(ct for ct in cts.values() if ct is not None)):
            if folder == path or path in folder.parents:
                raise UsageError(f"{folder}: is {path} or in it, which is an input; choose another output folder")
        refuse_other_results(folder)
    return to_predict


def _predict(
    paths: dict[str, Path], names: Sequence[str], output: Path, keep_identifiers: bool, settings: dict[str, Any]
) -> None:
    """Predict CTs into a folder, and replace their paths by those of their case folders."""
    from liverseg.inference.api import load_model  # with torch

    own = dict(settings)
    series = own.pop("series", None)
    model = load_model(keep_identifiers=keep_identifiers, **own)
    for name in names:
        predicted = model.predict(paths[name], output, case=name, series=series)
        assert predicted.folder is not None
        paths[name] = predicted.folder
