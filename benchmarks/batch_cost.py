"""Processor time, memory, bytes and files per CT of `liverseg batch`: the figures of docs/scale.md.

python -m benchmarks.batch_cost SOURCE OUTPUT [OPTIONS OF liverseg batch ...]

OUTPUT must not exist. The start is from the command to the first CT, whose costs are given apart from those of the CTs.
Bytes are those of read and write calls, whether disk, network or page cache serves them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean

from benchmarks.soak.runs import event_time, events

_POLL_SECONDS = 0.2
_IO = ("rchar", "wchar", "syscr", "syscw")


@dataclass(frozen=True)
class Usage:
    """Processor seconds and input and output of a process: bytes and calls, by their names in `/proc/PID/io`."""

    cpu: float
    io: Counter[str]


@dataclass(frozen=True)
class Memory:
    """Resident memory of a process in bytes: the largest, and samples with their times."""

    peak: int
    samples: list[tuple[float, int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    args, options = parser.parse_known_args()
    if args.output.exists():
        parser.error(f"{args.output} exists: its finished CTs would not be computed")
    words = ["-m", "liverseg.cli.main", "batch", str(args.source), str(args.output), *options]
    started = time.time()
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL)
    start, memory = _watch(process.pid, args.output)
    total = _usage(process.pid, waited_for=True)  # a zombie until `wait`, with the usage of the workers that ended
    ended = time.time()
    if process.wait() != 0:
        raise SystemExit(f"exit code {process.returncode}")
    _print(args.output, started, ended, start, total, memory)


def _watch(pid: int, output: Path) -> tuple[Usage, dict[int, Memory]]:
    """Watch a batch until it ends.

    Returns:
        The usage of batch and workers when the first CT began, and the memory of each by process id.
    """
    start, memory = None, dict[int, Memory]()
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        pids = [pid, *_children(pid)]
        for each in pids:
            with suppress(OSError, KeyError):  # it has ended
                status = Path(f"/proc/{each}/status").read_text(encoding="utf-8").splitlines()
                sizes = {name: value for name, _, value in (line.partition(":") for line in status)}
                peak, now = (int(sizes[name].split()[0]) * 1024 for name in ("VmHWM", "VmRSS"))
                memory[each] = Memory(peak, [*memory[each].samples, (time.time(), now)] if each in memory else [])
        if start is None and any(line["event"] == "begun" for line in events(output)):
            usages = [_usage(each) for each in pids]
            start = Usage(sum(usage.cpu for usage in usages), sum((usage.io for usage in usages), Counter()))
        time.sleep(_POLL_SECONDS)
    if start is None:
        raise SystemExit("no CT was computed")
    return start, memory


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            found += [int(word) for word in (task / "children").read_text(encoding="ascii").split()]
    return found


def _usage(pid: int, waited_for: bool = False) -> Usage:
    """Return the usage of a process; that of its ended children is always in `io`, and in `cpu` if `waited_for`."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    ticks = sum(map(int, fields[11 : 15 if waited_for else 13]))
    lines = (line.split(": ") for line in Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines())
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), Counter({name: int(value) for name, value in lines if name in _IO}))


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*")) if path.is_dir() else path.stat().st_size


def _print(output: Path, started: float, ended: float, start: Usage, total: Usage, memory: dict[int, Memory]) -> None:
    lines = events(output)
    times = {name: [event_time(line) for line in lines if line["event"] == name] for name in ("begun", "done")}
    done = [line for line in lines if line["event"] == "done"]
    cases, seconds = len(done), max(times["done"]) - min(times["begun"])
    print(f"{cases} CTs in {ended - started:.1f} s: {min(times['begun']) - started:.1f} s until the first begins,")
    print(f"{seconds:.1f} s until the last is done, {ended - max(times['done']):.1f} s until the end")
    print(f"start: processors {start.cpu:.1f} s")
    print(f"per CT: {seconds / cases:.2f} s, processors {(total.cpu - start.cpu) / cases:.2f} s")
    stages = {stage: mean(line["seconds"].get(stage, 0) for line in done) for stage in done[0]["seconds"]}
    print("  mean seconds of stages: " + ", ".join(f"{stage} {value:.2f}" for stage, value in stages.items()))
    io = Counter({name: total.io[name] - start.io[name] for name in _IO})
    print(
        f"  read {io['rchar'] / cases / 1e6:.1f} MB in {io['syscr'] / cases:.0f} calls, "
        f"written {io['wchar'] / cases / 1e6:.2f} MB in {io['syscw'] / cases:.0f} calls"
    )
    inputs = [_bytes(Path(line["image"])) for line in lines if line["event"] == "begun"]
    print(f"  input {mean(inputs) / 1e6:.1f} MB; results:")
    sizes: Counter[str] = Counter()
    for line in done:
        sizes.update({path.name: path.stat().st_size for path in (output / line["case"]).iterdir()})
    for name, size in (*sizes.most_common(), ("all", sizes.total())):
        print(f"    {name} {size / cases / 1e3:.1f} kB")
    for name in ("run.jsonl", "summary.csv", "lesions.csv", "index.html"):
        print(f"  {name} {(output / name).stat().st_size / cases:.0f} bytes")
    print("resident memory in MB, largest, and largest sample of each quarter of the CTs' time:")
    limits = [min(times["begun"]) + seconds * quarter / 4 for quarter in range(5)]
    for name, of in zip(("batch", *["worker"] * (len(memory) - 1)), memory.values(), strict=True):
        quarters = [
            max((now for at, now in of.samples if low <= at < high), default=0) for low, high in pairwise(limits)
        ]
        print(f"  {name} {of.peak / 1e6:.0f}: " + ", ".join(f"{quarter / 1e6:.0f}" for quarter in quarters))


if __name__ == "__main__":
    main()
