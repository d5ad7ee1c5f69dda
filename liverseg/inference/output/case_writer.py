"""Write the folder of a case."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from liverseg.bundle.outputs import DEFAULT_OUTPUT_TYPES, DICOM_OUTPUT_TYPES, OUTPUT_TYPES
from liverseg.cases.events import CaseDone
from liverseg.errors import OutputError
from liverseg.imageio.volume import Volume, write_box_like
from liverseg.inference.failures import describe_cause
from liverseg.inference.lesion_measurements import LesionMeasurements
from liverseg.inference.lesions import LesionMap, liver_volume_ml
from liverseg.inference.output.preview import draw_preview
from liverseg.inference.output.record import (
    RunMetadata,
    complete_record,
    describe_run,
    describe_series,
    lesions_by_type,
)
from liverseg.inference.output.report import write_report
from liverseg.inference.output.seg_nrrd import write_seg_nrrd
from liverseg.inference.plausibility import Plausibility
from liverseg.labels import Label
from liverseg.results.case_folder import (
    refuse_another_input,
    write_case_files,
    write_json,
)

if TYPE_CHECKING:
    from liverseg.inference.output.dicom_common import SeriesReference

__all__ = ["CaseWriter", "write_or_warn"]


class CaseWriter:
    """Write a computed case to `<output_dir>/<case>/`.

    By default a case from DICOM also gets `segmentation.dcm`, if a liver was found, and `measurements.dcm`, unless
    `ReadCTd` has DICOM output switched off.

    Args:
        output_dir: folder of the cases' folders, created if missing.
        preview: draw `preview.png`.
        report: write `report.html`, a page of some megabytes with a viewer.
        output_types: further files, by names of `liverseg.bundle.outputs.OUTPUT_TYPES`; None for the default. A named
            DICOM file that a case cannot have becomes a warning.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        preview: bool = True,
        report: bool = False,
        output_types: Sequence[str] | None = None,
    ) -> None:
        self.output_dir = Path(str(output_dir)).absolute()
        self.preview = preview
        self.report = report
        self.output_types = output_types
        self._output: tuple[int, int] | None = None

    def check(self, name: str, data: Mapping[str, Any]) -> None:
        """Before a case is computed, refuse it if its folder holds the results of another CT.

        Raises:
            LiversegError: from `refuse_another_input`.
        """
        refuse_another_input(self.output_dir / name, data["input"])

    def __call__(self, name: str, data: Mapping[str, Any], run: RunMetadata, labels: tuple[Label, ...]) -> CaseDone:
        """Write a case.

        Args:
            name: name of the case.
            data: `volume`, `input`, `reference` for DICOM results, the `LesionMap` in `pred`, the table in `lesions`,
                `plausibility`, `warnings`, `seconds` by stage, to which writing is added, and in a batch
                `configuration`, the SHA-256 of the settings.
            run: metadata that all cases of the run share.
            labels: label table of the results.

        Returns:
            The event for the run's callback.

        Raises:
            LiversegError: if a file cannot be written; no file of the case is left then.
        """
        volume, lesions, table = data["volume"], data["pred"], data["lesions"]
        plausibility: Plausibility = data["plausibility"]
        seconds, start = data["seconds"], time.perf_counter()

        def write_record(path: Path, hashes: dict[str, str]) -> None:
            seconds["write"] = time.perf_counter() - start
            write_json(path, complete_record(run, name, data, labels, hashes))

        # drawn once for both
        picture = draw_preview(name, volume, lesions, table, labels) if self.preview or self.report else b""
        types = DEFAULT_OUTPUT_TYPES if self.output_types is None else self.output_types
        files = _files(volume, lesions, table, labels, types)
        if self.preview:
            files["preview.png"] = lambda path: path.write_bytes(picture)
        if "reference" in data:
            files |= _dicom_files(types, data["reference"], volume, lesions, table, labels, run, data["warnings"])
        elif self.output_types is not None and data["input"].get("series") is None:
            data["warnings"].extend(f"no {name}: the CT is not DICOM" for name in _dicom_names(types))
        if self.report:
            facts = {"Liver": f"{liver_volume_ml(lesions, volume.voxel_ml):.0f} ml with its lesions"}
            if plausibility.contrast is not None:
                facts["Contrast phase"] = plausibility.contrast.describe()
            facts |= describe_run(run, data["input"], volume, seconds)
            files["report.html"] = partial(
                write_report,
                case=name,
                volume=volume,
                lesions=lesions,
                table=table,
                labels=labels,
                picture=picture,
                facts=facts,
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
        """Create the output folder, once: if its disk is unmounted during the run, it must not be created again."""
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
    volume: Volume, lesions: LesionMap, table: LesionMeasurements, labels: tuple[Label, ...], types: Sequence[str]
) -> dict[str, Callable[[Path], Any]]:
    """Return a function for each file that is not DICOM that writes it, by name and in order."""
    files: dict[str, Callable[[Path], Any]] = {}
    if "labels" in types:
        on_grid = partial(write_box_like, box=lesions.box, reference=volume)
        files["labels.nii.gz"] = partial(on_grid, inside=lesions.inside)
        files["lesions.nii.gz"] = partial(on_grid, inside=lesions.ids_inside)
    files |= {"lesions.csv": table.write_csv, "lesions.json": table.write_json}
    if "seg-nrrd" in types:
        files["segmentation.seg.nrrd"] = partial(write_seg_nrrd, volume=volume, lesions=lesions, labels=labels)
    return files


def _dicom_names(types: Sequence[str]) -> list[str]:
    return [name for kind in DICOM_OUTPUT_TYPES if kind in types for name in OUTPUT_TYPES[kind]]


def _dicom_files(
    types: Sequence[str],
    series: SeriesReference,
    volume: Volume,
    lesions: LesionMap,
    table: LesionMeasurements,
    labels: tuple[Label, ...],
    run: RunMetadata,
    warnings: list[str],
) -> dict[str, Callable[[Path], Any]]:
    """Return a function for each DICOM file that writes it, by name."""
    # imported here because highdicom is slow to import and only DICOM cases need it
    from liverseg.inference.output.dicom_seg import write_dicom_seg
    from liverseg.inference.output.dicom_sr import write_measurement_report
    from liverseg.inference.output.rtstruct import write_rtstruct

    arguments: dict[str, Any] = {"series": series, "volume": volume, "lesions": lesions, "labels": labels}
    arguments["weights_sha256"] = run.weights_sha256
    files: dict[str, Callable[[Path], Any]] = {
        "segmentation.dcm": partial(write_dicom_seg, **arguments),
        "measurements.dcm": partial(write_measurement_report, **arguments, table=table),
        "structures.dcm": partial(write_rtstruct, **arguments),
    }
    return {name: partial(write_or_warn, name, files[name], warnings) for name in _dicom_names(types)}


def write_or_warn(name: str, write: Callable[[Path], Any], warnings: list[str], path: Path) -> Any:
    """Write an optional file. Odd tags of a series must not make the case fail.

    Returns:
        The result of `write`; if it fails, False, and a warning is added.

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
