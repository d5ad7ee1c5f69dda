"""`liverseg doctor`: what machine, backends and versions there are."""

from __future__ import annotations

import argparse
import json

from liverseg.doctor import describe, examine
from liverseg.errors import ExitCode

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> ExitCode:
    """Run the verb; returns its exit code."""
    facts = examine()
    print(json.dumps(facts, indent=1, ensure_ascii=False) if args.json else describe(facts))
    return ExitCode.DONE
