"""What the bundles' configs call at the front door: clear errors, known overrides, folders, devices.

`python -m monai.bundle run` reads a config, evaluates its `initialize` list in order, then the run id. Everything a
user can get wrong is checked from there, before a network is built or a file is written.
"""

from __future__ import annotations

import difflib
import inspect
import logging
import math
import os
import pydoc
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import monai.bundle
import torch
from monai.bundle import ComponentLocator, ConfigComponent, ConfigParser

from liverseg.errors import ExitCode, LiversegError, UsageError, user_error

__all__ = [
    "check_values",
    "default_output_dir",
    "optional_path",
    "plain_errors",
    "refuse_unknown_overrides",
    "the_device",
    "writable_dir",
]


class _Rule(NamedTuple):
    """What a key of a config may be, as a test and in words."""

    holds: Callable[[Any], bool]
    words: str


def _whole(lowest: int, highest: int | None = None, *, or_none: bool = False) -> _Rule:
    def holds(value: Any) -> bool:
        if value is None:
            return or_none
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        return whole and lowest <= value and (highest is None or value <= highest)

    span = f"{lowest} or more" if highest is None else f"{lowest} to {highest}"
    return _Rule(holds, f"a whole number, {span}" + (", or null" if or_none else ""))


def _number(above: float | None = None, *, lowest: float = 0, highest: float = math.inf) -> _Rule:
    def holds(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            return False
        return lowest <= float(value) <= highest and (above is None or float(value) > above)

    if above is not None:
        return _Rule(holds, f"a number above {above:g}")
    return _Rule(
        holds, f"a number, {lowest:g} or more" if highest == math.inf else f"a number, {lowest:g} to {highest:g}"
    )


def _word(*words: str) -> _Rule:
    return _Rule(lambda value: str(value).lower() in words, f"{', '.join(words[:-1])} or {words[-1]}")


_RULES = {
    "amp": _word("auto", "true", "false"),
    "batch_size": _whole(1),
    "crop_size": _whole(1),
    "deep_supervision": _Rule(lambda value: isinstance(value, bool), "True or False"),
    "dice_weight": _number(),
    "epochs": _whole(1),
    "fold": _whole(0),
    "head_factor": _number(0),
    "learning_rate": _number(0),
    "lesion_free": _number(highest=1),
    "min_lesion_ml": _number(),
    "num_workers": _whole(0),
    "patience": _whole(1, or_none=True),
    "progress": _Rule(lambda value: isinstance(value, bool), "True or False"),
    "repeats": _whole(1),
    "resume": _Rule(lambda value: isinstance(value, bool), "True or False"),
    "seed": _whole(0, 2**32 - 1),
    "val_batch_size": _whole(1),
    "val_every": _whole(1),
    "val_interval": _whole(1),
}


def check_values(**values: Any) -> None:
    """Refuse a value that a config's key cannot have, before anything is built from it or written.

    Args:
        values: keys of a config and what they are; a key without a rule is a mistake in the config.

    Raises:
        UsageError: for the first value that is not allowed; it tells the key, the value and what is allowed.

    Example:
        >>> check_values(epochs=60, lesion_free=0.1, amp="auto")
    """
    for key, value in values.items():
        if not _RULES[key].holds(value):
            raise UsageError(f"{key} is {value!r}; it must be {_RULES[key].words}")


def plain_errors() -> None:
    """Let an uncaught LiversegError end the program with its one line and its exit code instead of a traceback.

    MONAI wraps what a config raises in errors of its own, so the whole chain is searched. Other errors keep their
    traceback; so does every error when the environment sets LIVERSEG_DEBUG. Where a config is used from Python, the
    process is not the bundle's: its hook and its loggers stay as they are.
    """
    if not _is_monai_command(sys.argv):
        return
    logging.getLogger("ignite").setLevel(logging.CRITICAL)  # it would log the same error once more, engine by engine
    sys.excepthook = _one_line_hook


def _is_monai_command(argv: Sequence[str]) -> bool:
    """Whether this is the command line of `python -m monai.bundle run`."""
    module = Path(argv[0]).parts[-3:] if argv else ()
    return module == ("monai", "bundle", "__main__.py") and len(argv) > 1 and argv[1] in ("run", "run_workflow")


def _one_line_hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    cause = user_error(error)
    if cause is None or os.environ.get("LIVERSEG_DEBUG"):
        traceback.print_exception(kind, error, trace)
        raise SystemExit(ExitCode.FAILED)
    print(f"liverseg: {cause}", file=sys.stderr)
    raise SystemExit(int(cause.exit_code))


def refuse_unknown_overrides(argv: Sequence[str] | None = None) -> None:
    """Refuse a `--key` of `python -m monai.bundle run` that no config file defines, naming the closest one.

    MONAI itself adds a misspelt key to the config and goes on with the default; so it does for a key whose value is the
    word None, which is refused too. A nested key (`--optimizer::lr`) is followed through mappings and lists to its end;
    what an object could be built with may be added to it (`--optimizer::weight_decay`). Called outside that command
    (from Python, say, where the arguments are not on the command line) this does nothing.

    Raises:
        UsageError: for the first key that is not known or is given None.
    """
    argv = sys.argv if argv is None else argv
    if not _is_monai_command(argv):
        return
    given = [word[2:].split("=", 1)[0] for word in argv[2:] if word.startswith("--") and len(word) > 2]
    config_files = _value_after(argv, "config_file")
    if config_files is None:
        return
    config = ConfigParser.load_config_files(_as_list(config_files))
    known = [*config, *inspect.signature(monai.bundle.run).parameters]
    paths = {key: key.replace("#", "::").replace("-", "_").split("::") for key in given}  # as MONAI reads them
    for key in given:
        top = paths[key][0]
        if top not in known:
            match = difflib.get_close_matches(top, known, n=1)
            hint = f"did you mean --{match[0]}?" if match else f"known keys: {', '.join(sorted(config))}"
            raise UsageError(f"unknown override --{key}; {hint}")
        if _value_after(argv, key) == "None":
            raise UsageError(f"--{key} None: MONAI would go on with the config's own value; say null or leave it out")
        if top not in config or any(
            paths[key][: len(other)] == other for other in paths.values() if len(other) < len(paths[key])
        ):
            continue  # an argument of MONAI's, or below what another override puts there
        targets = {tuple(path[:-1]): _value_after(argv, word) for word, path in paths.items() if path[-1] == "_target_"}
        _check_nested(key, paths[key], config, targets.get(tuple(paths[key][:-1])))


def _check_nested(key: str, path: list[str], config: Any, new_target: str | None) -> None:
    """Refuse a key that cannot be in the innermost mapping or list its path leads to."""
    for depth, name in enumerate(path):
        above = "".join(f"{part}::" for part in path[:depth])
        if isinstance(config, dict) and name in config:
            config = config[name]
        elif isinstance(config, list) and name.isdecimal() and int(name) < len(config):
            config = config[int(name)]
        elif isinstance(config, dict):
            last = depth == len(path) - 1
            target = new_target if last and new_target else config.get("_target_")
            refused, arguments = _no_argument(name, target, config) if last and target else (True, [])
            if not refused:
                return
            known = [*config, *arguments]
            match = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean --{above}{match[0]}?" if match else f"known keys: {', '.join(sorted({*known}))}"
            raise UsageError(f"unknown override --{key}; {hint}")
        elif isinstance(config, list):
            span = f"0 to {len(config) - 1}" if config else "nothing"
            raise UsageError(f"unknown override --{key}; {above[:-2]} is a list, it has {span}")
        else:
            raise UsageError(f"unknown override --{key}; {above[:-2]} is {config!r}, nothing is below it")


def _no_argument(name: str, target: Any, present: Iterable[str]) -> tuple[bool, list[str]]:
    """Whether a target cannot be built with an argument, or it looks like a slip where that is not known.

    Also returns the arguments the target is known to take.
    """
    if name in ConfigComponent.non_arg_keys:
        return False, []
    arguments, takes_others = _arguments_of(target)
    if not takes_others:
        return name not in arguments, arguments
    slip = bool(difflib.get_close_matches(name, [*present, *arguments], n=1, cutoff=0.8))
    return name not in arguments and slip, arguments


def _arguments_of(target: Any) -> tuple[list[str], bool]:
    """The named arguments of a `_target_`, and whether it may take others: **kwargs, or it cannot be found."""
    try:
        component = ConfigComponent({"_target_": target}, id="", locator=ComponentLocator())
        found: Any = pydoc.locate(component.resolve_module_name())
        if found is None:
            return [], True
        if not inspect.isclass(found):
            return _named(inspect.signature(found))
        arguments: list[str] = []
        for kind in inspect.getmro(found):  # **kwargs go on to the next class's constructor
            if "__init__" in vars(kind) and kind is not object:
                more, takes_others = _named(inspect.signature(vars(kind)["__init__"]))
                arguments += [name for name in more if name != "self"]
                if not takes_others:
                    return arguments, False
        return arguments, True
    except (pydoc.ErrorDuringImport, AttributeError, TypeError, ValueError):
        return [], True


def _named(signature: inspect.Signature) -> tuple[list[str], bool]:
    kinds = signature.parameters.values()
    named = [one.name for one in kinds if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    return named, any(one.kind is one.VAR_KEYWORD for one in kinds)


def _value_after(argv: Sequence[str], name: str) -> str | None:
    for number, word in enumerate(argv):
        if word == f"--{name}" and number + 1 < len(argv):
            return argv[number + 1]
        if word.startswith(f"--{name}="):
            return word.split("=", 1)[1]
    return None


def _as_list(value: str) -> list[str]:
    return [part.strip(" '\"") for part in value.strip("[]() ").split(",") if part.strip(" '\"")]


def optional_path(value: str | os.PathLike | None) -> str | None:
    """A path, or None for None and for the words a command line has for it: null, none and nothing at all."""
    if value is None or str(value).strip().lower() in ("", "null", "none"):
        return None
    return str(value)


def default_output_dir(bundle: str) -> str:
    """Where a run writes when it is not told: `runs/<bundle>` in the current folder, absolute.

    Outside the bundle, which may be read-only; from inside a bundle's folder, as MONAI's commands are often called, it
    is the `runs` folder two levels up, beside `bundles`.
    """
    here = Path.cwd()
    if (here / "configs").is_dir() and here.parent.name == "bundles":
        here = here.parent.parent
    return str(here / "runs" / bundle)


def writable_dir(path: str | os.PathLike) -> str:
    """Make a folder if it is missing and prove that a file can be written in it; returns its absolute path.

    Raises:
        LiversegError: if it cannot be made or written to.
    """
    folder = Path(path).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise LiversegError(
            f"{folder}: output cannot be written there ({reason}); choose another output_dir"
        ) from error
    return str(folder)


def the_device(name: Any = None) -> torch.device:
    """A device by name; without one, the first GPU where there is one and the CPU where not.

    Raises:
        UsageError: if the name is not a device or CUDA is asked for where there is none.
    """
    if name is None or str(name) == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(str(name))
    except RuntimeError as error:
        raise UsageError(f"device {name!r} is not known; take auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device {name!r}: this machine has no usable CUDA GPU; take cpu")
    return device
