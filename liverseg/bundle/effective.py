"""Effective settings of config files: the values that results depend on, without the wiring.

Two configs with the same effective settings give the same results, however their objects are put together. So a batch
or a study recognises what an earlier version made, although class paths, imports and expressions have changed since.
"""

from __future__ import annotations

import ast
import copy
import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from liverseg.bundle.keys import EXECUTION, FILES, FOLDERS, STEPS
from liverseg.bundle.outputs import DEFAULT_OUTPUT_TYPES

__all__ = [
    "NEUTRAL",
    "RECORDED_SETTINGS",
    "EarlierConfigs",
    "earlier_configs",
    "effective_settings",
    "is_expression",
    "merge_configs",
]

_NOT_SETTINGS = (*STEPS, *FOLDERS, *FILES, "weights", *EXECUTION)
"""Keys that change no result. Files count where they are hashed, and a study counts `DURATION`."""
_NO_ARGUMENTS = ("handlers", "keys", "name", "tag_name", "metric", "metrics", "decollate")
"""Arguments of objects that connect or name things."""

NEUTRAL: dict[str, Any] = {
    "best_from": 1,
    "min_liver_contact": 0,
    "lesion_threshold": 0,
    "output_types": [*DEFAULT_OUTPUT_TYPES],
    "::windows": [15],
    "::evidence": "measurements",
}
"""Values with which a setting does what versions without it did. A setting at its neutral value is left out, and so is
one that is null or False. List a new setting here if its neutral value is another one."""

RECORDED_SETTINGS: dict[str, Any] = {
    "hu_window": [-200, 250],
    "slab_spacing_mm": None,
    "pixel_mm": None,
    "voxel_threshold": None,
    "lesion_threshold": 0,
    "lesion_ranges": None,
    "type_temperature": 1,
}
"""Settings of inference that a config reads from the weights' record, with the values for weights without one."""

_EARLIER = Path(__file__).with_name("earlier_configs.json")
_COMPUTED = (
    *(ast.Expression, ast.Constant, ast.Load, ast.List, ast.Tuple, ast.IfExp, ast.Compare, ast.BinOp, ast.UnaryOp),
    *(ast.BoolOp, ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
)
"""Parts of expressions that are computed here."""
_REFERENCE = re.compile(r"@(\w+(?:::\w+)*)")


def effective_settings(config: Mapping[str, Any], recorded: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the values of a config that results depend on, by key.

    Settings are the top-level keys that hold numbers, texts or lists, and expressions of such keys and of numbers. The
    arguments of objects that hold values are settings by the name `::argument`, wherever the object is, and so are
    classes that are neither liverseg's nor MONAI's. Of the fine-tuning plans, the chosen one is a setting. All else is
    wiring: class paths, references, imports and other expressions.

    Args:
        config: parsed content, with overlays and overrides from `merge_configs`.
        recorded: for a config of inference, the content of the weights' record, empty if there is none.

    Returns:
        JSON types only, without the values that change nothing.
    """
    settings: dict[str, Any] = {}
    arguments: dict[str, list[Any]] = {}
    for key, value in config.items():
        if key in _NOT_SETTINGS:
            continue
        if recorded is not None and key in RECORDED_SETTINGS and is_expression(value):
            found = recorded.get(key)
            settings[key] = RECORDED_SETTINGS[key] if found is None else found
        elif key == "plans" and isinstance(value, Mapping):
            settings[key] = _literals(value.get(config.get("fine_tuning")))
        elif _has_objects(value):
            _collect_arguments(value, arguments)
        elif is_expression(value):
            settings[key] = _evaluate(value, config)
        else:
            settings[key] = _literals(value)
    for name, values in arguments.items():
        distinct = {json.dumps(_plain(value), sort_keys=True): value for value in values}
        ordered = [distinct[text] for text in sorted(distinct)]
        settings[f"::{name}"] = ordered[0] if len(ordered) == 1 else ordered
    plain = {key: _plain(value) for key, value in settings.items()}
    return {key: value for key, value in plain.items() if not _is_neutral(key, value)}


def merge_configs(configs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one config in which the keys of later configs replace those of earlier ones, as in MONAI.

    A key `a::b` replaces `b` of `a`, and a key that begins with + adds to a list or mapping.
    """
    merged: dict[str, Any] = {}
    for config in configs:
        for key, value in config.items():
            path = key.removeprefix("+").split("::")
            if not _put(merged, path, copy.deepcopy(value), key.startswith("+")):
                merged[key] = value
    return merged


class EarlierConfigs:
    """The configs of earlier versions of the bundles.

    Args:
        content: of `earlier_configs.json`.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        pairs = content["pairs"]
        self._configs = [{**entry, "content": dict(pairs[at] for at in entry["pairs"])} for entry in content["configs"]]
        self._combined: Mapping[str, Mapping[str, str]] = content["combined"]

    def inference(self) -> list[dict[str, Any]]:
        """Return the content of every version of `configs/inference.yaml`."""
        return [config["content"] for config in self._configs if config["name"] == "inference"]

    def keys(self, name: str) -> set[str]:
        """Return the top-level keys of every version of a config.

        Args:
            name: of the config, as `train`.
        """
        return {key for config in self._configs if config["name"] == name for key in config["content"]}

    def combined(self, bundle: str, names: Iterable[str], sha256: str) -> list[dict[str, Any]] | None:
        """Return the contents of config files by the SHA-256 of their bytes, one file after the other.

        Args:
            bundle: name of the bundle.
            names: of the files, in order.
            sha256: as studies of earlier versions wrote it into their cells.

        Returns:
            None if no earlier version had such files.
        """
        names = list(names)
        for commit, known in self._combined.items():
            if known.get(" ".join([bundle, *names])) == sha256:
                return [self._content(commit, bundle, name) for name in names]
        return None

    def _content(self, commit: str, bundle: str, name: str) -> dict[str, Any]:
        found = [
            config
            for config in self._configs
            if (config["bundle"], config["name"]) == (bundle, name) and commit in config["commits"]
        ]
        content: dict[str, Any] = found[0]["content"]
        return content


@lru_cache(maxsize=1)
def earlier_configs() -> EarlierConfigs:
    """Return the configs of earlier versions, read once."""
    return EarlierConfigs(json.loads(_EARLIER.read_text(encoding="utf-8")))


def _put(place: Any, path: list[str], value: Any, adds: bool) -> bool:
    """Set a nested value; returns False if there is no such place."""
    name: Any = path[0]
    if isinstance(place, list):
        if not name.isdecimal() or int(name) >= len(place):
            return False
        name = int(name)
    elif not isinstance(place, dict):
        return False
    if len(path) > 1:
        if isinstance(place, dict):
            place.setdefault(name, {})
        return _put(place[name], path[1:], value, adds)
    old = place[name] if isinstance(place, list) else place.get(name)
    if adds and isinstance(old, list) and isinstance(value, list):
        value = [*old, *value]
    elif adds and isinstance(old, dict) and isinstance(value, dict):
        value = {**old, **value}
    place[name] = value
    return True


def is_expression(value: Any) -> bool:
    """Return True for a text that MONAI evaluates: an expression, a reference or a macro."""
    return isinstance(value, str) and value.startswith(("$", "@", "%"))


def _has_objects(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "_target_" in value or any(map(_has_objects, value.values()))
    return isinstance(value, list) and any(map(_has_objects, value))


def _collect_arguments(value: Any, arguments: dict[str, list[Any]]) -> None:
    """Add the values of an object's arguments, and of the objects in it, by name."""
    if isinstance(value, list):
        for child in value:
            _collect_arguments(child, arguments)
    if not isinstance(value, Mapping):
        return
    for name, child in value.items():
        if name == "_target_" and "." in str(child) and not str(child).startswith(("liverseg.", "monai.", "$", "@")):
            arguments.setdefault(name, []).append(child)
        elif name.startswith("_") or name in _NO_ARGUMENTS:
            continue
        elif _has_objects(child):
            _collect_arguments(child, arguments)
        elif (literals := _literals(child)) is not None:
            arguments.setdefault(name, []).append(literals)


def _literals(value: Any) -> Any:
    """Return a value without the expressions in it; None if nothing else is there."""
    if is_expression(value):
        return None
    if isinstance(value, Mapping):
        kept: Any = {key: _literals(child) for key, child in value.items() if not is_expression(child)}
    elif isinstance(value, list):
        kept = [_literals(child) for child in value if not is_expression(child)]
    else:
        return value
    return kept if kept or not value else None


def _evaluate(text: str, config: Mapping[str, Any]) -> Any:
    """Return the value of an expression of numbers, texts and keys that hold such; None for any other expression."""

    def literal(match: re.Match[str]) -> str:
        value = config.get(match[1])
        return "?" if isinstance(value, list | Mapping) or is_expression(value) else repr(value)

    try:
        tree = ast.parse(_REFERENCE.sub(literal, text[1:]).strip(), mode="eval")
        if not text.startswith("$") or not all(isinstance(node, _COMPUTED) for node in ast.walk(tree)):
            return None
        return eval(compile(tree, "config", "eval"), {"__builtins__": {}})
    except (SyntaxError, ArithmeticError, TypeError, ValueError):
        return None


def _plain(value: Any) -> Any:
    """Return a value in JSON's types, integers as such: 1.0 is 1."""
    if isinstance(value, Mapping):
        return {str(key): _plain(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(child) for child in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _is_neutral(key: str, value: Any) -> bool:
    if value is None or value is False or value in ([], {}):
        return True
    return key in NEUTRAL and bool(NEUTRAL[key] == value)
