"""Weights on disk: safetensors with a record for the hand-over, plain state dicts for MONAI.

Nothing here runs pickled code: state dicts are read with torch's restricted unpickler.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors

from liverseg.bundle.paths import STARTER_FOLDER
from liverseg.errors import LiversegError, OutputError, UsageError, one_line
from liverseg.networks.record import WeightsRecord, tensors_hash
from liverseg.utils.files import atomic_write, is_file

__all__ = [
    "export_trained",
    "export_weights",
    "read_record",
    "read_state",
    "read_weights",
    "save_state",
    "try_read_record",
]

_HEADER_KEY = "liverseg"  # one key alone: safetensors writes several in random order, and files would differ
_STATE_SUFFIXES = (".pt", ".pth")
_CHECKPOINT_KEYS = ("network", "model")


def export_weights(path: str | os.PathLike, network_state: Mapping[str, torch.Tensor], record: WeightsRecord) -> None:
    """Write a safetensors file with its record in the header, and the record beside it as `<stem>.json`.

    Both are written under a temporary name and renamed, the weights last. The same tensors and record give the same
    bytes.

    Args:
        path: target, ending in .safetensors; its folder is made if missing.
        network_state: a network's state_dict.
        record: what they are; its tensor hash is filled in here.

    Raises:
        UsageError: if the name has another ending.
        LiversegError: if the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UsageError(f"{path}: exported weights end in .safetensors; choose such a name")
    state = _plain(network_state)
    record = record.for_tensors(state)
    content = to_safetensors(state, metadata={_HEADER_KEY: record.dumps()})
    _write_with_record(path, record, lambda unfinished: unfinished.write_bytes(content))


def export_trained(
    weights: str | os.PathLike,
    exported: str | os.PathLike,
    voxel_threshold: float | None = None,
    lesion_threshold: float | None = None,
    lesion_ranges: dict[str, dict[str, tuple[float, float]]] | None = None,
    half: bool = False,
) -> Path:
    """Export what a training left, a state_dict with its record beside it, as one safetensors file to hand over.

    Args:
        weights: the training's .pt file; a .safetensors file is exported again as it is.
        exported: target, ending in .safetensors.
        voxel_threshold: from which probability on inference is to call a voxel of the liver lesion, written into the
            record.
        lesion_threshold: least score of a lesion that inference is to keep, written into the record.
        lesion_ranges: what lesions of each type measured, written into the record.
        half: store float16, half the size; `read_weights` gives float32 again.

    Returns:
        The target's absolute path.

    Raises:
        LiversegError: if the weights cannot be used, have no record beside them, are beyond what float16 holds, or the
            target cannot be written.
    """
    record = read_record(weights)
    if record is None:
        beside = Path(weights).with_suffix(".json").name
        raise LiversegError(
            f"{weights}: no {beside} beside it says what these weights are; train with the bundle first"
        )
    if voxel_threshold is not None:
        record = replace(record, voxel_threshold=voxel_threshold)
    if lesion_threshold is not None:
        record = replace(record, lesion_threshold=lesion_threshold)
    if lesion_ranges is not None:
        record = replace(record, lesion_ranges=lesion_ranges)
    state = read_weights(weights)
    export_weights(exported, _halved(weights, state) if half else state, record)
    logging.getLogger(__name__).info("exported %s: epoch %d of %s", exported, record.epoch, record.datalist_name)
    return Path(exported).absolute()


def _halved(path: str | os.PathLike, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    halved = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    for name, tensor in halved.items():
        if not torch.isfinite(tensor).all():
            raise LiversegError(f"{path}: {name} is beyond what float16 holds; export with half False")
    return halved


def save_state(path: str | os.PathLike, network_state: Mapping[str, torch.Tensor], record: WeightsRecord) -> None:
    """Write a plain state_dict, as MONAI's bundles want it in `models/model.pt`, and its record as `<stem>.json`.

    Args:
        path: target, ending in .pt or .pth; its folder is made if missing.
        network_state: a network's state_dict.
        record: what they are; its tensor hash is filled in here.

    Raises:
        LiversegError: if the name has another ending or the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in _STATE_SUFFIXES:
        raise LiversegError(f"{path}: a state_dict ends in .pt or .pth; choose such a name")
    state = _plain(network_state)
    _write_with_record(path, record.for_tensors(state), lambda unfinished: torch.save(state, unfinished))


def read_record(path: str | os.PathLike) -> WeightsRecord | None:
    """The record of a weights file, without reading its tensors.

    Returns:
        From the header of a .safetensors file, or from `<stem>.json` beside a .pt file; None for a .pt without one.

    Raises:
        LiversegError: if the file is missing, truncated, not a weights file or its record is not sound.
    """
    path = _existing(path)
    if path.suffix in _STATE_SUFFIXES:
        beside = path.with_suffix(".json")
        if not beside.is_file():
            return None
        return _record_from(beside, _read_text(beside))
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise LiversegError(f"{path}: cannot be read as safetensors, truncated or foreign; {_again(path)}") from error
    if _HEADER_KEY not in metadata:
        raise LiversegError(f"{path}: no record in its header, so not exported by liverseg; run a bundle's export")
    return _record_from(path, metadata[_HEADER_KEY])


def read_weights(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """The tensors of a weights file, on the CPU, float32 where the file has float16.

    Args:
        path: .safetensors with a record, or .pt / .pth with a state_dict, alone or under "network" or "model".

    Raises:
        LiversegError: if the file is missing, truncated, foreign, holds more than tensors, or its tensors are not those
            of its record.
    """
    record = read_record(path)
    path = Path(path)
    state = load_file(path) if path.suffix == ".safetensors" else read_state(path)
    if record is not None and record.tensors_sha256 != tensors_hash(state):
        where = "its record" if path.suffix == ".safetensors" else path.with_suffix(".json").name
        raise LiversegError(f"{path}: its tensors are not those {where} tells of (SHA-256 differs); {_again(path)}")
    return {name: tensor.float() if tensor.dtype == torch.float16 else tensor for name, tensor in state.items()}


def try_read_record(weights: str | os.PathLike | None) -> WeightsRecord | None:
    """Return the record of a weights file, or None if there is no file or no sound record. Never raises."""
    try:
        return read_record(weights) if weights is not None else None
    except LiversegError:
        return None


def _plain(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Contiguous copies on the CPU, in their own order."""
    return {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}


def _write_with_record(path: Path, record: WeightsRecord, write: Callable[[Path], Any]) -> None:
    beside = path.with_suffix(".json")
    try:
        # the record is renamed first
        with atomic_write(path, make_folder=True) as weights_file, atomic_write(beside) as record_file:
            record_file.write_text(record.dumps(indent=1) + "\n", encoding="utf-8")
            write(weights_file)
    except (OutputError, RuntimeError) as error:  # torch reports a full disk or a missing folder as RuntimeError
        cause = error.__cause__ or error
        reason = getattr(cause, "strerror", None) or one_line(cause)
        raise OutputError(f"{path}: weights cannot be written ({reason}); choose another folder") from error


def _again(path: str | os.PathLike) -> str:
    """What to do about a file that is damaged."""
    return "install liverseg again" if Path(path).parent == STARTER_FOLDER else "copy or export it again"


def _existing(path: str | os.PathLike) -> Path:
    path = Path(path)
    if path.suffix not in (".safetensors", *_STATE_SUFFIXES):
        raise LiversegError(f"{path}: not the name of a weights file; .safetensors, .pt and .pth are read")
    if not is_file(path):
        missing = "install liverseg again" if path.parent == STARTER_FOLDER else "train and export first"
        raise LiversegError(f"{path}: no such weights file; {missing}, or give another path")
    return path


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LiversegError(f"{path}: the record beside the weights cannot be read; {_again(path)}") from error


def _record_from(path: Path, text: str) -> WeightsRecord:
    try:
        return WeightsRecord.from_json(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise LiversegError(f"{path}: the record of the weights is not JSON; {_again(path)}") from error
    except LiversegError as error:
        raise LiversegError(f"{path}: {error}; {_again(path)}") from error


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """A state_dict from a file of torch.save, alone or under "network" or "model", without running pickled code.

    Raises:
        LiversegError: if the file is truncated, foreign or holds more than tensors.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "nsupported global" in str(error) or "nsupported class" in str(error):
            raise LiversegError(
                f"{path}: refused, it holds pickled objects besides tensors; save the network's state_dict alone"
            ) from error
        raise LiversegError(f"{path}: not a file of torch.save; {_again(path)}") from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise LiversegError(f"{path}: cannot be read, truncated or foreign; {_again(path)}") from error
    for key in _CHECKPOINT_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise LiversegError(f"{path}: holds a {type(content).__name__}, not a state_dict; save network.state_dict()")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise LiversegError(
                f"{path}: not a state_dict, {name!r} is a {type(value).__name__}; save network.state_dict()"
            )
    return dict(content)
