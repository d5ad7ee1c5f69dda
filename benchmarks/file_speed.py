"""How fast are `liverseg datalist check` and `liverseg prepare` against merely decompressing every file?

    liverseg phantom PHANTOMS --kind lits --volumes 8
    liverseg datalist lits PHANTOMS/lits
    python benchmarks/file_speed.py PHANTOMS/lits SCRATCH

Files are in the page cache and read by as many threads as there are processors. Decompression is tried with zlib and
with ISA-L; each gives its blocks away. `prepare` writes into a new folder of SCRATCH each time. Median of five rounds,
all of them taking turns.
"""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from isal import igzip

from liverseg.datalists import read_datalist
from liverseg.datalists.check import check_datalist
from liverseg.datasets.prepare import prepare_datalist

ROUNDS = 5
BLOCK = 1 << 20


def decompress(opener: Callable, path: Path) -> int:
    """Read a .nii.gz to its end; returns the bytes that came out."""
    total = 0
    with opener(path, "rb") as file:
        while block := file.read(BLOCK):
            total += len(block)
    return total


def main() -> None:
    """Time all of them by turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("scratch", type=Path)
    args = parser.parse_args()
    root, cache = args.root, args.scratch / "cache"
    datalist = root / "datalist.json"
    listed = read_datalist(datalist)
    names = {name for item in (*listed.training, *listed.test) for name in (item.image, item.label) if name}
    paths = sorted(root / name for name in names)
    total = 0

    def all_files(opener: Callable) -> None:
        nonlocal total
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            total = sum(pool.map(lambda path: decompress(opener, path), paths))

    def prepare() -> None:
        failures = prepare_datalist(datalist, root, cache, progress=False).failures
        if failures:
            raise SystemExit(failures[0])

    ways = {
        "zlib": lambda: all_files(gzip.open),
        "ISA-L": lambda: all_files(igzip.open),
        "check": lambda: check_datalist(datalist, root, progress=False),
        "prepare": prepare,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS + 1):
        for name, way in ways.items():
            shutil.rmtree(cache, ignore_errors=True)
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    middle = {name: statistics.median(measured[1:]) for name, measured in seconds.items()}
    fastest = min(middle["zlib"], middle["ISA-L"])
    print(f"{len(paths)} files, {total / 1e6:.0f} MB of voxels, {os.cpu_count()} processors\n")
    print("| | seconds | MB/s | of the fastest decompression |\n|---|---|---|---|")
    for name, value in middle.items():
        print(f"| {name} | {value:.2f} | {total / value / 1e6:.0f} | {fastest / value:.2f} |")


if __name__ == "__main__":
    main()
