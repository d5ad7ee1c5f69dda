"""A batch of thousands of small CTs: whether speed, memory and descriptors stay constant, and what the end costs."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.soak.material import Journal, write_ct, write_weights
from benchmarks.soak.runs import Batch, Fault, complete_cases, event_time, events

__all__ = ["many", "quarter_rows"]

_SHAPE = (32, 40, 4)
_SAMPLE_SECONDS = 1.0
_SECONDS_PER_CASE = 10.0
"""A batch that takes longer than this for each case hangs."""
_TABLES = ("summary.csv", "lesions.csv", "failed.csv", "index.html", "run.jsonl")


@dataclass(frozen=True)
class Sample:
    """Resources of a process at a time.

    Attributes:
        time: seconds since 1970.
        process: "batch" or "worker".
        memory: proportional set size (PSS) in bytes.
        descriptors: number of open file descriptors.
        threads: number of threads.
        cpu: seconds of processor time since its start.
    """

    time: float
    process: str
    memory: int
    descriptors: int
    threads: int
    cpu: float


def many(folder: Path, cases: int = 2000) -> None:
    """Run a batch of distinct CTs with one worker, and the same batch again over its finished output.

    Adds to the journal, for each quarter of the cases, the cases per second, and the processor time per case and the
    largest memory, descriptors and threads of the batch process and of its worker, sampled every second; then the
    seconds for the tables, the seconds to recognise the finished cases, and the sizes of tables and results. Processor
    time does not depend on other work of the machine.

    Raises:
        Fault: A case failed, or the second batch computed a case again.
    """
    journal, weights = Journal(folder), write_weights(folder / "weights.safetensors")
    source, output, log = _source(folder, cases), folder / "many-out", folder / "many-log"
    shutil.rmtree(output, ignore_errors=True)
    arguments = (source, output, "--weights", weights, "--liver", "none")
    samples, seconds = _run_sampled(log, arguments, cases)
    lines = events(output)
    computed = {"seconds": seconds, "tables_s": _tables_seconds(output), "batch_peak": _peak(samples, "batch")}
    quarters = quarter_rows(lines, samples)
    made = complete_cases(output)
    if len(made) != cases:
        raise Fault(f"{len(made)} of {cases} cases have a record")
    samples, seconds = _run_sampled(log, arguments, cases)
    again = events(output)[len(lines) :]
    if complete_cases(output) != made or any(line["event"] == "begun" for line in again):
        raise Fault("the second batch computed cases again")
    started = next(event_time(line) for line in again if line["event"] == "run begun")
    recognised = {
        "seconds": seconds,
        "recognised_s": (output / ".liverseg" / "tables.lock").stat().st_mtime - started,
        "tables_s": _tables_seconds(output),
        "batch_peak": _peak(samples, "batch"),
    }
    sizes = {name: (output / name).stat().st_size for name in _TABLES}
    results = [path.stat().st_size for name in made for path in (output / name).iterdir()]
    sizes |= {"files": len(results), "results": sum(results)}
    journal.add("many", cases=cases, quarters=quarters, computed=computed, recognised=recognised, sizes=sizes)


def _source(folder: Path, cases: int) -> Path:
    source = folder / f"many-in-{cases}"
    if not (source / "made").exists():
        for number in range(cases):
            write_ct(source / f"ct{number:06}.nii.gz", number, shape=_SHAPE)
        (source / "made").touch()
    return source


def _run_sampled(log: Path, arguments: Sequence[Any], cases: int) -> tuple[list[Sample], float]:
    """Run a batch to its end; return samples of its processes, and its seconds."""
    start, samples, batch = time.monotonic(), list[Sample](), Batch(log, *arguments)
    sampler = threading.Thread(target=_sample, args=(batch, samples))
    sampler.start()
    code = batch.wait(120 + _SECONDS_PER_CASE * cases)
    seconds = time.monotonic() - start
    sampler.join()
    if code != 0:
        raise Fault(f"exit code {code}: see {log}")
    return samples, seconds


def _sample(batch: Batch, samples: list[Sample]) -> None:
    """Append samples of the batch and its workers until the batch ends."""
    while batch.ended() is None:
        for process, pids in (("batch", [batch.pid]), ("worker", batch.workers())):
            for pid in pids:
                with suppress(OSError, ValueError, StopIteration):
                    samples.append(_sample_of(pid, process))
        time.sleep(_SAMPLE_SECONDS)


def _sample_of(pid: int, process: str) -> Sample:
    folder = Path(f"/proc/{pid}")
    rollup = (folder / "smaps_rollup").read_text(encoding="ascii").splitlines()
    memory = next(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Pss:"))
    descriptors, threads = (len(os.listdir(folder / name)) for name in ("fd", "task"))
    ticks = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]
    cpu = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return Sample(time.time(), process, memory, descriptors, threads, cpu)


def _peak(samples: Sequence[Sample], process: str) -> int:
    return max((sample.memory for sample in samples if sample.process == process), default=0)


def _tables_seconds(output: Path) -> float:
    """Return the seconds from the lock of the tables, whose file is opened for writing, to the last table."""
    return (output / "index.html").stat().st_mtime - (output / ".liverseg" / "tables.lock").stat().st_mtime


def _distance(at: float, sample: Sample) -> float:
    return abs(sample.time - at)


def quarter_rows(lines: Sequence[Mapping[str, Any]], samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Return cases per second and the largest samples of each quarter of the cases.

    Args:
        lines: entries of run.jsonl.
        samples: of the batch and its worker; the nearest counts for a quarter that is too short to have one.

    Raises:
        Fault: A process has no sample.
    """
    done = sorted(event_time(line) for line in lines if line["event"] == "done")
    first = min(event_time(line) for line in lines if line["event"] == "begun")
    limits = [len(done) * quarter // 4 for quarter in range(5)]
    times = [first, *(done[limit - 1] for limit in limits[1:])]
    rows = []
    for (begin, end), (low, high) in zip(pairwise(times), pairwise(limits), strict=True):
        row: dict[str, Any] = {"cases_per_s": (high - low) / max(end - begin, 1e-3)}
        for process in ("batch", "worker"):
            of_process = [sample for sample in samples if sample.process == process]
            if not of_process:
                raise Fault(f"no sample of the {process}")
            at_begin, at_end = (min(of_process, key=partial(_distance, at)) for at in (begin, end))
            inside = [sample for sample in of_process if begin <= sample.time <= end] or [at_end]
            row[f"{process}_cpu_ms"] = 1000 * (at_end.cpu - at_begin.cpu) / (high - low)
            for name in ("memory", "descriptors", "threads"):
                row[f"{process}_{name}"] = max(asdict(sample)[name] for sample in inside)
        rows.append(row)
    return rows
