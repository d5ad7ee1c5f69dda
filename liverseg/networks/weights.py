"""Weights on disk: safetensors with a record for exchange, plain state_dicts for MONAI.

Pickled code is never run: state_dicts are read with torch's restricted unpickler.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors

from liverseg.bundle.weights_files import (
    RECORD_KEY,
    STATE_SUFFIXES,
    check_weights_path,
    read_record_content,
    record_path,
    replacement_advice,
)
from liverseg.errors import LiversegError, OutputError, UsageError, one_line
from liverseg.networks.record import WeightsRecord, tensors_hash
from liverseg.utils.files import atomic_write

__all__ = [
    "export_trained",
    "export_weights",
    "read_record",
    "read_state",
    "read_weights",
    "save_state",
    "try_read_record",
]

_CHECKPOINT_KEYS = ("network", "model")


def export_weights(path: str | os.PathLike, network_state: Mapping[str, torch.Tensor], record: WeightsRecord) -> None:
    """Write a safetensors file with its record in the header, and the record beside it as `<stem>.json`.

    Both are written under a temporary name and renamed, the weights last. The same tensors and record give the same
    bytes.

    Args:
        path: target, ending in .safetensors; its folder is made if missing.
        network_state: a network's state_dict.
        record: record of the weights; its tensor hash is filled in here.

    Raises:
        UsageError: if the name has another ending.
        OutputError: if the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UsageError(f"{path}: exported weights end in .safetensors; choose such a name")
    state = _contiguous(network_state)
    record = record.for_tensors(state)
    content = to_safetensors(state, metadata={RECORD_KEY: record.dumps()})
    _write_with_record(path, record, lambda temporary: temporary.write_bytes(content))


def export_trained(
    weights: str | os.PathLike,
    exported: str | os.PathLike,
    voxel_threshold: float | None = None,
    lesion_threshold: float | None = None,
    lesion_ranges: dict[str, dict[str, tuple[float, float]]] | None = None,
    half: bool = False,
) -> Path:
    """Export the state_dict and the record of a training as one safetensors file.

    Args:
        weights: the training's .pt file with its record beside it, or an exported .safetensors file.
        exported: target, ending in .safetensors.
        voxel_threshold: least probability of lesion of a voxel of the liver from which on inference labels it as
            lesion, written into the record.
        lesion_threshold: least score of a lesion that inference keeps, written into the record.
        lesion_ranges: ranges of the measurements of each type's lesions, written into the record.
        half: store float16, half the size; `read_weights` converts back to float32.

    Returns:
        The target's absolute path.

    Raises:
        LiversegError: if the weights cannot be used, have no record, exceed the range of float16, or the target cannot
            be written.
    """
    record = read_record(weights)
    if record is None:
        record_name = Path(weights).with_suffix(".json").name
        raise LiversegError(f"{weights}: no {record_name} beside it with their record; train with the bundle first")
    if voxel_threshold is not None:
        record = replace(record, voxel_threshold=voxel_threshold)
    if lesion_threshold is not None:
        record = replace(record, lesion_threshold=lesion_threshold)
    if lesion_ranges is not None:
        record = replace(record, lesion_ranges=lesion_ranges)
    state = read_weights(weights)
    export_weights(exported, _to_float16(weights, state) if half else state, record)
    logging.getLogger(__name__).info("exported %s: epoch %d of %s", exported, record.epoch, record.datalist_name)
    return Path(exported).absolute()


def _to_float16(path: str | os.PathLike, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    converted = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    for name, tensor in converted.items():
        if not torch.isfinite(tensor).all():
            raise LiversegError(f"{path}: {name} exceeds the range of float16; export with half False")
    return converted


def save_state(path: str | os.PathLike, network_state: Mapping[str, torch.Tensor], record: WeightsRecord) -> None:
    """Write a plain state_dict, the format of `models/model.pt` in MONAI's bundles, and its record as `<stem>.json`.

    Args:
        path: target, ending in .pt or .pth; its folder is made if missing.
        network_state: a network's state_dict.
        record: record of the weights; its tensor hash is filled in here.

    Raises:
        LiversegError: if the name has another ending or the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in STATE_SUFFIXES:
        raise LiversegError(f"{path}: a state_dict ends in .pt or .pth; choose such a name")
    state = _contiguous(network_state)
    _write_with_record(path, record.for_tensors(state), lambda temporary: torch.save(state, temporary))


def read_record(path: str | os.PathLike) -> WeightsRecord | None:
    """Read the record of a weights file, without its tensors.

    Returns:
        The record in the header of a .safetensors file, or in `<stem>.json` beside a .pt file; None for a .pt file
        without record.

    Raises:
        LiversegError: if the file is missing, truncated or of another format, or its record is invalid.
    """
    path = check_weights_path(path)
    content = read_record_content(path)
    if content is None:
        if path.suffix in STATE_SUFFIXES:
            return None
        raise LiversegError(f"{path}: no record in its header, so not exported by liverseg; run a bundle's export")
    try:
        return WeightsRecord.from_json(content)
    except LiversegError as error:
        raise LiversegError(f"{record_path(path)}: {error}; {replacement_advice(path)}") from error


def read_weights(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """Read the tensors of a weights file to the CPU; float16 is converted to float32.

    Args:
        path: .safetensors with a record, or .pt / .pth with a state_dict, alone or under "network" or "model".

    Raises:
        LiversegError: if the file is missing, truncated, of another format, contains more than tensors, or its tensors
            are not those of its record.
    """
    record = read_record(path)
    path = Path(path)
    state = load_file(path) if path.suffix == ".safetensors" else read_state(path)
    if record is not None and record.tensors_sha256 != tensors_hash(state):
        source = "its record" if record_path(path) == path else record_path(path).name
        raise LiversegError(
            f"{path}: its tensors are not those of {source} (SHA-256 differs); {replacement_advice(path)}"
        )
    return {name: tensor.float() if tensor.dtype == torch.float16 else tensor for name, tensor in state.items()}


def try_read_record(weights: str | os.PathLike | None) -> WeightsRecord | None:
    """Return the record of a weights file, or None if there is no file or no sound record. Never raises."""
    try:
        return read_record(weights) if weights is not None else None
    except LiversegError:
        return None


def _contiguous(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return contiguous copies on the CPU, in the same order."""
    return {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}


def _write_with_record(path: Path, record: WeightsRecord, write: Callable[[Path], Any]) -> None:
    record_path = path.with_suffix(".json")
    try:
        # the record is renamed first
        with atomic_write(path, make_folder=True) as weights_file, atomic_write(record_path) as record_file:
            record_file.write_text(record.dumps(indent=1) + "\n", encoding="utf-8")
            write(weights_file)
    except (OutputError, RuntimeError) as error:  # torch reports a full disk or a missing folder as RuntimeError
        cause = error.__cause__ or error
        reason = getattr(cause, "strerror", None) or one_line(cause)
        raise OutputError(f"{path}: weights cannot be written ({reason}); choose another folder") from error


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read a state_dict of torch.save, alone or under "network" or "model", without running pickled code.

    Raises:
        LiversegError: if the file is truncated, of another format or contains more than tensors.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "nsupported global" in str(error) or "nsupported class" in str(error):
            raise LiversegError(
                f"{path}: refused, it contains pickled objects, not only tensors; save the network's state_dict alone"
            ) from error
        raise LiversegError(f"{path}: not a file of torch.save; {replacement_advice(path)}") from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise LiversegError(f"{path}: cannot be read, truncated or foreign; {replacement_advice(path)}") from error
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
