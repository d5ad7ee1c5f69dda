"""Put `liverseg batch` through faults, count them, and measure how a batch runs. Ends by itself.

    python -m benchmarks.soak kills FOLDER --kills 200 --minutes 60
    python -m benchmarks.soak ray-kills FOLDER --kills 20
    python -m benchmarks.soak inputs FOLDER --inputs 500
    python -m benchmarks.soak all FOLDER --kills 20 --inputs 100 --minutes 15    # those three
    python -m benchmarks.soak overlap FOLDER
    python -m benchmarks.soak ray-speed FOLDER
    python -m benchmarks.soak report FOLDER

What was tried is kept in FOLDER/soak.jsonl, and a later run on the same folder goes on from there: numbers of kills
and inputs are those of all runs together. Whatever broke a promise stays in FOLDER/fault-*; the exit code is 1 then.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from benchmarks.soak.inputs import input_campaign
from benchmarks.soak.kills import kill_campaign
from benchmarks.soak.report import report
from benchmarks.soak.speed import overlap, ray_against_shards

WHAT = ("kills", "ray-kills", "inputs", "all", "overlap", "ray-speed", "report")


def main() -> int:
    """Read the arguments and run one of them; returns how many promises were not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=WHAT)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60, help="nothing more is begun after these")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--inputs", type=int, default=500)
    parser.add_argument("--a-batch", type=int, default=100, help="inputs a batch")
    parser.add_argument("--rounds", type=int, default=5, help="of a measurement")
    args = parser.parse_args()
    folder, faults = args.folder.absolute(), 0
    share = args.minutes if args.what != "all" else args.minutes / 3
    if args.what in ("inputs", "all"):
        faults += input_campaign(folder, args.seed, args.inputs, share, args.a_batch)
    if args.what in ("kills", "all"):
        faults += kill_campaign(folder, args.seed, args.kills, share)
    if args.what == "all" and importlib.util.find_spec("ray") is None:
        print("Ray is not installed: nothing of it is tried")
    elif args.what in ("ray-kills", "all"):
        kills = args.kills if args.what == "ray-kills" else max(1, args.kills // 10)
        faults += kill_campaign(folder, args.seed, kills, share, lanes=1, engine="ray")
    if args.what == "overlap":
        overlap(folder, args.rounds)
    elif args.what == "ray-speed":
        ray_against_shards(folder, args.rounds)
    else:
        print(report(folder))
    return faults


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
