"""The run over cases: read, network, lesions, write, one case after the other."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from monai.data import Dataset
from tqdm import tqdm

from liverseg.errors import LiversegError, user_error
from liverseg.files import file_hash
from liverseg.inference.failures import SomeCasesFailed, cause_in_words
from liverseg.inference.inferer import SlabInferer
from liverseg.inference.lesions import liver_ml
from liverseg.inference.preview import write_preview
from liverseg.inference.record import RunFacts, case_record, lesions_by_type
from liverseg.inference.writers import write_case_files, write_json, write_table_csv, write_table_json
from liverseg.labels import labels_for
from liverseg.networks import SEResUNet, load_weights
from liverseg.volumes import write_like

__all__ = ["CaseEvaluator"]


class CaseEvaluator:
    """Takes every case of a data set to its files in `<output_dir>/<case>/`.

    A case that fails is told in one line on stderr (with its traceback where the environment sets LIVERSEG_DEBUG) and
    the others go on. A finished one is told on stdout: its liver, its lesions by type and the seconds it took.

    Args:
        dataset: items with `image`, `case`, and after their transform `volume` and `warnings` (`ReadCTd`).
        network: on `device`; its weights are loaded by `load_weights`, or by `run` where that was not called.
        inferer: turns HU in axial order into a prediction.
        postprocessing: transform from `pred` to the `LesionMap` in `pred` and the table in `lesions`.
        output_dir: the cases' folders are made in it.
        device: the network runs on.
        weights: .safetensors, .pt or .pth.
        settings: written into each record.
        progress: show a bar on stderr, where that is a terminal: in a log the lines about the cases are enough.
    """

    def __init__(
        self,
        dataset: Dataset,
        network: SEResUNet,
        inferer: SlabInferer,
        postprocessing: Callable[[dict], dict],
        output_dir: str | os.PathLike,
        device: torch.device | str,
        weights: str | os.PathLike,
        settings: Mapping[str, Any] | None = None,
        progress: bool = True,
    ) -> None:
        self.dataset = dataset
        self.network = network
        self.inferer = inferer
        self.postprocessing = postprocessing
        self.output_dir = Path(str(output_dir)).absolute()
        self.device = torch.device(device)
        self.weights = Path(str(weights)).absolute()
        self.settings = dict(settings or {})
        self.progress = progress
        self.labels = labels_for(network.out_channels)
        self._facts: RunFacts | None = None

    def load_weights(self) -> RunFacts:
        """Load the weights strictly, once; a config's `initialize` does so before anything is written.

        Raises:
            LiversegError: if they are missing, damaged, foreign or of another network or input.
            UsageError: if the wanted precision cannot be had on the device.
        """
        if self._facts is None:
            precision = self.inferer.precision(self.device)
            record = load_weights(self.network, self.weights, seen=self.inferer.seen)
            self.network.eval()
            self._facts = RunFacts(self.weights, file_hash(self.weights), record, self.device, precision, self.settings)
        return self._facts

    def run(self) -> None:
        """Compute and write every case.

        Raises:
            LiversegError: if every case failed; the one case's own error where there was but one.
            SomeCasesFailed: if part of them failed.
        """
        facts = self.load_weights()
        names = [item["case"] for item in self.dataset.data]
        failed: list[str] = []
        with tqdm(total=len(names), unit="case", file=sys.stderr, disable=None if self.progress else True) as bar:
            for number, name in enumerate(names):
                bar.set_description(name)
                try:
                    self._run_case(number, name, facts)
                except Exception as error:
                    if len(names) == 1:
                        raise (user_error(error) or LiversegError(f"{name}: {cause_in_words(error)}")) from error
                    failed.append(name)
                    self._tell_failure(name, error)
                bar.update()
        if failed:
            kind = LiversegError if len(failed) == len(names) else SomeCasesFailed
            which = ", ".join(failed[:5]) + (", ..." if len(failed) > 5 else "")
            raise kind(f"{len(failed)} of {len(names)} cases failed: {which}; the reasons are told above")

    def _run_case(self, number: int, name: str, facts: RunFacts) -> None:
        seconds: dict[str, float] = {}
        with _timed(seconds, "read"):
            data = dict(self.dataset[number])
        with _timed(seconds, "network"):
            data["pred"] = self.inferer(data["image"], self.network, slice_mm=data["volume"].axial_spacing[0])
        with _timed(seconds, "lesions"):
            data = self.postprocessing(data)
        volume, lesions, table = data["volume"], data["pred"], data["lesions"]
        liver = liver_ml(lesions, volume.voxel_ml)
        warnings = list(data["warnings"])
        if not liver:
            warnings.append("no liver found")

        def write_record(path: Path) -> None:
            record = case_record(facts, name, volume, lesions, table, self.labels)
            seconds["write"] = time.perf_counter() - start
            rounded = {stage: round(duration, 3) for stage, duration in seconds.items()}
            write_json(path, {**record, "seconds": rounded, "warnings": warnings})

        start = time.perf_counter()
        write_case_files(
            self.output_dir / name,
            {
                "labels.nii.gz": partial(write_like, array=volume.from_axial(lesions.labels), reference=volume),
                "lesions.nii.gz": partial(write_like, array=volume.from_axial(lesions.ids), reference=volume),
                "lesions.csv": partial(write_table_csv, table=table),
                "lesions.json": partial(write_table_json, table=table),
                "preview.png": partial(
                    write_preview, case=name, volume=volume, lesions=lesions, table=table, labels=self.labels
                ),
                "record.json": write_record,
            },
        )
        counts = [f"{count} {kind}" for kind, count in lesions_by_type(table, self.labels).items() if count]
        told = f"{name}: liver {liver:.0f} ml, {', '.join(counts) or 'no lesion'}, {sum(seconds.values()):.1f} s"
        tqdm.write(told, file=sys.stdout)
        for warning in warnings:
            tqdm.write(f"{name}: warning: {warning}", file=sys.stderr)

    def _tell_failure(self, name: str, error: Exception) -> None:
        if os.environ.get("LIVERSEG_DEBUG"):
            tqdm.write("".join(traceback.format_exception(error)), file=sys.stderr)
        tqdm.write(f"{name}: failed: {cause_in_words(error)}", file=sys.stderr)


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
