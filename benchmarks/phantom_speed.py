"""Seconds of `liverseg phantom` at the demo's settings: a part of its volumes and patients, medians of five.

python benchmarks/phantom_speed.py [CHECKOUT ...]

Each command is a complete process on all processors. With checkouts, it runs with the code of each of them in turn, so
that they share the machine's noise; the seconds of its processors, start included, depend less on other programs.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROUNDS = 5
COMMANDS = {
    "8 volumes": ["--kind", "lits", "--volumes", "8", "--matrix", "256", "--seed", "0"],
    "14 patients": ["--kind", "cohort", "--patients", "14", "--slices", "33", "--matrix", "256", "--seed", "1"],
}
"""A tenth of the demo."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkouts", type=Path, nargs="*", default=[Path()])
    options = parser.parse_args()
    seconds: dict[tuple[str, Path], list[tuple[float, float]]] = {}
    for _ in range(ROUNDS):
        for name, words in COMMANDS.items():
            for checkout in options.checkouts:
                with tempfile.TemporaryDirectory() as output:
                    took = _seconds(["-m", "liverseg.cli.main", "phantom", output, *words], checkout.resolve())
                seconds.setdefault((name, checkout), []).append(took)
    for (name, checkout), rounds in seconds.items():
        elapsed, busy = ([values[column] for values in rounds] for column in range(2))
        print(
            f"{name} {checkout}: {median(elapsed):.1f} s ({min(elapsed):.1f} to {max(elapsed):.1f}), "
            f"{median(busy):.1f} s of processors ({min(busy):.1f} to {max(busy):.1f})"
        )


def _seconds(words: list[str], checkout: Path) -> tuple[float, float]:
    """Run a command with a checkout's code; return the seconds that it took, and those of all processors."""
    start, busy = time.monotonic(), _busy()
    subprocess.run(
        [sys.executable, *words],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        capture_output=True,
        check=True,
    )
    return time.monotonic() - start, _busy() - busy


def _busy() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
