"""Checks of overrides on the command line of `python -m monai.bundle run`."""

from __future__ import annotations

import inspect
import os
import pydoc
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import monai.bundle
from monai.bundle import ComponentLocator, ConfigComponent, ConfigExpression, ConfigItem, ConfigParser

from liverseg.bundle.config import running_config
from liverseg.bundle.effective import is_expression
from liverseg.bundle.keys import TEXTS
from liverseg.errors import UsageError, suggest

__all__ = ["is_monai_command", "refuse_unknown_overrides", "split_key"]

_KEY = re.compile(r"--?([A-Za-z_].*)", re.DOTALL)  # MONAI accepts one dash too; -1 is a value


def is_monai_command(argv: Sequence[str]) -> bool:
    """Return True for the command line of `python -m monai.bundle run`."""
    module = Path(argv[0]).parts[-3:] if argv else ()
    return module == ("monai", "bundle", "__main__.py") and len(argv) > 1 and argv[1] in ("run", "run_workflow")


def split_key(key: str) -> list[str]:
    """Return the parts of a nested key, as MONAI reads them.

    Example:
        >>> split_key("train#trainer::max-epochs")
        ['train', 'trainer', 'max_epochs']
    """
    return key.replace("#", "::").replace("-", "_").split("::")


def refuse_unknown_overrides(argv: Sequence[str] | None = None) -> None:
    """Refuse overrides of `python -m monai.bundle run` that no config file defines.

    MONAI itself adds a misspelt key to the config and continues with the default. It does the same for a key with the
    value None, which is refused too. A nested key (`--optimizer::lr`) is followed through mappings and lists to its
    end; further arguments of an object are allowed (`--optimizer::weight_decay`). Keys of an `--args_file` are checked
    as well. Outside this command, for example from Python, where the arguments are not on the command line, this does
    nothing.

    Then the keys of `TEXTS` get the words of the command line, as `_restore_texts` says.

    Args:
        argv: a command line to check alone; by default that of this process, whose config is running.

    Raises:
        UsageError: for the first key that is unknown or is None, with the closest known key; for a path in a file that
            YAML takes for a number or date.
    """
    words = sys.argv if argv is None else argv
    if not is_monai_command(words):
        return
    _refuse_unknown(_overrides(words[2:]))
    if argv is None:
        _restore_texts(running_config(), _overrides(words[2:], with_file=False))


def _refuse_unknown(given: dict[str, Any]) -> None:
    """Refuse the first key that the command line's config files do not define."""
    if given.get("config_file") is None:
        return
    config = ConfigParser.load_config_files(_as_list(given["config_file"]))
    if given.get("tracking") not in (None, "None") and "validate" not in config:
        raise UsageError("--tracking is for training and evaluating; this run has neither loss nor score to log")
    known = [*config, *inspect.signature(monai.bundle.run).parameters]
    paths = {key: split_key(key) for key in given}
    for key in given:
        top = paths[key][0]
        if top not in known:
            match = suggest(top, known)
            hint = f"did you mean --{match}?" if match else f"known keys: {', '.join(sorted(config))}"
            raise UsageError(f"unknown override --{key}; {hint}")
        if given[key] == "None":
            raise UsageError(f"--{key} None: MONAI would use the config's own value; write null or leave it out")
        if top not in config or any(
            paths[key][: len(other)] == other for other in paths.values() if len(other) < len(paths[key])
        ):
            continue  # an argument of MONAI, or below a value that another override replaces
        targets = {tuple(path[:-1]): given[word] for word, path in paths.items() if path[-1] == "_target_"}
        _check_nested(key, paths[key], config, targets.get(tuple(paths[key][:-1])))


def _restore_texts(config: ConfigParser, given: dict[str, Any]) -> None:
    """Give paths and names the words of the command line, where MONAI has made another value of them.

    MONAI's commands use fire, which evaluates every word as Python: the folder 2024_01_05 becomes the number 20240105,
    `run#2` becomes `run`, and [a] a list. The config is changed without MONAI's `ConfigParser.set`, which would discard
    what it has parsed while it evaluates.

    Args:
        config: the running config, with no text evaluated yet.
        given: values of the command line by key.

    Raises:
        UsageError: if a text is another value in a config or args file.
    """
    content = config.get()
    for key, word in given.items():
        top = split_key(key)[0]
        if split_key(key) != [top] or top not in TEXTS or top not in content or not isinstance(word, str):
            continue
        if content[top] is None or is_expression(word) or ("#" not in word and _means(word, content[top])):
            continue
        if "#" in word:  # MONAI replaces it in texts by ::, but not in the value of an expression
            content[top] = f"${word!r}".replace("#", "\\x23").replace("@", "\\x40")
            config.ref_resolver.items[top] = ConfigExpression(content[top], id=top)
        else:
            content[top] = word
            config.ref_resolver.items[top] = ConfigItem(word, id=top)
    for key in TEXTS:
        value = content.get(key)
        if value is not None and not isinstance(value, str | os.PathLike):
            raise UsageError(
                f"{key} is {value!r} in its file, which YAML does not take for text; put the name into quotes"
            )


def _means(word: str, value: Any) -> bool:
    """Return whether a value is a word's text, as it is or as the quoted text of a Python literal."""
    return word == value or (word[:1] in ("'", '"') and word[1:-1] == value)


def _check_nested(key: str, path: list[str], config: Any, new_target: str | None) -> None:
    """Refuse a nested key that is not in the mapping or list to which its path leads."""
    for depth, name in enumerate(path):
        above = "".join(f"{part}::" for part in path[:depth])
        if isinstance(config, dict) and name in config:
            config = config[name]
        elif isinstance(config, list) and name.isdecimal() and int(name) < len(config):
            config = config[int(name)]
        elif isinstance(config, dict):
            last = depth == len(path) - 1
            target = new_target if last and new_target else config.get("_target_")
            is_refused, arguments = _is_no_argument(name, target, config) if last and target else (True, [])
            if not is_refused:
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


def _is_no_argument(name: str, target: Any, present: Iterable[str]) -> tuple[bool, list[str]]:
    """Return whether a target refuses an argument, and the arguments that it is known to take.

    A target that takes any argument refuses those that look like a misspelling of another.
    """
    if name in ConfigComponent.non_arg_keys:
        return False, []
    arguments, takes_others = _arguments_of(target)
    if not takes_others:
        return name not in arguments, arguments
    is_misspelt = suggest(name, [*present, *arguments], cutoff=0.8) is not None
    return name not in arguments and is_misspelt, arguments


def _arguments_of(target: Any) -> tuple[list[str], bool]:
    """Return the named arguments of a `_target_`, and whether it may take others (**kwargs, or it is not found)."""
    try:
        component = ConfigComponent({"_target_": target}, id="", locator=ComponentLocator())
        found: Any = pydoc.locate(component.resolve_module_name())
        if found is None:
            return [], True
        if not inspect.isclass(found):
            return _named(inspect.signature(found))
        arguments: list[str] = []
        for kind in inspect.getmro(found):  # **kwargs are passed to the next class's constructor
            if "__init__" in vars(kind) and kind is not object:
                more, takes_others = _named(inspect.signature(vars(kind)["__init__"]))
                arguments += [name for name in more if name != "self"]
                if not takes_others:
                    return arguments, False
        return arguments, True
    except (pydoc.ErrorDuringImport, AttributeError, TypeError, ValueError):
        return [], True


def _named(signature: inspect.Signature) -> tuple[list[str], bool]:
    parameters = signature.parameters.values()
    named = [entry.name for entry in parameters if entry.kind in (entry.POSITIONAL_OR_KEYWORD, entry.KEYWORD_ONLY)]
    return named, any(entry.kind is entry.VAR_KEYWORD for entry in parameters)


def _overrides(words: Sequence[str], with_file: bool = True) -> dict[str, Any]:
    """Return the keys and values of a command line and of its args file, which the command line overrides."""
    given: dict[str, Any] = {}
    for number, word in enumerate(words):
        match = _KEY.fullmatch(word)
        if match:
            key, equals, value = match.group(1).partition("=")
            following = words[number + 1] if number + 1 < len(words) else None
            given[key] = value if equals else following
    if with_file and given.get("args_file") is not None:
        given = {**ConfigParser.load_config_file(given["args_file"]), **given}
    return given


def _as_list(value: str | Sequence[str]) -> list[str]:
    if not isinstance(value, str):
        return list(value)
    return [part.strip(" '\"") for part in value.strip("[]() ").split(",") if part.strip(" '\"")]
