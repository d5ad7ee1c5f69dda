"""The run over cases: read, network, lesions, write, one case after the other."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from monai.data import Dataset
from tqdm import tqdm

from liverseg.errors import LiversegError, SomeCasesFailed, user_error
from liverseg.files import file_hash
from liverseg.inference.cascade import LiverCascade
from liverseg.inference.case_writer import CaseWriter
from liverseg.inference.failures import cause_in_words
from liverseg.inference.lesions import seen_of_the_liver
from liverseg.inference.record import RunFacts
from liverseg.inference.stages import Stages
from liverseg.labels import result_labels
from liverseg.networks import SEResUNet, load_weights, read_record
from liverseg.networks.folding import fold_batch_norm
from liverseg.results.tables import write_statistics

__all__ = ["CaseEvaluator"]

_BAR = "{desc}{percentage:3.0f}%|{bar}| {n:.1f}/{total} {unit} [{elapsed}<{remaining}]"


class CaseEvaluator:
    """Takes every case of a data set to its files.

    A case that fails is told in one line on stderr (with its traceback where the environment sets LIVERSEG_DEBUG) and
    the others go on. A finished one is told on stdout: its liver, its lesions by type and the seconds it took.

    Args:
        dataset: items with `image`, `case`, and after their transform `volume` and `warnings` (`ReadCTd`).
        network: on `device`; its weights are loaded by `prepare`, or by `run` where that was not called.
        inferer: turns HU in axial order into a prediction.
        postprocessing: transform from `pred` to the `LesionMap` in `pred` and the table in `lesions`.
        writer: takes a computed case to its files.
        device: the network runs on.
        weights: .safetensors, .pt or .pth.
        settings: written into each record.
        statistics: write the tables over all cases, `write_statistics`.
        progress: show a bar on stderr, where that is a terminal: in a log the lines about the cases are enough.
    """

    def __init__(
        self,
        dataset: Dataset,
        network: SEResUNet,
        inferer: LiverCascade,
        postprocessing: Callable[[dict], dict],
        writer: CaseWriter,
        device: torch.device | str,
        weights: str | os.PathLike,
        settings: Mapping[str, Any] | None = None,
        statistics: bool = False,
        progress: bool = True,
    ) -> None:
        self.dataset = dataset
        self.network = network
        self.inferer = inferer
        self.postprocessing = postprocessing
        self.writer = writer
        self.device = torch.device(device)
        self.weights = Path(str(weights)).absolute()
        self.settings = dict(settings or {})
        self.statistics = statistics
        self.progress = progress
        self.labels = result_labels(network.out_channels)
        self._facts: RunFacts | None = None
        self._first: Future[dict[str, Any]] | None = None

    def prepare(self) -> RunFacts:
        """Load the weights strictly, once, and meanwhile read the first case.

        A config's `initialize` does so before anything is written. The network is for inference alone from then on: its
        batch norm is folded into its convolutions.

        Raises:
            LiversegError: if they are missing, damaged, foreign or of another network or input.
            UsageError: if the wanted precision cannot be had on the device.
        """
        if self._facts is None:
            precision = self.inferer.slabs.precision(self.device)
            read_record(self.weights)  # a wrong path need not wait until the CT is read
            aside = ThreadPoolExecutor(2, "prepare")
            try:
                self._first = aside.submit(self._read, 0)
                digest = aside.submit(file_hash, self.weights)
                record = load_weights(self.network, self.weights, seen=self.inferer.slabs.seen)
                sha256 = digest.result()
            finally:
                aside.shutdown(wait=False)  # what fails need not wait for the CT
            fold_batch_norm(self.network.eval())
            self._facts = RunFacts(self.weights, sha256, record, self.device, precision, self.settings)
        return self._facts

    def run(self) -> None:
        """Compute and write every case; while one is computed the next is read and the last one written.

        Raises:
            LiversegError: if every case failed; the one case's own error where there was but one.
            SomeCasesFailed: if part of them failed.
        """
        facts = self.prepare()
        names = [item["case"] for item in self.dataset.data]
        failed: list[str] = []
        bar = tqdm(
            total=len(names), unit="case", bar_format=_BAR, file=sys.stderr, disable=None if self.progress else True
        )

        def settle(name: str, stage: Callable[[], Any]) -> Any:
            """What a stage of a case gives; None where the case has failed, which is told."""
            try:
                return stage()
            except Exception as error:
                if len(names) == 1:
                    raise (user_error(error) or LiversegError(f"{name}: {cause_in_words(error)}")) from error
                failed.append(name)
                self._tell_failure(name, error)
                return None

        # one volume is read ahead and one written at a time, so that no more than three are in memory
        with ExitStack() as stack:
            stack.enter_context(bar)
            readers, writers = ThreadPoolExecutor(1, "read"), stack.enter_context(ThreadPoolExecutor(1, "write"))
            # what fails, or is interrupted, need not wait for the next CT
            stack.callback(readers.shutdown, wait=False, cancel_futures=True)
            ahead, self._first = self._first or readers.submit(self._read, 0), None
            written: tuple[str, Future] | None = None
            for number, name in enumerate(names):
                bar.set_description(name)
                data = settle(name, ahead.result)
                if number + 1 < len(names):
                    ahead = readers.submit(self._read, number + 1)
                if data is not None:
                    data["stages"].tell = partial(_show, bar, name, number)
                    data = settle(name, partial(self._compute, name, data))
                if written is not None:
                    settle(written[0], written[1].result)
                written = None if data is None else (name, writers.submit(self.writer, name, data, facts, self.labels))
                bar.update(number + 1 - bar.n)
            if written is not None:
                settle(written[0], written[1].result)
        if self.statistics:
            write_statistics(self.writer.output_dir, [name for name in names if name not in failed])
        if failed:
            kind = LiversegError if len(failed) == len(names) else SomeCasesFailed
            which = ", ".join(failed[:5]) + (", ..." if len(failed) > 5 else "")
            raise kind(f"{len(failed)} of {len(names)} cases failed: {which}; the reasons are told above")

    def _read(self, number: int) -> dict[str, Any]:
        stages = Stages()
        with stages("read"):
            data = dict(self.dataset[number])
        return {**data, "stages": stages, "seconds": stages.seconds}

    def _compute(self, name: str, data: dict[str, Any]) -> dict[str, Any]:
        self.writer.check(name, data)
        stages, about = data["stages"], {"spacing": data["volume"].axial_spacing, "liver": data.get("liver")}
        data["pred"] = self.inferer(data["image"], self.network, **about, stages=stages)
        warnings = [*data["warnings"], *data["pred"].warnings]
        with stages("lesions"):
            data = self.postprocessing(data)
        warnings += seen_of_the_liver(data["pred"])
        return {**data, "warnings": warnings}

    def _tell_failure(self, name: str, error: Exception) -> None:
        if os.environ.get("LIVERSEG_DEBUG"):
            tqdm.write("".join(traceback.format_exception(error)), file=sys.stderr)
        tqdm.write(f"{name}: failed: {cause_in_words(error)}", file=sys.stderr)


def _show(bar: tqdm, name: str, number: int, stage: str, part: float) -> None:
    """Bring the bar to where the run is: so many cases whole, and of this one what the network has done."""
    bar.set_description(f"{name}, {stage}", refresh=False)
    if stage == "network":
        bar.n = number + part
    bar.refresh()
