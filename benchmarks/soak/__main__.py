"""Test `liverseg batch` with faults, count them, and measure its speed and memory.

    python -m benchmarks.soak kills FOLDER --kills 200 --minutes 60
    python -m benchmarks.soak ray-kills FOLDER --kills 20
    python -m benchmarks.soak inputs FOLDER --inputs 500
    python -m benchmarks.soak all FOLDER --kills 20 --inputs 100 --minutes 15    # those three
    python -m benchmarks.soak overlap FOLDER
    python -m benchmarks.soak ray-speed FOLDER
    python -m benchmarks.soak many FOLDER --cases 2000
    python -m benchmarks.soak report FOLDER

Results are appended to FOLDER/soak.jsonl. A later run in the same folder continues there, so numbers of kills and
inputs are those of all runs. Batches that broke a guarantee are kept as FOLDER/fault-*, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from benchmarks.soak.inputs import input_campaign
from benchmarks.soak.kills import kill_campaign
from benchmarks.soak.many import many
from benchmarks.soak.report import report
from benchmarks.soak.speed import overlap, ray_against_shards

TASKS = ("kills", "ray-kills", "inputs", "all", "overlap", "ray-speed", "many", "report")


def main() -> int:
    """Run the chosen task and return the number of broken guarantees."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60, help="nothing new is started after this time")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--inputs", type=int, default=500)
    parser.add_argument("--a-batch", type=int, default=100, help="inputs per batch")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of a measurement")
    parser.add_argument("--cases", type=int, default=2000, help="CTs of the task many, at least 4")
    args = parser.parse_args()
    folder, faults = args.folder.absolute(), 0
    minutes = args.minutes if args.task != "all" else args.minutes / 3
    if args.task in ("inputs", "all"):
        faults += input_campaign(folder, args.seed, args.inputs, minutes, args.a_batch)
    if args.task in ("kills", "all"):
        faults += kill_campaign(folder, args.seed, args.kills, minutes)
    if args.task == "all" and importlib.util.find_spec("ray") is None:
        print("Ray is not installed, so its kills are skipped")
    elif args.task in ("ray-kills", "all"):
        kills = args.kills if args.task == "ray-kills" else max(1, args.kills // 10)
        faults += kill_campaign(folder, args.seed, kills, minutes, lanes=1, engine="ray")
    if args.task == "overlap":
        overlap(folder, args.rounds)
    elif args.task == "ray-speed":
        ray_against_shards(folder, args.rounds)
    else:
        if args.task == "many":
            many(folder, args.cases)
        print(report(folder))
    return faults


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
