"""Time the tiers of the tests, in this checkout and in another.

    python benchmarks/tier_seconds.py test-fast test test-all
    python benchmarks/tier_seconds.py test-fast test test-all --other /path/to/checkout --other-targets test

Each round runs every target of both checkouts once, so that all share the machine's changes. Environments are created
before the clock starts. Prints the seconds and pytest's summary of every run, and the median of each target.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import time
from collections import defaultdict
from pathlib import Path


def main() -> None:
    """Run the targets in rounds and print their seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="+", help="of this checkout's Makefile")
    parser.add_argument("--other", type=Path, help="another checkout")
    parser.add_argument("--other-targets", nargs="*", default=["test"], help="of the other's Makefile (default test)")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    here = Path(__file__).resolve().parents[1]
    runs = [(args.other, target) for target in args.other_targets] if args.other else []
    runs += [(here, target) for target in args.targets]
    for checkout in {checkout for checkout, _ in runs}:
        subprocess.run(["make", "-C", checkout, ".venv/.test"], check=True, stdout=subprocess.DEVNULL)
    seconds = defaultdict(list)
    for number in range(args.rounds):
        for checkout, target in runs:
            start = time.monotonic()
            result = subprocess.run(["make", "-C", checkout, target], capture_output=True, text=True)
            elapsed = time.monotonic() - start
            name = f"{target} in {checkout}"
            if result.returncode:
                print(
                    f"round {number + 1}, {name}: failed, not counted\n{result.stdout[-3000:]}{result.stderr[-1000:]}"
                )
                continue
            seconds[name].append(elapsed)
            summary = next((line for line in reversed(result.stdout.splitlines()) if "passed" in line), "")
            print(f"round {number + 1}, {name}: {elapsed:.0f} s; {summary.strip('= ')}", flush=True)
    for name, times in seconds.items():
        print(f"median of {len(times)}, {name}: {statistics.median(times):.0f} s")


if __name__ == "__main__":
    main()
