"""Run the pipeline over the cases of a data set, one after the other, with reading and writing overlapped."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from liverseg.cases.events import Callback, CaseDone, StageEnded, StageProgress, StageStarted
from liverseg.errors import LiversegError, SomeCasesFailed, user_error
from liverseg.inference.cascade import LiverCascade
from liverseg.inference.failures import case_failed, describe_cause
from liverseg.inference.output.case_writer import CaseWriter
from liverseg.inference.output.record import RunMetadata
from liverseg.inference.overlap import Prefetcher, run_overlapped
from liverseg.inference.pipeline import Pipeline
from liverseg.inference.progress import ConsoleReporter
from liverseg.inference.transforms import Steps
from liverseg.networks import SEResUNet, load_weights, read_record
from liverseg.networks.fusion import optimize_for_inference
from liverseg.results.tables import write_statistics
from liverseg.utils.files import sha256_file

__all__ = ["CaseEvaluator"]

Item = Mapping[str, Any]
"""`image` and `case`, and the case's own settings."""


class Cases(Protocol):
    """The part of MONAI's `Dataset` that an evaluator needs."""

    @property
    def data(self) -> Any:
        """Items, see `CaseEvaluator`."""

    @property
    def transform(self) -> Any:
        """Reads an item."""


class CaseEvaluator:
    """Compute and write every case of a data set.

    A case that fails is reported in one line on stderr (with its traceback if the environment sets LIVERSEG_DEBUG) and
    the others go on. A finished case is reported on stdout: its liver, its lesions by type and the seconds it took.
    MONAI's `SupervisedEvaluator` would end the run at the first case that fails.

    Args:
        dataset: items with `image` and `case`; its transform adds `volume` and `warnings` (`ReadCTd`).
        network: on `device`; `prepare` loads its weights.
        inferer: predicts the labels of HU in axial order.
        postprocessing: `Steps` or MONAI's `Compose`: first the transform from `pred` to the `LesionMap` in `pred`, then
            those that add the table in `lesions`.
        writer: writes a computed case to its files.
        device: device of the network.
        weights: .safetensors, .pt or .pth.
        settings: written into each record.
        statistics: write the tables over all cases, `write_statistics`.
        progress: show a bar on stderr if that is a terminal; in a log the lines about the cases are enough.
    """

    def __init__(
        self,
        dataset: Cases,
        network: SEResUNet,
        inferer: LiverCascade,
        postprocessing: Steps,
        writer: CaseWriter,
        device: torch.device | str,
        weights: str | os.PathLike,
        settings: Mapping[str, Any] | None = None,
        statistics: bool = False,
        progress: bool = True,
    ) -> None:
        self.dataset = dataset
        self.device = torch.device(device)
        self.weights = Path(str(weights)).absolute()
        self.settings = dict(settings or {})
        self.statistics = statistics
        self.progress = progress
        find_lesions, *measure_lesions = postprocessing.transforms
        self.pipeline = Pipeline(
            preprocessing=dataset.transform,
            network=network,
            cascade=inferer,
            find_lesions=find_lesions,
            measure_lesions=Steps(measure_lesions),
            writer=writer,
        )
        self._prefetcher: Prefetcher | None = None
        self._callback = Callback()

    def prepare(self) -> RunMetadata:
        """Load the weights strictly, once, while a thread reads the first case.

        A config's `initialize` calls it before anything is written. From then on the network is for inference only, see
        `optimize_for_inference`.

        Raises:
            LiversegError: if the weights are missing, damaged, foreign or of another network or input.
            UsageError: if the device does not have the precision that was asked for.
        """
        if self.pipeline.metadata is None:
            network, slabs = self.pipeline.network, self.pipeline.cascade.slabs
            precision = slabs.precision(self.device)
            read_record(self.weights)  # a wrong path is reported before the CT is read
            self._prefetcher = self._prefetch(self.dataset.data)
            thread = ThreadPoolExecutor(1, "hash")
            try:
                digest = thread.submit(sha256_file, self.weights)
                record = load_weights(network, self.weights, input_spec=slabs.input_spec)
                sha256 = digest.result()
            except BaseException:
                self._prefetcher.close()  # an error does not wait for the CT
                raise
            finally:
                thread.shutdown(wait=False)
            dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
            optimize_for_inference(network.eval(), dtype)
            self.pipeline.metadata = RunMetadata(self.weights, sha256, record, self.device, precision, self.settings)
        return self.pipeline.metadata

    def run(self) -> None:
        """Compute and write every case of the data set, and report to the terminal.

        Raises:
            LiversegError: if every case failed; of a single case its own error.
            SomeCasesFailed: if some of the cases failed.
        """
        self.prepare()
        prefetcher, self._prefetcher = self._prefetcher or self._prefetch(self.dataset.data), None
        names = [item["case"] for item in self.dataset.data]
        with ConsoleReporter(names, self.progress) as console:
            self._run_cases(prefetcher, console)
        failed = [name for name in names if name in console.failures]
        if error := console.error:
            raise (user_error(error) or LiversegError(f"{names[0]}: {describe_cause(error)}")) from error
        if self.statistics:
            assert self.pipeline.writer is not None
            write_statistics(self.pipeline.writer.output_dir, [name for name in names if name not in failed])
        if failed:
            kind = LiversegError if len(failed) == len(names) else SomeCasesFailed
            listed = ", ".join(failed[:5]) + (", ..." if len(failed) > 5 else "")
            raise kind(f"{len(failed)} of {len(names)} cases failed: {listed}; see the reasons above")

    def work(self, items: Iterable[Item], callback: Callback) -> None:
        """Compute and write cases as they come, instead of those of the data set.

        Args:
            items: as those of the data set; a separate thread asks for one at a time, so the iterator may block.
            callback: receives the events of each case; a case that fails raises nothing.
        """
        self.prepare()
        self._run_cases(self._prefetch(items), callback)

    def _prefetch(self, items: Iterable[Item]) -> Prefetcher:
        return Prefetcher(iter(items), self._read)

    def _run_cases(self, prefetcher: Prefetcher, callback: Callback) -> None:
        self._callback = callback
        run_overlapped(prefetcher, self._compute, self._write)

    def _read(self, item: Item) -> dict[str, Any] | Exception:
        """Read a case; return its data, or the exception, which `_compute` reports: the first case is read early."""
        name = item["case"]
        self._callback.on_event(StageStarted(name, "read"))
        try:
            return self.pipeline.read(item)
        except Exception as error:
            return error
        finally:
            self._callback.on_event(StageEnded(name, "read"))

    def _compute(self, item: Item, data: dict[str, Any] | Exception) -> dict[str, Any] | None:
        name = item["case"]
        if isinstance(data, Exception):
            self._callback.on_event(case_failed(name, "read", data))
            return None
        if not self._callback.should_run(name):
            return None
        data["stages"].on_progress = lambda part, share: self._callback.on_event(StageProgress(name, part, share))
        return self._run_stage(name, "compute", partial(self.pipeline.compute, data))

    def _write(self, item: Item, data: dict[str, Any]) -> None:
        done: CaseDone | None = self._run_stage(item["case"], "write", partial(self.pipeline.write, data))
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
