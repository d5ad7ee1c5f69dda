"""Measurements of a batch: overlap of its stages, growth of its memory, and the cost of Ray relative to shards."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from benchmarks.soak.material import Journal, write_ct, write_weights
from benchmarks.soak.runs import Batch, Fault, event_time, events, files_of

__all__ = ["overlap", "ray_against_shards"]

_CASES = 40
_STAGES = {"read": ("read",), "compute": ("liver", "network", "lesions"), "write": ("write",)}
_SAMPLE = 0.05


def _source(folder: Path, shape: tuple[int, int, int], cases: int) -> Path:
    source = folder / f"speed-in-{'x'.join(map(str, shape))}-{cases}"
    if not (source / "made").exists():
        for number in range(cases):
            write_ct(source / f"ct{number:02}.nii.gz", number, shape=shape)
        (source / "made").touch()
    return source


def _window(*outputs: Path) -> tuple[float, float]:
    """Return the times of the first case's start and of the last case's end, seconds since 1970."""
    lines = [line for output in outputs for line in events(output)]
    times = {event: [event_time(line) for line in lines if line["event"] == event] for event in ("begun", "done")}
    return min(times["begun"]), max(times["done"])


def _all_done(batch: Batch, log: Path) -> None:
    code = batch.wait(900)
    if code != 0:
        raise Fault(f"exit code {code}: see {log}")


def overlap(folder: Path, rounds: int = 5, shape: tuple[int, int, int] = (96, 96, 12)) -> None:
    """Run batches of forty CTs with one worker on all processors, and measure overlap and memory.

    Prints two ratios and adds them to the journal. The first is the slowest stage's seconds of all cases relative to
    the time from the first case's start to the last case's end, which is the throughput relative to that of the slowest
    stage alone. The second is the worker's largest resident memory in the last quarter of that time relative to the
    second quarter, sampled every 50 ms.
    """
    journal, weights, source = (
        Journal(folder),
        write_weights(folder / "weights.safetensors"),
        _source(folder, shape, _CASES),
    )
    for _ in range(rounds):
        output, log = folder / "overlap-out", folder / "overlap-log"
        shutil.rmtree(output, ignore_errors=True)
        batch = Batch(log, source, output, "--weights", weights, "--liver", "none", OMP_NUM_THREADS=str(os.cpu_count()))
        samples: list[tuple[float, int]] = []
        sampler = threading.Thread(target=_sample_memory, args=(batch, samples))
        sampler.start()
        _all_done(batch, log)
        sampler.join()
        first, last = _window(output)
        stage_seconds = [line["seconds"] for line in events(output) if line["event"] == "done"]
        stages = {
            stage: sum(seconds.get(part, 0) for seconds in stage_seconds for part in parts)
            for stage, parts in _STAGES.items()
        }
        quarter = (last - first) / 4
        peaks = [
            max((size for when, size in samples if first + n * quarter <= when < first + (n + 1) * quarter), default=0)
            for n in range(4)
        ]
        measured = {"seconds": last - first, "stages": stages, "ratio": max(stages.values()) / (last - first)}
        journal.add(
            "overlap", **measured, peaks_mb=[round(size / 1e6, 1) for size in peaks], growth=peaks[3] / peaks[1]
        )
        print(f"{measured}, peaks {[round(size / 1e6) for size in peaks]} MB", flush=True)
    ratios, growths = ([line[name] for line in journal.lines("overlap")] for name in ("ratio", "growth"))
    print(f"throughput relative to the slowest stage: median {statistics.median(ratios):.3f} of {len(ratios)} rounds")
    print(f"memory, last quarter relative to the second: median {statistics.median(growths):.3f}")


def _sample_memory(batch: Batch, samples: list[tuple[float, int]]) -> None:
    """Append the worker's resident memory in bytes, with the time, until the batch ends."""
    page, workers = os.sysconf("SC_PAGE_SIZE"), []
    while batch.ended() is None:
        workers = workers or batch.workers()
        for pid in workers:
            with suppress(OSError, IndexError):
                pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
                samples.append((time.time(), int(pages) * page))
        time.sleep(_SAMPLE)


def ray_against_shards(
    folder: Path, rounds: int = 5, cases: int = 64, shape: tuple[int, int, int] = (96, 96, 12)
) -> None:
    """Compare two Ray workers of one processor each with two shards, in turns.

    Ray runs on an existing cluster and on one that is started for the batch. Prints the seconds of each and adds them
    to the journal, from the command to its end and from the first case's start to the last case's end.

    Raises:
        Fault: The results differ.
    """
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # for a local cluster
    journal, weights = Journal(folder), write_weights(folder / "weights.safetensors")
    common = [_source(folder, shape, cases), "--weights", weights, "--liver", "none"]
    total: dict[str, list[float]] = {variant: [] for variant in ("shards", "ray", "ray begun for it")}
    inner: dict[str, list[float]] = {variant: [] for variant in total}
    for _ in range(rounds):
        results = {}
        for variant in total:
            output, log = folder / f"{variant.replace(' ', '-')}-out", folder / "ray-speed-log"
            shutil.rmtree(output, ignore_errors=True)
            with _cluster() if variant == "ray" else nullcontext("") as address:
                start = time.monotonic()
                shards = [["--shard", f"{part}/2"] for part in (1, 2)]
                options = shards if variant == "shards" else [["--engine", "ray", "--workers", 2]]
                batches = [Batch(log, common[0], output, *common[1:], *more, RAY_ADDRESS=address) for more in options]
                for batch in batches:
                    _all_done(batch, log)
                total[variant].append(time.monotonic() - start)
            first, last = _window(output)
            inner[variant].append(last - first)
            journal.add("ray speed", way=variant, cases=cases, whole=total[variant][-1], inner=inner[variant][-1])
            print(f"{variant}: {total[variant][-1]:.1f} s, of that cases {inner[variant][-1]:.1f} s", flush=True)
            results[variant] = files_of(output)
        for variant, files in results.items():
            if files != results["shards"]:
                raise Fault(f"results of {variant} differ from those of the shards")
    for name, seconds in (("command to end", total), ("first case to last case", inner)):
        shards_s = statistics.median(seconds["shards"])
        for variant, times in seconds.items():
            print(f"{name}, {variant}: {statistics.median(times):.1f} s, {statistics.median(times) / shards_s:.3f}")


@contextmanager
def _cluster() -> Iterator[str]:
    """Start a local Ray cluster of two processors, give its address, and stop all local clusters at the end."""
    ray = Path(sys.executable).with_name("ray")
    port = 6399
    command = [ray, "start", "--head", f"--port={port}", "--num-cpus=2", "--include-dashboard=false"]
    subprocess.run([*command, "--disable-usage-stats"], check=True, stdout=subprocess.DEVNULL)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        subprocess.run([ray, "stop", "--force"], check=True, stdout=subprocess.DEVNULL)
