"""The run over cases: read, network, lesions, write, one case after the other.

Three stages run side by side: while one case is computed, the next is read and the last one written. They are threads,
not processes: reading, hashing, torch and compression leave Python's lock to the others, and a container's 64 MB of
shared memory hold no CT.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from monai.data import Dataset

from liverseg.cases.events import Callback, CaseDone, StageEnded, StageProgress, StageStarted
from liverseg.errors import LiversegError, SomeCasesFailed, user_error
from liverseg.inference.cascade import LiverCascade
from liverseg.inference.failures import case_failed, describe_cause
from liverseg.inference.output.case_writer import CaseWriter
from liverseg.inference.output.record import RunMetadata
from liverseg.inference.plausibility import check_plausibility
from liverseg.inference.progress import ConsoleReporter, StageTimer
from liverseg.labels import result_labels
from liverseg.networks import SEResUNet, load_weights, read_record
from liverseg.networks.blocks import fold_batch_norm
from liverseg.results.tables import write_statistics
from liverseg.utils.files import sha256_file

__all__ = [
    "CaseEvaluator",
    "Prefetcher",
    "run_pipeline",
]

_NO_MORE = object()


class Prefetcher:
    """The next case, being read in a thread.

    Args:
        items: the cases, asked for one at a time, in that thread.
        read: what is made of one.
    """

    def __init__(self, items: Iterator[Any], read: Callable[[Any], Any]) -> None:
        self._items, self._read = items, read
        self._thread = ThreadPoolExecutor(1, "read")
        self._next: Future[tuple[Any, Any]] = self._thread.submit(self._pull)

    def __call__(self) -> tuple[Any, Any] | None:
        """The next item and what reading gave, while the one after it begins to be read; None after the last."""
        item, data = self._next.result()
        if item is _NO_MORE:
            return None
        self._next = self._thread.submit(self._pull)
        return item, data

    def close(self) -> None:
        """Read no more; what is being read is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _pull(self) -> tuple[Any, Any]:
        item = next(self._items, _NO_MORE)
        return (item, None) if item is _NO_MORE else (item, self._read(item))


def run_pipeline(ahead: Prefetcher, compute: Callable[[Any, Any], Any], write: Callable[[Any, Any], Any]) -> None:
    """Take every case through its stages; no more than three are in memory.

    Args:
        ahead: gives item and data.
        compute: item and data to what is written, in the calling thread; None ends the case there.
        write: item and data to files, in a thread.

    Raises:
        What a stage raises; stages settle what is a case's own affair themselves.
    """
    with ExitStack() as stack:
        writers = stack.enter_context(ThreadPoolExecutor(1, "write"))
        stack.callback(ahead.close)
        writing: Future[Any] | None = None
        while (pulled := ahead()) is not None:
            item, data = pulled
            data = compute(item, data)
            if writing is not None:
                writing.result()
            writing = None if data is None else writers.submit(write, item, data)
            del pulled, data  # or they would be in memory until the next is read
        if writing is not None:
            writing.result()


Case = tuple[str, Callable[[], Mapping]]
"""A case's name, and what reads it."""


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
        self._facts: RunMetadata | None = None
        self._ahead: Prefetcher | None = None
        self._callback = Callback()

    def prepare(self) -> RunMetadata:
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
            self._ahead = Prefetcher(self._cases(), self._read)
            aside = ThreadPoolExecutor(1, "hash")
            try:
                digest = aside.submit(sha256_file, self.weights)
                record = load_weights(self.network, self.weights, input_spec=self.inferer.slabs.input_spec)
                sha256 = digest.result()
            except BaseException:
                self._ahead.close()  # what fails need not wait for the CT
                raise
            finally:
                aside.shutdown(wait=False)
            fold_batch_norm(self.network.eval())
            self._facts = RunMetadata(self.weights, sha256, record, self.device, precision, self.settings)
        return self._facts

    def run(self) -> None:
        """Compute and write every case of the data set, and tell a terminal.

        Raises:
            LiversegError: if every case failed; the one case's own error where there was but one.
            SomeCasesFailed: if part of them failed.
        """
        self.prepare()
        ahead, self._ahead = self._ahead or Prefetcher(self._cases(), self._read), None
        names = [name for name, _ in self._cases()]
        with ConsoleReporter(names, self.progress) as console:
            self._run_cases(ahead, console)
        failed = [name for name in names if name in console.failures]
        if error := console.error:
            raise (user_error(error) or LiversegError(f"{names[0]}: {describe_cause(error)}")) from error
        if self.statistics:
            write_statistics(self.writer.output_dir, [name for name in names if name not in failed])
        if failed:
            kind = LiversegError if len(failed) == len(names) else SomeCasesFailed
            which = ", ".join(failed[:5]) + (", ..." if len(failed) > 5 else "")
            raise kind(f"{len(failed)} of {len(names)} cases failed: {which}; the reasons are told above")

    def work(self, items: Iterator[Mapping[str, Any]], callback: Callback) -> None:
        """Compute and write cases as they come, whatever the data set holds.

        Args:
            items: as the data set's are; asked for one at a time, in a thread of its own, so they may take their time.
            callback: receives the events of each case; a case that fails raises nothing.
        """
        self.prepare()
        cases = ((item["case"], partial(self.dataset.transform, item)) for item in items)
        self._run_cases(Prefetcher(cases, self._read), callback)

    def _cases(self) -> Iterator[Case]:
        """Those of the data set."""
        for number, item in enumerate(self.dataset.data):
            yield item["case"], partial(self.dataset.__getitem__, number)

    def _run_cases(self, ahead: Prefetcher, callback: Callback) -> None:
        self._callback = callback
        run_pipeline(ahead, self._compute, self._write)

    def _read(self, case: Case) -> dict[str, Any] | Exception:
        """Read a case; return its data, or the exception, which `_compute` reports: the first case is read early."""
        name, read = case
        stages = StageTimer()
        self._callback.on_event(StageStarted(name, "read"))
        try:
            with stages("read"):
                data = dict(read())
        except Exception as error:
            return error
        finally:
            self._callback.on_event(StageEnded(name, "read"))
        return {**data, "stages": stages, "seconds": stages.seconds}

    def _compute(self, case: Case, data: dict[str, Any] | Exception) -> dict[str, Any] | None:
        name = case[0]
        if isinstance(data, Exception):
            self._callback.on_event(case_failed(name, "read", data))
            return None
        if not self._callback.should_run(name):
            return None
        return self._run_stage(name, "compute", partial(self._results, name, data))

    def _results(self, name: str, data: dict[str, Any]) -> dict[str, Any]:
        self.writer.check(name, data)
        stages, about = data["stages"], {"spacing": data["volume"].axial_spacing, "liver": data.get("liver")}
        stages.on_progress = lambda part, share: self._callback.on_event(StageProgress(name, part, share))
        pred = self.inferer(data["image"], self.network, **about, stages=stages)
        with stages("lesions"):
            found = self.postprocessing({**data, "pred": pred})
            plausibility = check_plausibility(data["image"], found["pred"], about["spacing"])
        told = [finding.sentence for finding in plausibility.findings]
        return {**found, "plausibility": plausibility, "warnings": [*data["warnings"], *pred.warnings, *told]}

    def _write(self, case: Case, data: dict[str, Any]) -> None:
        name, facts = case[0], self.prepare()
        done: CaseDone | None = self._run_stage(name, "write", partial(self.writer, name, data, facts, self.labels))
        if done is not None:
            self._callback.on_event(done)

    def _run_stage(self, name: str, stage: str, work: Callable[[], Any]) -> Any:
        """Return the result of a stage of a case; None if it failed, which is reported."""
        self._callback.on_event(StageStarted(name, stage))
        try:
            return work()
        except Exception as error:
            self._callback.on_event(case_failed(name, stage, error))
            return None
        finally:
            self._callback.on_event(StageEnded(name, stage))
