"""Slabs a second that the pre-training bundle trains on phantoms on a CPU, in one or several checkouts.

python benchmarks/training_speed.py PHANTOMS [CHECKOUT ...] [--rounds 5]

PHANTOMS is a folder of `liverseg phantom PHANTOMS --kind lits --volumes 16 --matrix 256`; its data list is written.
Every run is `python -m monai.bundle run training` with the phantom overlay: the small network, batches of 16 crops,
augmentation included. A run of four epochs and one of a single epoch differ by three epochs, without start-up and
validation. Checkouts take turns, so that they share the machine's noise.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median

from liverseg.bundle.commands import bundle_command
from liverseg.datalists import build_datalist

LONG, SHORT = 4, 1
"""Epochs of the two runs."""
BATCH = 16
"""Slabs a batch, by the overlay."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phantoms", type=Path)
    parser.add_argument("checkouts", type=Path, nargs="*", default=[Path()])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    dataset = (options.phantoms / "lits").resolve()
    if not (dataset / "datalist.json").exists():
        build_datalist("lits", dataset, name="phantoms", origin="liverseg phantom", licence="CC0-1.0")
    speeds: dict[Path, list[float]] = {checkout: [] for checkout in options.checkouts}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for number, checkout in enumerate(options.checkouts):
                work = Path(folder) / str(number)
                long, short = (_train(checkout.resolve(), dataset, work, epochs) for epochs in (LONG, SHORT))
                speeds[checkout].append((long[1] - short[1]) / (long[0] - short[0]))
    for checkout, found in speeds.items():
        print(f"{checkout}: {median(found):.0f} slabs a second ({min(found):.0f} to {max(found):.0f})")


def _train(checkout: Path, dataset: Path, work: Path, epochs: int) -> tuple[float, int]:
    """Train with a checkout's code; return the seconds and the number of slabs."""
    output = work / f"{epochs}-{time.monotonic_ns()}"
    options = {"dataset_dir": dataset, "output_dir": output, "ckpt_dir": output, "cache_dir": work / "cache"}
    options |= {"epochs": epochs, "val_interval": LONG + 1, "seed": 0}
    command = bundle_command("training", ["train", "phantom"], options)
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    bundle = checkout / "bundles" / "liver_lesion_pretrain"
    start = time.monotonic()
    run = subprocess.run(command, cwd=bundle, env=environment, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - start
    if run.returncode:
        raise SystemExit(run.stdout + run.stderr)
    bars = re.findall(r"pre-training: .*?/(\d+) \[", run.stderr)
    return seconds, int(bars[-1]) * BATCH


if __name__ == "__main__":
    main()
