"""Seconds that commands take as complete processes, beside `import torch`: medians of five, one after the other.

python benchmarks/start_up.py scan.nii.gz [CHECKOUT ...]

With checkouts, each command runs with the code of each of them in turn, so that they share the machine's noise.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ct", type=Path)
    parser.add_argument("checkouts", type=Path, nargs="*", default=[Path()])
    options = parser.parse_args()
    ct = str(options.ct.resolve())
    commands = {
        "--help": ["--help"],
        "doctor": ["doctor"],
        "predict, wrong path": ["predict", "none.nii.gz", "OUTPUT"],
        "predict, wrong value": ["predict", ct, "OUTPUT", "--lesion-threshold", "2"],
        "predict": ["predict", ct, "OUTPUT"],
    }
    seconds: dict[tuple[str, str], list[float]] = {}
    for _ in range(ROUNDS):
        seconds.setdefault(("import torch", ""), []).append(_seconds(["-c", "import torch"], Path()))
        for name, words in commands.items():
            for checkout in options.checkouts:
                with tempfile.TemporaryDirectory() as output:
                    given = [output if word == "OUTPUT" else word for word in words]
                    took = _seconds(["-m", "liverseg.cli.main", *given], checkout.resolve())
                seconds.setdefault((name, str(checkout)), []).append(took)
    for (name, checkout), values in seconds.items():
        print(f"{name} {checkout}: {median(values):.2f} s ({min(values):.2f} to {max(values):.2f})")


def _seconds(words: list[str], checkout: Path) -> float:
    start = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    subprocess.run([sys.executable, *words], cwd=checkout, env=environment, capture_output=True, check=False)
    return time.monotonic() - start


if __name__ == "__main__":
    main()
