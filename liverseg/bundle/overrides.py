"""Overrides of `python -m monai.bundle run`: a key that no config could use is refused, the closest one named."""

from __future__ import annotations

import inspect
import pydoc
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import monai.bundle
from monai.bundle import ComponentLocator, ConfigComponent, ConfigParser

from liverseg.errors import UsageError, suggest

__all__ = ["is_monai_command", "refuse_unknown_overrides"]

_KEY = re.compile(r"--?([A-Za-z_].*)", re.DOTALL)  # one dash will do for MONAI too; -1 is a value


def is_monai_command(argv: Sequence[str]) -> bool:
    """Whether this is the command line of `python -m monai.bundle run`."""
    module = Path(argv[0]).parts[-3:] if argv else ()
    return module == ("monai", "bundle", "__main__.py") and len(argv) > 1 and argv[1] in ("run", "run_workflow")


def refuse_unknown_overrides(argv: Sequence[str] | None = None) -> None:
    """Refuse an override of `python -m monai.bundle run` that no config file defines, naming the closest one.

    MONAI itself adds a misspelt key to the config and goes on with the default; so it does for a key whose value is the
    word None, which is refused too. A nested key (`--optimizer::lr`) is followed through mappings and lists to its end;
    what an object could be built with may be added to it (`--optimizer::weight_decay`). Keys of an `--args_file` are
    looked at as well. Called outside that command
    (from Python, say, where the arguments are not on the command line) this does nothing.

    Raises:
        UsageError: for the first key that is not known or is given None.
    """
    argv = sys.argv if argv is None else argv
    if not is_monai_command(argv):
        return
    given = _overrides(argv[2:])
    if given.get("config_file") is None:
        return
    config = ConfigParser.load_config_files(_as_list(given["config_file"]))
    known = [*config, *inspect.signature(monai.bundle.run).parameters]
    paths = {key: key.replace("#", "::").replace("-", "_").split("::") for key in given}  # as MONAI reads them
    for key in given:
        top = paths[key][0]
        if top not in known:
            match = suggest(top, known)
            hint = f"did you mean --{match}?" if match else f"known keys: {', '.join(sorted(config))}"
            raise UsageError(f"unknown override --{key}; {hint}")
        if given[key] == "None":
            raise UsageError(f"--{key} None: MONAI would go on with the config's own value; say null or leave it out")
        if top not in config or any(
            paths[key][: len(other)] == other for other in paths.values() if len(other) < len(paths[key])
        ):
            continue  # an argument of MONAI's, or below what another override puts there
        targets = {tuple(path[:-1]): given[word] for word, path in paths.items() if path[-1] == "_target_"}
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
            match = suggest(name, known)
            hint = f"did you mean --{above}{match}?" if match else f"known keys: {', '.join(sorted({*known}))}"
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
    slip = suggest(name, [*present, *arguments], cutoff=0.8) is not None
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


def _overrides(words: Sequence[str]) -> dict[str, Any]:
    """The keys of a command line and of its args file, which the command line overrides, each with its value."""
    given: dict[str, Any] = {}
    for number, word in enumerate(words):
        match = _KEY.fullmatch(word)
        if match:
            key, equals, value = match.group(1).partition("=")
            following = words[number + 1] if number + 1 < len(words) else None
            given[key] = value if equals else following
    if given.get("args_file") is not None:
        given = {**ConfigParser.load_config_file(given["args_file"]), **given}
    return given


def _as_list(value: str | Sequence[str]) -> list[str]:
    if not isinstance(value, str):
        return list(value)
    return [part.strip(" '\"") for part in value.strip("[]() ").split(",") if part.strip(" '\"")]
