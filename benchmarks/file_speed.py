"""Compare the speed of `liverseg datalist check` and `liverseg prepare` with that of only decompressing every file.

    liverseg phantom PHANTOMS --kind lits --volumes 8
    liverseg datalist lits PHANTOMS/lits
    python benchmarks/file_speed.py PHANTOMS/lits SCRATCH

Files are in the page cache, and the number of threads is that of the processors. Decompression with zlib and with ISA-L
discards its output. `prepare` writes into a new folder of SCRATCH each time. Figures are medians of five rounds, in
which the variants take turns.
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
    """Decompress a .nii.gz and return the number of bytes of output."""
    total = 0
    with opener(path, "rb") as file:
        while block := file.read(BLOCK):
            total += len(block)
    return total


def main() -> None:
    """Time the variants in turns and print a table."""
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

    variants = {
        "zlib": lambda: all_files(gzip.open),
        "ISA-L": lambda: all_files(igzip.open),
        "check": lambda: check_datalist(datalist, root, progress=False),
        "prepare": prepare,
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(ROUNDS + 1):
        for name, run in variants.items():
            shutil.rmtree(cache, ignore_errors=True)
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    fastest = min(medians["zlib"], medians["ISA-L"])
    print(f"{len(paths)} files, {total / 1e6:.0f} MB of voxels, {os.cpu_count()} processors\n")
    print("| | seconds | MB/s | relative to the fastest decompression |\n|---|---|---|---|")
    for name, value in medians.items():
        print(f"| {name} | {value:.2f} | {total / value / 1e6:.0f} | {fastest / value:.2f} |")


if __name__ == "__main__":
    main()
