"""The `liverseg` command. Each subcommand is a module with `add_arguments` and `run`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from liverseg import __version__
from liverseg.errors import ExitCode, LiversegError, suggest
from liverseg.utils.shutdown import GracefulShutdown

__all__ = ["SUBCOMMANDS", "main"]

SUBCOMMANDS: dict[str, str] = {
    "datalist": "make a data list of images and labels with folds by patient; check, describe or join lists",
    "prepare": "write a data list's volumes into a cache for fast training",
    "phantom": "write synthetic abdomens with liver lesions: a LiTS-like tree and a typed cohort",
    "synthesize": "write copies of a data list's volumes with synthetic lesions in their livers",
    "train": "train, evaluate or export a network by its bundle and the bundle's keys",
    "predict": "segment, type and measure the lesions of a CT or of a folder of CTs",
    "batch": "predict for thousands of CTs without supervision: resumable, in parallel, with a list of failures",
    "listen": "a DICOM node: predict for the studies that it receives, and send the results",
    "compare": "find what changed in the liver since an earlier CT: lesions matched and measured, RECIST arithmetic",
    "pseudo-label": "segment livers on unlabelled CTs, check the masks, and list them for training",
    "study": "compare strategies, initialisations and fine-tuning plans over folds and seeds",
    "doctor": "show machine, backends and versions",
    "demo": "train both bundles on phantoms and show the results",
}
"""Subcommands and their help. The module in `liverseg.cli`, with _ for -, is imported only when it is called."""


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line and suggest the most similar option."""

    def error(self, message: str) -> None:  # type: ignore[override]
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(ExitCode.USAGE)

    def options(self) -> list[str]:
        """Return the names of all options, including those of the tasks."""
        own = [option for action in self._actions for option in action.option_strings]
        return own + [option for task in self.tasks() for option in task.options()]

    def tasks(self) -> list[_Parser]:
        """Return the parsers of a subcommand's tasks, such as `check` of `datalist`."""
        by_name = (action.choices for action in self._actions if isinstance(action.choices, dict))
        return [task for tasks in by_name for task in tasks.values()]

    def called(self, arguments: Sequence[str]) -> _Parser:
        """Return the parser of the task that `arguments` name, or this one."""
        tasks = {task.prog.split()[-1]: task for task in self.tasks()}
        return next((tasks[argument] for argument in arguments if argument in tasks), self)

    def refuse(self, unknown: str) -> None:
        """End with an error that names the option most similar to `unknown`, if there is one."""
        match = suggest(unknown.split("=")[0], self.options(), cutoff=0.5)
        self.error(f"unknown argument {unknown}" + (f"; did you mean {match}?" if match else ""))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        match = suggest(str(value), map(str, action.choices or ()))
        if match and value not in (action.choices or ()):
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}; did you mean {match}?")
        super()._check_value(action, value)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(prog="liverseg", description="Liver lesions on CT, outlined and typed. Not a medical device.")
    parser.add_argument("--version", action="version", version=f"liverseg {__version__}")
    names = ", ".join(SUBCOMMANDS)
    lines = "\n".join(f"  {name:<12} {text}" for name, text in SUBCOMMANDS.items())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"subcommands:\n{lines}\n\nliverseg SUBCOMMAND --help shows the options of a subcommand."
    parser.add_argument("subcommand", help=f"one of: {names}")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    if not argv:
        parser.error(f"a subcommand is needed: {names}")
    if argv[0].startswith("-") and argv[0] not in parser.options():
        parser.refuse(argv[0])
    parsed = parser.parse_args(argv)
    name = parsed.subcommand
    if name not in SUBCOMMANDS:
        match = suggest(name, SUBCOMMANDS)
        parser.error(f"unknown subcommand {name!r}; {f'did you mean {match}?' if match else f'there are {names}'}")
    module = importlib.import_module(f"liverseg.cli.{name.replace('-', '_')}")
    subparser = _Parser(prog=f"liverseg {name}", description=SUBCOMMANDS[name], allow_abbrev=False)
    module.add_arguments(subparser)
    subparser.set_defaults(debug=False)
    for with_debug in (subparser, *subparser.tasks()):
        with_debug.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
        )
    arguments, unknown = subparser.parse_known_args(parsed.arguments)
    if unknown:
        subparser.called(parsed.arguments).refuse(unknown[0])
    arguments.run = module.run
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code (0 done, 1 failed, 2 wrong usage, 3 some cases failed).

    Raises:
        SystemExit: with 128 plus the signal's number, if a signal ended it.
    """
    with GracefulShutdown() as shutdown:
        return _main(sys.argv[1:] if argv is None else argv, shutdown)


def _main(argv: Sequence[str], shutdown: GracefulShutdown) -> int:
    try:
        arguments = _parse(argv)  # imports the subcommand's module, which may take seconds
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
