"""Outlining of livers on CTs by one or two networks. Each case is computed once and has a mask, a picture and a record.

The mask is `labels/<case>.nii.gz`. The picture, a NIfTI copy of a DICOM CT, and the record, which is written last, are
in `cases/<case>/`.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from liverseg.batch.job import RunSpec, run_spec
from liverseg.bundle.paths import find_bundle, inference_config
from liverseg.cases.events import Callback, CaseDone, StageProgress
from liverseg.errors import LiversegError, OutputError
from liverseg.imageio.nifti import write_nifti
from liverseg.imageio.volume import is_nifti, write_box_like
from liverseg.inference.evaluator import CaseEvaluator
from liverseg.inference.failures import case_failed, describe_cause
from liverseg.inference.overlap import Prefetcher, run_overlapped
from liverseg.inference.predict import case_evaluator
from liverseg.inference.progress import ConsoleReporter, StageTimer
from liverseg.labels import LIVER
from liverseg.networks import package_versions, read_record
from liverseg.pseudo_labels.checks import LiverOutline, Measures, OutlineLimits, extract_liver, measure
from liverseg.pseudo_labels.montage import write_montage
from liverseg.results.case_folder import read_case_record, refuse_another_input, write_case_files, write_json
from liverseg.results.inputs import matches_input
from liverseg.utils.files import atomic_write, fsync_paths, sha256_file
from liverseg.utils.fingerprints import settings_hash

__all__ = ["CaseOutliner", "Network", "OutlinedCase", "case_folder", "label_path", "picture_path", "read_network"]

_FORMAT = 1
"""Increased whenever the same weights and settings give other masks or measures."""
_PICTURE, _CT = "outlines.png", "ct.nii.gz"
_PRETRAIN_LABELS = 3
_BUNDLES = {True: "liver_lesion_pretrain", False: "liver_lesion_joint"}


@dataclass(frozen=True)
class Network:
    """Weights and the bundle for their inference.

    Attributes:
        weights: absolute path of the weights.
        bundle: the bundle's folder.
        spec: hashes of weights and settings.
    """

    weights: Path
    bundle: Path
    spec: RunSpec

    @property
    def name(self) -> str:
        """Name of the file with the start of its SHA-256."""
        return f"{self.weights.name} (SHA-256 {self.spec.weights_sha256[:12]})"


def read_network(weights: Path, bundle: Path | None, overrides: Mapping[str, Any]) -> Network:
    """Find the bundle of a weights file and hash weights and settings.

    Args:
        weights: .safetensors, .pt or .pth.
        bundle: the bundle's folder; by the weights' record by default: the pre-training bundle for three labels, else
            the joint bundle.
        overrides: values of the bundle's keys.

    Raises:
        LiversegError: if the weights, their record or the bundle cannot be read.
    """
    record = read_record(weights)
    if bundle is None:
        bundle = find_bundle(_BUNDLES[record is not None and len(record.labels) == _PRETRAIN_LABELS])
    config = inference_config(bundle)
    return Network(weights.absolute(), bundle, run_spec(config, weights.absolute(), overrides))


@dataclass(frozen=True)
class OutlinedCase:
    """A case with an outline.

    Attributes:
        case: name of the case.
        image: absolute path of the CT as NIfTI.
        label_sha256: SHA-256 of the mask's file.
        measures: measures of the outline, to be checked.
        warnings: warnings for the reader, one sentence each.
    """

    case: str
    image: Path
    label_sha256: str
    measures: Measures
    warnings: tuple[str, ...]


class CaseOutliner:
    """Outlines cases, skips cases that are outlined already, and collects the reasons of failures.

    The network sees every slice at its own resolution, and not only the liver's surroundings as in `liverseg predict`,
    because the check of the largest component looks for false liver elsewhere in the body.

    Args:
        items: items of `find_cases`.
        output: the output folder, which must exist.
        networks: the network whose masks are written, and optionally a second one.
        mirrored: also outline each CT with left and right swapped, as the bundles' augmentation does.
        limits: limits of accepted outlines, for progress messages.
        overrides: values of the bundles' keys.
        progress: show a progress bar if stderr is a terminal.

    Attributes:
        done: outlined cases by name.
        failures: reasons of failures by name of the case.
        computed: names of the cases outlined by this run.
        error: the exception, if there is only one case and it failed.
    """

    def __init__(
        self,
        items: Sequence[Mapping[str, str]],
        output: Path,
        networks: Sequence[Network],
        *,
        mirrored: bool,
        limits: OutlineLimits,
        overrides: Mapping[str, Any],
        progress: bool = True,
    ) -> None:
        self.done: dict[str, OutlinedCase] = {}
        self.failures: dict[str, str] = {}
        self.computed: list[str] = []
        self.error: Exception | None = None
        self._items, self._output, self._networks = items, output, networks
        self._mirrored, self._limits, self._overrides, self._progress = mirrored, limits, overrides, progress
        # the first as this version hashes it, the others as earlier versions did
        self._configurations = [
            settings_hash({"format": _FORMAT, "mirrored": mirrored, "networks": specs})
            for specs in itertools.product(*(network.spec.fingerprints() for network in networks))
        ]
        self._remaining: list[Mapping[str, str]] = []
        self._evaluators: list[CaseEvaluator] = []
        self._callback = Callback()

    def prepare(self) -> None:
        """Find the cases that remain, and load the networks if there are any.

        Raises:
            LiversegError: if weights or settings cannot be used.
        """
        for item in self._items:
            earlier = self._earlier_outline(item)
            if earlier is None:
                self._remaining.append(item)
            else:
                self.done[item["case"]] = earlier
        if self._remaining:
            self._evaluators = [
                case_evaluator(
                    self._output,
                    weights=network.weights,
                    bundle=network.bundle,
                    **self._overrides,
                    dicom=False,
                    progress=False,
                )
                for network in self._networks
            ]

    def run(self) -> None:
        """Outline the cases that remain after `prepare`; report failures on stderr and continue."""
        if not self._remaining:
            return
        names = [item["case"] for item in self._remaining]
        with ConsoleReporter(names, self._progress) as console:
            self._callback = console
            run_overlapped(Prefetcher(zip(names, self._remaining, strict=True), self._read), self._compute, self._write)
        self.error = console.error
        if self.error is not None and len(self._items) > 1:
            print(f"{names[0]}: failed: {describe_cause(self.error)}", file=sys.stderr)

    def _earlier_outline(self, item: Mapping[str, str]) -> OutlinedCase | None:
        """Return a case whose record has the current input, weights, settings and files; None otherwise."""
        case = item["case"]
        folder = case_folder(self._output, case)
        record = read_case_record(folder)
        try:
            if (
                record is None
                or record["configuration_sha256"] not in self._configurations
                or record["input"]["path"] != item["image"]
                or sha256_file(label_path(self._output, case)) != record["label_sha256"]
                or any(sha256_file(folder / name) != sha256 for name, sha256 in record["files"].items())
                or not matches_input(Path(item["image"]), record["input"])
            ):
                return None
            return _read_outlined(case, record)
        except (LiversegError, OSError, KeyError, TypeError, AttributeError, ValueError):
            return None

    def _read(self, case: tuple[str, Mapping[str, str]]) -> dict[str, Any] | Exception:
        stages = StageTimer()
        try:
            with stages("read"):
                data = dict(self._evaluators[0].dataset.transform(case[1]))
        except Exception as error:
            return error
        return {**data, "stages": stages}

    def _compute(self, case: tuple[str, Any], data: dict[str, Any] | Exception) -> dict[str, Any] | None:
        name = case[0]
        if isinstance(data, Exception):
            self._failed(name, "read", data)
            return None
        try:
            refuse_another_input(case_folder(self._output, name), data["input"])
            volume, stages = data["volume"], data["stages"]
            stages.on_progress = lambda part, share: self._callback.on_event(StageProgress(name, part, share))
            with stages("network"):
                outline, mirrored, second = self._outlines(data["image"], volume.axial_spacing, stages)
                measures = measure(outline, data["image"], volume.axial_spacing, volume.voxel_ml, mirrored, second)
        except Exception as error:
            self._failed(name, "compute", error)
            return None
        return {**data, "outline": outline, "second": second, "measures": measures}

    def _outlines(
        self, hu: np.ndarray, spacing: Sequence[float], stages: StageTimer
    ) -> tuple[LiverOutline, LiverOutline | None, LiverOutline | None]:
        """Return the outlines on the CT, on the mirrored CT, and by the second network."""
        passes = [(self._evaluators[0], False)]
        passes += [(self._evaluators[0], True)] if self._mirrored else []
        passes += [(evaluator, False) for evaluator in self._evaluators[1:]]
        done = 0

        def on_batch(voxels: int) -> None:
            nonlocal done
            done += voxels
            stages.done(done / (len(passes) * hu.size))

        outlines = iter([_outline(evaluator, hu, spacing, mirrored, on_batch) for evaluator, mirrored in passes])
        return next(outlines), next(outlines) if self._mirrored else None, next(outlines, None)

    def _write(self, case: tuple[str, Any], data: dict[str, Any]) -> None:
        name = case[0]
        try:
            with data["stages"]("write"):
                record = self._write_files(name, data)
        except Exception as error:
            self._failed(name, "write", error)
            return
        outlined = _read_outlined(name, record)
        self.done[name] = outlined
        self.computed.append(name)
        reasons = "; ".join(self._limits.failed_checks(outlined.measures))
        result = f"{outlined.measures.describe()}: {f'refused: {reasons}' if reasons else 'accepted'}"
        self._callback.on_event(CaseDone(name, result, dict(data["stages"].seconds), outlined.warnings))

    def _write_files(self, name: str, data: dict[str, Any]) -> dict[str, Any]:
        """Write a case's files, its record last, and return the record."""
        folder, label = case_folder(self._output, name), label_path(self._output, name)
        volume, outline = data["volume"], data["outline"]
        try:
            for parent in (folder.parent, label.parent):
                parent.mkdir(exist_ok=True)
            with atomic_write(label) as unfinished:
                write_box_like(unfinished, outline.inside.astype(np.uint8), outline.box, volume)
                fsync_paths(unfinished)
        except OSError as error:
            raise OutputError(f"{label}: cannot be written ({error.strerror or error}); is the disk full?") from error
        image = Path(data["input"]["path"])
        files: dict[str, Any] = {
            _PICTURE: partial(
                write_montage,
                case=name,
                hu=data["image"],
                spacing=volume.axial_spacing,
                outlines=[outline] if data["second"] is None else [outline, data["second"]],
                names=[network.name for network in self._networks],
            )
        }
        if not is_nifti(image):
            image = folder / _CT
            files[_CT] = partial(write_nifti, array=volume.array, affine=volume.affine)
        record = {
            "schema": "liverseg pseudo-label record",
            "format_version": _FORMAT,
            "status": "done",
            "case": name,
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "input": data["input"],
            "image": str(image),
            "label_sha256": sha256_file(label),
            "configuration_sha256": self._configurations[0],
            "networks": [
                {"path": str(network.weights), "sha256": network.spec.weights_sha256} for network in self._networks
            ],
            "measures": asdict(data["measures"]),
            "warnings": data["warnings"],
            "seconds": {stage: round(seconds, 3) for stage, seconds in data["stages"].seconds.items()},
            "versions": package_versions(),
        }
        write_case_files(folder, files, lambda path, hashes: write_json(path, {**record, "files": hashes}))
        return record

    def _failed(self, name: str, stage: str, error: Exception) -> None:
        failure = case_failed(name, stage, error)
        self.failures[name] = failure.reason
        self._callback.on_event(failure)


def case_folder(output: Path, case: str) -> Path:
    """Return the folder of a case's picture and record."""
    return output / "cases" / case


def label_path(output: Path, case: str) -> Path:
    """Return the path of a case's mask: uint8 on the CT's grid, 0 background, 1 liver or lesion."""
    return output / "labels" / f"{case}.nii.gz"


def picture_path(output: Path, case: str) -> Path:
    """Return the path of a case's picture."""
    return case_folder(output, case) / _PICTURE


def _read_outlined(case: str, record: Mapping[str, Any]) -> OutlinedCase:
    return OutlinedCase(
        case, Path(record["image"]), record["label_sha256"], Measures(**record["measures"]), tuple(record["warnings"])
    )


def _outline(
    evaluator: CaseEvaluator, hu: np.ndarray, spacing: Sequence[float], mirrored: bool, on_batch: Callable[[int], None]
) -> LiverOutline:
    """Outline the liver on a CT in axial order; columns run towards the patient's left."""
    slabs = evaluator.pipeline.cascade.slabs
    prediction = slabs(
        hu[:, :, ::-1] if mirrored else hu,
        evaluator.pipeline.network,
        slice_mm=float(spacing[0]),
        in_plane_mm=spacing[1:],
        on_batch=on_batch,
    )
    liver = prediction.inside >= LIVER
    return extract_liver(liver[:, :, ::-1] if mirrored else liver)
