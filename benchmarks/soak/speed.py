"""How well a batch's stages overlap, whether its memory stays as it is, and what Ray costs against plain processes."""

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
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.soak.material import Journal, write_ct, write_weights
from benchmarks.soak.runs import Batch, Fault, events, files_of

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
    """When the first case was begun and the last done, seconds since 1970."""
    lines = [line for output in outputs for line in events(output)]
    times = {what: [_time(line) for line in lines if line["event"] == what] for what in ("begun", "done")}
    return min(times["begun"]), max(times["done"])


def _time(line: dict[str, Any]) -> float:
    return datetime.fromisoformat(line["time"]).timestamp()


def _all_done(batch: Batch, log: Path) -> None:
    code = batch.wait(900)
    if code != 0:
        raise Fault(f"exit code {code}: see {log}")


def overlap(folder: Path, rounds: int = 5, shape: tuple[int, int, int] = (96, 96, 12)) -> None:
    """Batches of forty CTs by one worker with all processors.

    Prints and keeps of each: the slowest stage's seconds over all cases, of the time from the first case begun to the
    last done, which is the throughput against that of the slowest stage alone; and the worker's largest resident
    memory in the second and the last quarter of that time, sampled every 50 ms.
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
        watching = threading.Thread(target=_watch, args=(batch, samples))
        watching.start()
        _all_done(batch, log)
        watching.join()
        first, last = _window(output)
        told = [line["seconds"] for line in events(output) if line["event"] == "done"]
        spent = {stage: sum(one.get(part, 0) for one in told for part in parts) for stage, parts in _STAGES.items()}
        quarter = (last - first) / 4
        peaks = [
            max((size for when, size in samples if first + n * quarter <= when < first + (n + 1) * quarter), default=0)
            for n in range(4)
        ]
        about = {"seconds": last - first, "stages": spent, "ratio": max(spent.values()) / (last - first)}
        journal.add("overlap", **about, peaks_mb=[round(size / 1e6, 1) for size in peaks], growth=peaks[3] / peaks[1])
        print(f"{about}, peaks {[round(size / 1e6) for size in peaks]} MB", flush=True)
    ratios, growths = ([line[name] for line in journal.lines("overlap")] for name in ("ratio", "growth"))
    print(f"throughput of the slowest stage's: median {statistics.median(ratios):.3f} of {len(ratios)}")
    print(f"memory, last quarter of the second's: median {statistics.median(growths):.3f}")


def _watch(batch: Batch, samples: list[tuple[float, int]]) -> None:
    """The worker's resident memory, bytes, until the batch ends."""
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
    """Two Ray workers of one processor each, and two processes with a half of the cases each, by turns.

    Ray both ways: on a cluster that runs already, and on one that is begun for the batch. Prints and keeps how long
    each took, from the command to its end and from the first case begun to the last done.

    Raises:
        Fault: if results differ.
    """
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # for a cluster of this machine's own
    journal, weights = Journal(folder), write_weights(folder / "weights.safetensors")
    common = [_source(folder, shape, cases), "--weights", weights, "--liver", "none"]
    whole: dict[str, list[float]] = {way: [] for way in ("shards", "ray", "ray begun for it")}
    inner: dict[str, list[float]] = {way: [] for way in whole}
    for _ in range(rounds):
        made = {}
        for way in whole:
            output, log = folder / f"{way.replace(' ', '-')}-out", folder / "ray-speed-log"
            shutil.rmtree(output, ignore_errors=True)
            with _cluster() if way == "ray" else nullcontext("") as address:
                begun = time.monotonic()
                shards = [["--shard", f"{part}/2"] for part in (1, 2)]
                ways = shards if way == "shards" else [["--engine", "ray", "--workers", 2]]
                batches = [Batch(log, common[0], output, *common[1:], *more, RAY_ADDRESS=address) for more in ways]
                for batch in batches:
                    _all_done(batch, log)
                whole[way].append(time.monotonic() - begun)
            first, last = _window(output)
            inner[way].append(last - first)
            journal.add("ray speed", way=way, cases=cases, whole=whole[way][-1], inner=inner[way][-1])
            print(f"{way}: {whole[way][-1]:.1f} s, first begun to last done {inner[way][-1]:.1f} s", flush=True)
            made[way] = files_of(output)
        for way, files in made.items():
            if files != made["shards"]:
                raise Fault(f"results of {way} are not those of the shards")
    for name, seconds in (("command to end", whole), ("first begun to last done", inner)):
        shards_s = statistics.median(seconds["shards"])
        for way, times in seconds.items():
            print(f"{name}, {way}: {statistics.median(times):.1f} s, {statistics.median(times) / shards_s:.3f}")


@contextmanager
def _cluster() -> Iterator[str]:
    """A Ray cluster of two processors on this machine; gives its address. Ends every other with it."""
    ray = Path(sys.executable).with_name("ray")
    port = 6399
    begin = [ray, "start", "--head", f"--port={port}", "--num-cpus=2", "--include-dashboard=false"]
    subprocess.run([*begin, "--disable-usage-stats"], check=True, stdout=subprocess.DEVNULL)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        subprocess.run([ray, "stop", "--force"], check=True, stdout=subprocess.DEVNULL)
