"""The `liverseg` command: one verb for each thing, each verb one module with `add_arguments` and `run`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from liverseg import __version__
from liverseg.errors import ExitCode, LiversegError, suggest
from liverseg.utils.shutdown import GracefulShutdown

__all__ = ["VERBS", "main"]

VERBS: dict[str, str] = {
    "datalist": "list a folder of images and labels, patients kept apart in folds",
    "prepare": "write a data list's volumes into a cache that training reads quickly",
    "phantom": "write synthetic abdomens with liver lesions: a LiTS-like tree and a typed cohort",
    "synthesize": "copies of a data list's volumes with synthetic lesions in their livers",
    "train": "a bundle's training, evaluation or export, with the bundle's own keys",
    "predict": "lesion masks, types and measurements for a CT volume or a folder of them",
    "batch": "the same for thousands of CTs, left alone: resumed, shared out, failures sorted",
    "pseudo-label": "livers outlined by a network on unlabelled CTs, checked, and listed to train on",
    "study": "compare strategies, initialisations and fine-tuning plans over folds and seeds",
    "doctor": "what machine, backends and versions there are",
    "demo": "train both bundles on phantoms and show what came out",
}
"""Verb to one line of help; the verb's module in `liverseg.cli`, with _ for -, is imported only when it is called."""


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line and name the closest option."""

    def error(self, message: str) -> None:  # type: ignore[override]
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(ExitCode.USAGE)

    def options(self) -> list[str]:
        """Every option's names, those of its tasks too."""
        own = [option for action in self._actions for option in action.option_strings]
        return own + [option for task in self.tasks() for option in task.options()]

    def tasks(self) -> list[_Parser]:
        """The parsers of a verb's tasks, such as `check` of `datalist`."""
        by_name = (action.choices for action in self._actions if isinstance(action.choices, dict))
        return [task for tasks in by_name for task in tasks.values()]

    def closest(self, unknown: str) -> str:
        """A hint that names the known option most like `unknown`, or an empty string."""
        match = suggest(unknown.split("=")[0], self.options(), cutoff=0.5)
        return f"; did you mean {match}?" if match else ""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        match = suggest(str(value), map(str, action.choices or ()))
        if match and value not in (action.choices or ()):
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}; did you mean {match}?")
        super()._check_value(action, value)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(prog="liverseg", description="Liver lesions on CT, outlined and typed. Not a medical device.")
    parser.add_argument("--version", action="version", version=f"liverseg {__version__}")
    verbs = ", ".join(VERBS)
    epilog = "\n".join(f"  {verb:<12} {text}" for verb, text in VERBS.items())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"verbs:\n{epilog}\n\nliverseg VERB --help tells a verb's options."
    parser.add_argument("verb", help=f"one of: {verbs}")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    if not argv:
        parser.error(f"a verb is needed: {verbs}")
    if argv[0].startswith("-") and argv[0] not in parser.options():
        parser.error(f"unknown argument {argv[0]}{parser.closest(argv[0])}")
    named = parser.parse_args(argv)
    if named.verb not in VERBS:
        match = suggest(named.verb, VERBS)
        parser.error(f"unknown verb {named.verb!r}; {f'did you mean {match}?' if match else f'there are {verbs}'}")
    module = importlib.import_module(f"liverseg.cli.{named.verb.replace('-', '_')}")
    verb = _Parser(prog=f"liverseg {named.verb}", description=VERBS[named.verb], allow_abbrev=False)
    module.add_arguments(verb)
    verb.set_defaults(debug=False)
    for with_debug in (verb, *verb.tasks()):
        with_debug.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
        )
    arguments, unknown = verb.parse_known_args(named.arguments)
    if unknown:
        verb.error(f"unknown argument {unknown[0]}{verb.closest(unknown[0])}")
    arguments.run = module.run
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (0 done, 1 failed, 2 wrong usage, 3 some cases failed).

    Raises:
        SystemExit: with 128 and the signal's number, if it was told to end.
    """
    with GracefulShutdown() as shutdown:
        return _main(sys.argv[1:] if argv is None else argv, shutdown)


def _main(argv: Sequence[str], shutdown: GracefulShutdown) -> int:
    try:
        arguments = _parse(argv)  # imports the verb's module, which may take seconds
    except SystemExit as stop:
        if shutdown.signal:
            raise
        return int(stop.code or 0)
    try:
        return int(arguments.run(arguments))
    except LiversegError as error:
        if arguments.debug:
            raise
        print(f"liverseg: {error}", file=sys.stderr)
        return int(error.exit_code)


if __name__ == "__main__":
    raise SystemExit(main())
