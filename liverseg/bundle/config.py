"""Functions that read the config they are called from: checks of all its values, and its settings for records."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

from monai.bundle import ConfigParser, ReferenceResolver
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS

from liverseg.bundle.effective import is_expression
from liverseg.bundle.keys import DURATION, EXECUTION, FILES, FOLDERS, MULTI_PROCESS, STEPS, TRACKING
from liverseg.bundle.validation import RULES, check_values, is_recorded, none_if_null
from liverseg.utils.distributed import world_size
from liverseg.utils.files import sha256_file

__all__ = [
    "NOT_SETTINGS",
    "adapt_tracking",
    "build",
    "check_config",
    "inference_settings",
    "running_config",
    "training_settings",
]

_RESOLVED = {"batch_size": "slabs_at_a_time"}
"""Keys that allow "auto", each with the key that holds the number."""

NOT_SETTINGS = (*STEPS, *FOLDERS, "weights", *EXECUTION, *DURATION, *TRACKING, *MULTI_PROCESS)
"""The keys of a training's config that do not change its result. Every other key is one of its settings."""

_TRACKED_LOSS: str = DEFAULT_MLFLOW_SETTINGS["configs"]["trainer"]["output_transform"]  # type: ignore[index]
_LOSS = "$operator.itemgetter('loss')"
"""Expressions of `output_transform`: that of MONAI's tracking, and one for an output that is a dictionary."""

_BY_VALUE = ("epochs",)
"""Keys of `NOT_SETTINGS` that change the result where another key refers to them, as a schedule's `T_max` does."""


def running_config() -> ConfigParser:
    """Return the MONAI parser that is evaluating the expression from which this is called.

    MONAI gives an expression no reference to its config, so the parser is looked up on the call stack. Command line,
    overlays and overrides are all in it, whether the run was started from a terminal or from Python.

    Raises:
        RuntimeError: if no config is being evaluated.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, ConfigParser):
            return owner
        frame = frame.f_back
    raise RuntimeError("no MONAI config is being evaluated; call this from an expression of a config")


def check_config(optional: Sequence[str] = ()) -> None:
    """Check every key of the running config that has a rule in `liverseg.bundle.validation.RULES`.

    Args:
        optional: keys that allow null in this config in addition to the values of their rules.

    Raises:
        UsageError: for the first value that is not allowed.
    """
    config = running_config()
    labels = config.get("train::dataset::labels")
    for key in config.get():
        rule = RULES.get(key)
        if rule is None or rule.labels not in (None, labels):
            continue
        resolved = _RESOLVED.get(key, key)
        value = config.get_parsed_content(resolved if resolved in config else key)
        if rule.optional or key in optional:
            value = none_if_null(value)
        if value is not None or key not in optional:
            check_values(labels, **{key: value})


def adapt_tracking() -> None:
    """Let MONAI's experiment tracking (`--tracking mlflow`) log the loss of the running training.

    The handler that MONAI adds takes the loss from a list of decollated cases. These trainings keep a batch as one
    dictionary, from which it would take a tuple. Handlers with another `output_transform` are left as they are.
    """
    config = running_config()
    handlers = config.get("train::handlers") or []
    for number, handler in enumerate(handlers):
        if isinstance(handler, dict) and handler.get("output_transform") == _TRACKED_LOSS:
            handlers[number] = {**handler, "output_transform": _LOSS}  # a copy: MONAI adds its default itself
            items = config.ref_resolver.items
            items[f"train::handlers::{number}"].update_config(handlers[number])
            items[f"train::handlers::{number}::output_transform"].update_config(_LOSS)


def build(*names: str) -> None:
    """Build objects of the running config now, so that their errors come before anything is written.

    Args:
        names: ids of the objects, as `train::dataset`.
    """
    config = running_config()
    for name in names:
        config.get_parsed_content(name)


def inference_settings() -> dict[str, Any]:
    """Return the settings of the running inference by key, for the records of its cases.

    A new key with a rule is recorded, see `liverseg.bundle.validation.is_recorded`. "auto" is recorded as the number it
    stands for.

    Returns:
        JSON-able values in the order of the config.
    """
    config = running_config()
    settings: dict[str, Any] = {}
    for key in config.get():
        if key == "liver":
            settings[key] = str(config.get_parsed_content(key))
        elif is_recorded(key):
            resolved = _RESOLVED.get(key, key)
            settings[key] = _null(key, config.get_parsed_content(resolved if resolved in config else key))
    return settings


def training_settings() -> dict[str, Any]:
    """Return the settings that the result of the running training depends on, by key, for its checkpoint.

    They are the config itself without `NOT_SETTINGS`: a new key is a setting unless it is listed there. Numbers, texts
    and lists count by value, whether they are written out or computed. An expression that builds an object counts by
    its text, and so does one that refers to a key of `NOT_SETTINGS`, such as a path. Files count by their SHA-256 and
    come last. `batch_size` is that of all processes together.

    Returns:
        JSON-able values, nested as in the config.
    """
    config = running_config()
    settings = {
        key: _null(key, _value(config, key, content))
        for key, content in config.get().items()
        if key not in NOT_SETTINGS and key not in FILES
    }
    if "batch_size" in settings:
        settings["batch_size"] *= world_size()
    for key in FILES:
        path = none_if_null(config.get_parsed_content(key)) if key in config else None
        if key == "pretrain_weights" and settings.get("initialisation") != "lits":
            path = None  # it is not read
        settings[key] = None if path is None else sha256_file(path)
    return settings


def _value(config: ConfigParser, name: str, content: Any) -> Any:
    """Return the content of a key as a setting, see `training_settings`."""
    if isinstance(content, Mapping):
        kept = {key: child for key, child in content.items() if f"{name}::{key}" not in NOT_SETTINGS}
        return {key: _value(config, f"{name}::{key}", child) for key, child in kept.items()}
    if isinstance(content, list):
        return [_value(config, f"{name}::{index}", child) for index, child in enumerate(content)]
    references = _references(content)
    if not references and not is_expression(content):
        return content
    is_nested = "::" in name
    if is_nested and any(key in (*NOT_SETTINGS, *FILES) and key not in _BY_VALUE for key in references):
        return content
    if _is_built(config, content):
        return content
    value = config.get_parsed_content(name)
    return value if _is_plain(value) else content


def _null(key: str, value: Any) -> Any:
    """Return None for the words that a command line has for it, where the key allows them."""
    is_optional = key in RULES and RULES[key].optional
    return none_if_null(value) if is_optional or (isinstance(value, str) and value in ("", "null")) else value


def _references(content: Any) -> list[str]:
    """Return the ids that a text of a config refers to."""
    return [*ReferenceResolver.match_refs_pattern(content)] if isinstance(content, str) else []


def _is_built(config: ConfigParser, content: Any) -> bool:
    """Return True for an object of the config, and for texts that refer to one, directly or through others."""
    if isinstance(content, Mapping):
        return "_target_" in content or any(_is_built(config, child) for child in content.values())
    if isinstance(content, list):
        return any(_is_built(config, child) for child in content)
    return any(name not in config or _is_built(config, config[name]) for name in _references(content))


def _is_plain(value: Any) -> bool:
    """Return True for what JSON holds as it is."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(child) for key, child in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)
