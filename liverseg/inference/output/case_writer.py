"""Which files a case gets, and how each is made."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from liverseg.cases.events import CaseDone
from liverseg.errors import OutputError
from liverseg.imageio.volume import Volume, write_box_like
from liverseg.inference.failures import describe_cause
from liverseg.inference.lesions import LesionMap, liver_volume_ml
from liverseg.inference.output.preview import write_preview
from liverseg.inference.output.record import (
    RunMetadata,
    complete_record,
    describe_run,
    describe_series,
    lesions_by_type,
)
from liverseg.inference.output.report import write_report
from liverseg.inference.plausibility import Plausibility
from liverseg.labels import Label
from liverseg.results.case_folder import (
    refuse_another_input,
    write_case_files,
    write_json,
    write_table_csv,
    write_table_json,
)

if TYPE_CHECKING:
    from liverseg.inference.output.dicom_common import SeriesReference

__all__ = ["CaseWriter"]


class CaseWriter:
    """Writes a computed case to `<output_dir>/<case>/`, and says what was found.

    A case that came as DICOM also gets `segmentation.dcm`, if there is a liver, and `measurements.dcm`, unless
    `ReadCTd` was told that no DICOM comes out.

    Args:
        output_dir: the cases' folders are made in it.
        preview: draw `preview.png`.
        report: write `report.html`, a page of some megabytes with a viewer.
    """

    def __init__(self, output_dir: str | os.PathLike, preview: bool = True, report: bool = False) -> None:
        self.output_dir = Path(str(output_dir)).absolute()
        self.preview = preview
        self.report = report
        self._output: tuple[int, int] | None = None

    def check(self, name: str, data: Mapping[str, Any]) -> None:
        """Refuse a case whose folder holds the results of another CT, before it is computed.

        Raises:
            LiversegError: from `refuse_another_input`.
        """
        refuse_another_input(self.output_dir / name, data["input"])

    def __call__(self, name: str, data: Mapping[str, Any], facts: RunMetadata, labels: tuple[Label, ...]) -> CaseDone:
        """Write a case.

        Args:
            name: the case's.
            data: `volume`, `input`, `reference` for DICOM results, the `LesionMap` in `pred`, the table in `lesions`,
                `plausibility`, `warnings`, `seconds` by stage, which get those of writing, and where whoever runs it
                goes by that `configuration`, the SHA-256 of the settings.
            facts: what all cases of the run share.
            labels: label table of the results.

        Returns:
            The event for the run's callback.

        Raises:
            LiversegError: if a file cannot be written; nothing of the case is left then.
        """
        volume, lesions, table = data["volume"], data["pred"], data["lesions"]
        plausibility: Plausibility = data["plausibility"]
        seconds, start = data["seconds"], time.perf_counter()

        def write_record(path: Path, hashes: dict[str, str]) -> None:
            seconds["write"] = time.perf_counter() - start
            write_json(path, complete_record(facts, name, data, labels, hashes))

        files = self._files(name, volume, lesions, table, labels)
        if "reference" in data:
            files |= _dicom_files(data["reference"], volume, lesions, table, labels, facts, data["warnings"])
        if self.report:
            told = {"Liver": f"{liver_volume_ml(lesions, volume.voxel_ml):.0f} ml with its lesions"}
            if plausibility.contrast is not None:
                told["Contrast phase"] = plausibility.contrast.describe()
            told |= describe_run(facts, data["input"], volume, seconds)
            files["report.html"] = partial(
                write_report,
                case=name,
                volume=volume,
                lesions=lesions,
                table=table,
                labels=labels,
                facts=told,
                warnings=data["warnings"],
            )
        self._check_output_dir()
        write_case_files(self.output_dir / name, files, write_record)
        counts = [f"{count} {kind}" for kind, count in lesions_by_type(table, labels).items() if count]
        found = f"liver {liver_volume_ml(lesions, volume.voxel_ml):.0f} ml, {', '.join(counts) or 'no lesion'}"
        if series := describe_series(data["input"]):
            found = f"{series}: {found}"
        return CaseDone(name, found, dict(seconds), tuple(data["warnings"]))

    def _check_output_dir(self) -> None:
        """Make the output folder, or see that it is the one there was: one that was unmounted is not made anew."""
        try:
            if self._output is None:
                self.output_dir.mkdir(parents=True, exist_ok=True)
            there = os.stat(self.output_dir)
        except OSError as error:
            reason = error.strerror or str(error)
            raise OutputError(f"{self.output_dir}: output cannot be written there ({reason})") from error
        found = there.st_dev, there.st_ino
        if self._output not in (None, found):
            raise OutputError(f"{self.output_dir}: no longer the folder it was when the run began; is it mounted?")
        self._output = found

    def _files(
        self, name: str, volume: Volume, lesions: LesionMap, table: pd.DataFrame, labels: tuple[Label, ...]
    ) -> dict[str, Callable[[Path], None]]:
        """By file name what writes it, in order."""
        on_grid = partial(write_box_like, box=lesions.box, reference=volume)
        files: dict[str, Callable[[Path], None]] = {
            "labels.nii.gz": partial(on_grid, inside=lesions.inside),
            "lesions.nii.gz": partial(on_grid, inside=lesions.ids_inside),
            "lesions.csv": partial(write_table_csv, table=table),
            "lesions.json": partial(write_table_json, table=table),
        }
        if self.preview:
            files["preview.png"] = partial(
                write_preview, case=name, volume=volume, lesions=lesions, table=table, labels=labels
            )
        return files


def _dicom_files(
    series: SeriesReference,
    volume: Volume,
    lesions: LesionMap,
    table: pd.DataFrame,
    labels: tuple[Label, ...],
    facts: RunMetadata,
    warnings: list[str],
) -> dict[str, Callable[[Path], Any]]:
    """What writes the DICOM results."""
    # here, not above: highdicom takes long to import, and a run over NIfTI files does not need it
    from liverseg.inference.output.dicom_seg import write_dicom_seg
    from liverseg.inference.output.dicom_sr import write_measurement_report

    about: dict[str, Any] = {"series": series, "volume": volume, "lesions": lesions, "labels": labels}
    about["weights_sha256"] = facts.weights_sha256
    files: dict[str, Callable[[Path], Any]] = {
        "segmentation.dcm": partial(write_dicom_seg, **about),
        "measurements.dcm": partial(write_measurement_report, **about, table=table),
    }
    return {name: partial(_or_warning, name, write, warnings) for name, write in files.items()}


def _or_warning(name: str, write: Callable[[Path], Any], warnings: list[str], path: Path) -> Any:
    """Write a file that may be missing: what is odd in a series' tags must not cost the case its labels.

    Returns:
        What the function gives; False, and a warning more, where it fails.

    Raises:
        OSError: if the file cannot be written.
    """
    try:
        return write(path)
    except (OSError, OutputError):
        raise
    except Exception as error:
        warnings.append(f"no {name}: {describe_cause(error)}")
        path.unlink(missing_ok=True)
        return False
