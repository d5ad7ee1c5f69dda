"""Weights files without torch: their names, and the record that describes them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from liverseg.bundle.paths import STARTER_FOLDER
from liverseg.errors import LiversegError
from liverseg.utils.files import is_file

__all__ = [
    "RECORD_KEY",
    "RENAMED_NETWORKS",
    "STATE_SUFFIXES",
    "check_weights_path",
    "read_record_content",
    "record_path",
    "replacement_advice",
]

STATE_SUFFIXES = (".pt", ".pth")
"""Endings of a state_dict's name."""
RECORD_KEY = "liverseg"
"""Key of the record in the header of a safetensors file. It is a single key, since safetensors writes several keys in
random order, so that files would differ."""
RENAMED_NETWORKS = {"MeasuringUNet": "LesionTypeUNet"}
"""Present names of network classes by their names in records of earlier versions."""


def check_weights_path(path: str | os.PathLike) -> Path:
    """Return the path of a weights file that exists and has the name of one.

    Raises:
        LiversegError: if it has another name or does not exist.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", *STATE_SUFFIXES):
        raise LiversegError(f"{path}: not the name of a weights file; .safetensors, .pt and .pth are read")
    if not is_file(path):
        advice = "install liverseg again" if path.parent == STARTER_FOLDER else "train and export first"
        raise LiversegError(f"{path}: no such weights file; {advice}, or give another path")
    return path


def record_path(path: str | os.PathLike) -> Path:
    """Return the file that has the record of a weights file: a safetensors file itself, `<stem>.json` for others."""
    path = Path(path)
    return path if path.suffix == ".safetensors" else path.with_suffix(".json")


def replacement_advice(path: str | os.PathLike) -> str:
    """Return what to do about a damaged file, for messages."""
    return "install liverseg again" if Path(path).parent == STARTER_FOLDER else "copy or export it again"


def read_record_content(path: str | os.PathLike) -> dict[str, Any] | None:
    """Return the record of a weights file as JSON content, without torch; None if there is no record.

    Args:
        path: a safetensors file, whose header has the record, or a state_dict, which has it beside it as `<stem>.json`.

    Raises:
        LiversegError: if the record cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    file = record_path(path)
    advice = replacement_advice(file)
    if file.suffix == ".safetensors":
        try:
            with safe_open(file, framework="np") as opened:
                text = (opened.metadata() or {}).get(RECORD_KEY)
        except (SafetensorError, OSError) as error:
            raise LiversegError(f"{file}: cannot be read as safetensors, truncated or foreign; {advice}") from error
    else:
        try:
            text = file.read_text(encoding="utf-8") if is_file(file) else None
        except (OSError, UnicodeDecodeError) as error:
            raise LiversegError(f"{file}: the record beside the weights cannot be read; {advice}") from error
    if text is None:
        return None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LiversegError(f"{file}: the record of the weights is not JSON; {advice}") from error
    if not isinstance(content, dict):
        raise LiversegError(f"{file}: not a record of liverseg weights; {advice}")
    return content
