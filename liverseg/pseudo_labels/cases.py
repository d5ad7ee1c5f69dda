"""CTs to livers outlined by one network or two: each case computed once, with its mask, picture and record.

A case's mask is `labels/<case>.nii.gz`; its picture, its CT where that came as DICOM, and its record, which is written
last, are in `cases/<case>/`.
"""

from __future__ import annotations

import json
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
from liverseg.datalists.importers.conversion import write_nifti
from liverseg.errors import LiversegError, OutputError
from liverseg.imageio.volume import is_nifti, write_box_like
from liverseg.inference.evaluator import CaseEvaluator
from liverseg.inference.failures import case_failed, describe_cause
from liverseg.inference.overlap import Prefetcher, run_overlapped
from liverseg.inference.predict import case_evaluator
from liverseg.inference.progress import ConsoleReporter, StageTimer
from liverseg.labels import LIVER
from liverseg.networks import package_versions, read_record
from liverseg.pseudo_labels.checks import Limits, LiverOutline, Measures, measure, one_liver
from liverseg.pseudo_labels.montage import write_montage
from liverseg.results.case_folder import read_case_record, refuse_another_input, write_case_files, write_json
from liverseg.results.inputs import matches_input
from liverseg.utils.files import atomic_write, fsync_paths, sha256_file, sha256_text

__all__ = ["Network", "Outlined", "OutlinedCases", "case_folder", "label_path", "picture_path", "read_network"]

_FORMAT = 1
"""Raised when the same weights and settings come to give other masks or measures."""
_PICTURE, _CT = "outlines.png", "ct.nii.gz"
_PRETRAIN_LABELS = 3
_BUNDLES = {True: "liver_lesion_pretrain", False: "liver_lesion_joint"}


@dataclass(frozen=True)
class Network:
    """Weights and the bundle whose inference they are for.

    Attributes:
        weights: the file, absolute.
        bundle: the bundle's folder.
        spec: hashes of weights and settings.
    """

    weights: Path
    bundle: Path
    spec: RunSpec

    @property
    def name(self) -> str:
        """The file's name with the start of its SHA-256."""
        return f"{self.weights.name} (SHA-256 {self.spec.weights_sha256[:12]})"


def read_network(weights: Path, bundle: Path | None, overrides: Mapping[str, Any]) -> Network:
    """The network of a weights file.

    Args:
        weights: .safetensors, .pt or .pth.
        bundle: by default that of the weights' record: the pre-training's for three labels, else the joint one.
        overrides: of the bundle's keys.

    Raises:
        LiversegError: if the weights, their record or the bundle cannot be read.
    """
    record = read_record(weights)
    if bundle is None:
        bundle = find_bundle(_BUNDLES[record is not None and len(record.labels) == _PRETRAIN_LABELS])
    config = inference_config(bundle)
    return Network(weights.absolute(), bundle, run_spec(config, weights.absolute(), overrides))


@dataclass(frozen=True)
class Outlined:
    """A case that was outlined.

    Attributes:
        case: its name.
        image: the CT as NIfTI, absolute.
        label_sha256: of the mask's file.
        measures: what is checked.
        warnings: what a reader should know, one sentence each.
    """

    case: str
    image: Path
    label_sha256: str
    measures: Measures
    warnings: tuple[str, ...]


class OutlinedCases:
    """Outlines cases, leaves those that are outlined already, and remembers why the others failed.

    Every slice is computed at its own resolution, not the liver's surroundings alone as in `liverseg predict`: what a
    network takes for liver elsewhere in the body is what the check of its largest component looks for.

    Args:
        items: `find_cases`.
        output: the folder, which is there.
        networks: the one whose masks are written, and a second one or none.
        mirrored: also outline each CT with left and right changed, as the bundles' augmentation does.
        limits: to tell, as cases are done, which are accepted.
        overrides: of the bundles' keys.
        progress: show a bar where stderr is a terminal.

    Attributes:
        done: outlined cases by name.
        failures: by name, why a case was not outlined.
        computed: names of those that this run has outlined.
        error: of the only case there is.
    """

    def __init__(
        self,
        items: Sequence[Mapping[str, str]],
        output: Path,
        networks: Sequence[Network],
        *,
        mirrored: bool,
        limits: Limits,
        overrides: Mapping[str, Any],
        progress: bool = True,
    ) -> None:
        self.done: dict[str, Outlined] = {}
        self.failures: dict[str, str] = {}
        self.computed: list[str] = []
        self.error: Exception | None = None
        self._items, self._output, self._networks = items, output, networks
        self._mirrored, self._limits, self._overrides, self._progress = mirrored, limits, overrides, progress
        told = {"format": _FORMAT, "mirrored": mirrored, "networks": [asdict(network.spec) for network in networks]}
        self._configuration = sha256_text(json.dumps(told, sort_keys=True, default=str))
        self._left: list[Mapping[str, str]] = []
        self._evaluators: list[CaseEvaluator] = []
        self._callback = Callback()

    def prepare(self) -> None:
        """See which cases are left, and load the networks if there are any.

        Raises:
            LiversegError: if weights or settings cannot be used.
        """
        for item in self._items:
            earlier = self._outlined_before(item)
            if earlier is None:
                self._left.append(item)
            else:
                self.done[item["case"]] = earlier
        if self._left:
            self._evaluators = [
                case_evaluator(
                    self._output, weights=one.weights, bundle=one.bundle, **self._overrides, dicom=False, progress=False
                )
                for one in self._networks
            ]

    def run(self) -> None:
        """Outline the cases that are left, after `prepare`; one that fails is told on stderr and the others go on."""
        if not self._left:
            return
        names = [item["case"] for item in self._left]
        with ConsoleReporter(names, self._progress) as console:
            self._callback = console
            run_overlapped(Prefetcher(zip(names, self._left, strict=True), self._read), self._compute, self._write)
        self.error = console.error
        if self.error is not None and len(self._items) > 1:
            print(f"{names[0]}: failed: {describe_cause(self.error)}", file=sys.stderr)

    def _outlined_before(self, item: Mapping[str, str]) -> Outlined | None:
        """A case whose record says that input, weights, settings and files are those of now; None if it is not done."""
        case = item["case"]
        folder = case_folder(self._output, case)
        record = read_case_record(folder)
        try:
            if (
                record is None
                or record["configuration_sha256"] != self._configuration
                or record["input"]["path"] != item["image"]
                or sha256_file(label_path(self._output, case)) != record["label_sha256"]
                or any(sha256_file(folder / name) != sha256 for name, sha256 in record["files"].items())
                or not matches_input(Path(item["image"]), record["input"])
            ):
                return None
            return _outlined(case, record)
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
        """Of the CT, of the mirrored one and by the second network."""
        passes = [(self._evaluators[0], False)]
        passes += [(self._evaluators[0], True)] if self._mirrored else []
        passes += [(one, False) for one in self._evaluators[1:]]
        done = 0

        def tell(more: int) -> None:
            nonlocal done
            done += more
            stages.done(done / (len(passes) * hu.size))

        outlines = iter([_outline(one, hu, spacing, mirrored, tell) for one, mirrored in passes])
        return next(outlines), next(outlines) if self._mirrored else None, next(outlines, None)

    def _write(self, case: tuple[str, Any], data: dict[str, Any]) -> None:
        name = case[0]
        try:
            with data["stages"]("write"):
                record = self._written(name, data)
        except Exception as error:
            self._failed(name, "write", error)
            return
        outlined = _outlined(name, record)
        self.done[name] = outlined
        self.computed.append(name)
        refused = "; ".join(self._limits.failed(outlined.measures))
        found = f"{outlined.measures.describe()}: {f'refused: {refused}' if refused else 'accepted'}"
        self._callback.on_event(CaseDone(name, found, dict(data["stages"].seconds), outlined.warnings))

    def _written(self, name: str, data: dict[str, Any]) -> dict[str, Any]:
        """Write a case's files, its record last, which is returned."""
        folder, label = case_folder(self._output, name), label_path(self._output, name)
        volume, outline = data["volume"], data["outline"]
        try:
            for place in (folder.parent, label.parent):
                place.mkdir(exist_ok=True)
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
                names=[one.name for one in self._networks],
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
            "configuration_sha256": self._configuration,
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
    """Where a case's picture and record are."""
    return output / "cases" / case


def label_path(output: Path, case: str) -> Path:
    """A case's mask: uint8 on the CT's grid, 0 background, 1 liver or lesion."""
    return output / "labels" / f"{case}.nii.gz"


def picture_path(output: Path, case: str) -> Path:
    """A case's picture."""
    return case_folder(output, case) / _PICTURE


def _outlined(case: str, record: Mapping[str, Any]) -> Outlined:
    return Outlined(
        case, Path(record["image"]), record["label_sha256"], Measures(**record["measures"]), tuple(record["warnings"])
    )


def _outline(
    evaluator: CaseEvaluator, hu: np.ndarray, spacing: Sequence[float], mirrored: bool, tell: Callable[[int], None]
) -> LiverOutline:
    """What a network outlines on a CT in axial order, of which columns run towards the patient's left."""
    slabs = evaluator.pipeline.cascade.slabs
    seen = hu[:, :, ::-1] if mirrored else hu
    prediction = slabs(
        seen, evaluator.pipeline.network, slice_mm=float(spacing[0]), in_plane_mm=spacing[1:], on_batch=tell
    )
    found = prediction.inside >= LIVER
    return one_liver(found[:, :, ::-1] if mirrored else found)
