"""Weights files without torch: their names, and the record that describes them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from liverseg.bundle.paths import STARTER_FOLDER
from liverseg.errors import LiversegError, one_line
from liverseg.utils.files import is_file

__all__ = ["RECORD_KEY", "RENAMED_NETWORKS", "STATE_SUFFIXES", "check_weights_path", "read_record_content"]

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


def read_record_content(path: str | os.PathLike) -> dict[str, Any] | None:
    """Return the record of a weights file as JSON content, without torch; None if there is no record.

    Args:
        path: a safetensors file, whose header has the record, or a state_dict, which has it beside it as `<stem>.json`.

    Raises:
        LiversegError: if the record cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    record = path if path.suffix == ".safetensors" else path.with_suffix(".json")
    if record != path and not is_file(record):
        return None
    try:
        if record == path:
            with safe_open(path, framework="np") as opened:
                text = (opened.metadata() or {}).get(RECORD_KEY)
            if text is None:
                return None
        else:
            text = record.read_text(encoding="utf-8")
        content = json.loads(text)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise LiversegError(f"{record}: the record of the weights cannot be read ({one_line(error)})") from error
    if not isinstance(content, dict):
        raise LiversegError(f"{record}: not a record of liverseg weights")
    return content
