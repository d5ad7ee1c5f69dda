"""Load weights into a network: all of them, or without the heads for transfer to another training; average weights."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from liverseg.bundle.validation import check_values
from liverseg.errors import LiversegError
from liverseg.labels import label_names, labels_for
from liverseg.networks.base import SlabNetwork
from liverseg.networks.lesion_type_unet import WINDOWS
from liverseg.networks.record import SlabInput, WeightsRecord
from liverseg.networks.registry import NETWORKS
from liverseg.networks.weights import export_weights, read_record, read_weights

__all__ = [
    "TransferReport",
    "average_weights",
    "load_weights",
    "record_differences",
    "transfer_weights",
    "without_aux_heads",
]

_TRANSFERRED = ("encoder.", "decoder.")
_AUX_HEADS = "aux_heads."
_MAX_DIFFERENCES = 3


@dataclass(frozen=True)
class TransferReport:
    """Result of a transfer.

    Attributes:
        loaded: names of the tensors loaded from the file.
        left: names of the tensors that keep their initial values, or that only the file has, each with the reason.
    """

    loaded: tuple[str, ...]
    left: dict[str, str]

    def summary(self) -> str:
        """Return one line: how many tensors were loaded, which were left and why."""
        left = ", ".join(f"{name} ({reason})" for name, reason in self.left.items())
        return f"transfer: {len(self.loaded)} tensors loaded, {len(self.left)} left{': ' if left else ''}{left}"

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {"loaded": list(self.loaded), "left": dict(self.left)}


def record_differences(
    record: WeightsRecord,
    network: SlabNetwork,
    input_spec: SlabInput | None = None,
    head: bool = True,
) -> list[str]:
    """Return the differences between a record and a network, formatted for messages.

    Args:
        record: record of the weights.
        network: the network to load them into.
        input_spec: the network's input; None compares only its number of slices.
        head: also compare the output channels and their labels.
    """
    arguments = network.arguments()
    network_name = type(network).__name__
    if not head and record.network in NETWORKS:  # only heads differ
        network_name = record.network
    pairs: list[tuple[str, Any, Any]] = [("network", record.network, network_name)]
    for name in ("size", "in_channels", *(["out_channels"] if head else [])):
        pairs.append((name, record.arguments[name], arguments[name]))
    if head and "evidence" in record.arguments and "evidence" in arguments:
        pairs.append(("evidence", record.arguments["evidence"], arguments["evidence"]))
    if head and "windows" in {*record.arguments, *arguments}:
        in_file, in_network = ([*found.get("windows", WINDOWS)] for found in (record.arguments, arguments))
        pairs.append(("windows", in_file, in_network))
    if head:
        pairs.append(("labels", ", ".join(record.labels), ", ".join(_labels(arguments["out_channels"], record))))
    if input_spec is None:
        pairs.append(("slab slices", record.input_spec.slab_slices, arguments["in_channels"]))
    else:
        pairs += record.input_spec.differences(input_spec)
    return [
        f"{name} {in_file} in the file, {in_network} in the network"
        for name, in_file, in_network in pairs
        if in_file != in_network
    ]


def without_aux_heads(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a state_dict without the auxiliary heads of deep supervision, which only training needs."""
    return {name: tensor for name, tensor in state.items() if not name.startswith(_AUX_HEADS)}


def load_weights(
    network: SlabNetwork,
    path: str | os.PathLike,
    *,
    input_spec: SlabInput | None = None,
) -> WeightsRecord | None:
    """Load a weights file of the same network, in place. A network without `aux_heads.*` ignores those of the file.

    Logs a warning for averaged weights whose heads have not been trained since.

    Args:
        network: changed only if everything fits.
        path: .safetensors, .pt or .pth.
        input_spec: the network's input, compared with the record's; None compares only its number of slices.

    Returns:
        The record of the weights; None if they have none.

    Raises:
        LiversegError: if the file cannot be used or anything differs. The message has the first three differences.
    """
    record = read_record(path)
    state = read_weights(path)
    target = network.state_dict()
    if target.keys() == without_aux_heads(target).keys():
        state = without_aux_heads(state)
    differences = [] if record is None else record_differences(record, network, input_spec)
    advice = "use weights of the same network, or the bundle of these weights"
    _refuse(path, [*differences, *_tensor_differences(state, target)], advice)
    network.load_state_dict(state)
    if record is not None and record.averaged_share is not None:
        logging.getLogger(__name__).warning(
            "%s: averaged with their pre-training, and their heads have not been trained since; train on with "
            "pretrain_weights %s, carry_heads True and fine_tuning heads",
            path, path,
        )  # fmt: skip
    return record


def transfer_weights(
    network: SlabNetwork, path: str | os.PathLike, *, input_spec: SlabInput, heads: bool = False
) -> TransferReport:
    """Load encoder and decoder of a pre-training into a network, in place; its heads stay as they are.

    A classifier has no decoder and takes only the encoder.

    Args:
        network: a network of any strategy, changed only if everything fits.
        path: exported weights with their record.
        input_spec: the network's input.
        heads: also load the heads, from weights of the same network and labels; auxiliary heads stay as they are.

    Raises:
        LiversegError: if the file cannot be used or has no record, or anything to load differs. The message has the
            first three differences.
    """
    record = _require_record(path, "run the pretrain bundle's export and use its file")
    state, target = read_weights(path), network.state_dict()
    if heads:
        expected, loaded = without_aux_heads(target), without_aux_heads(state)
    else:
        expected = {name: tensor for name, tensor in target.items() if name.startswith(_TRANSFERRED)}
        parts = tuple(part for part in _TRANSFERRED if any(name.startswith(part) for name in expected))
        loaded = {name: tensor for name, tensor in state.items() if name.startswith(parts)}
    differences = record_differences(record, network, input_spec, head=heads)
    _refuse(
        path, [*differences, *_tensor_differences(loaded, expected)], "pre-train with this network, window and slab"
    )
    network.load_state_dict(loaded, strict=False)
    left = {name: _reason_left(state.get(name), target.get(name)) for name in {**target, **state} if name not in loaded}
    return TransferReport(loaded=tuple(loaded), left=left)


def average_weights(
    weights: str | os.PathLike, pretrain_weights: str | os.PathLike, averaged: str | os.PathLike, share: float = 0.5
) -> Path:
    """Average a fine-tuned network with the weights that the fine-tuning started from, and export the result.

    The average keeps most of what fine-tuning improved and regains most of what it lost on other data (Wortsman et al.,
    Robust fine-tuning of zero-shot models, CVPR 2022). Encoder and decoder are averaged, and the head if it has the
    same shape in both. A head that only the fine-tuned network has was trained on other features, so it has to be
    trained again on these. The record has neither validation scores nor thresholds, since they were those of the
    fine-tuned network.

    Args:
        weights: weights after the fine-tuning, with their record.
        pretrain_weights: weights before the fine-tuning, with their record.
        averaged: target, ending in .safetensors.
        share: share of `pretrain_weights` in the average, 0 to 1.

    Returns:
        The target's absolute path.

    Raises:
        UsageError: if the share is not 0 to 1.
        LiversegError: if a file cannot be used or has no record, or if the two are the same, swapped, or differ in
            design, size or input.
    """
    check_values(share=share)
    tuned, pretrained = (
        _require_record(path, "use weights that a bundle trained") for path in (weights, pretrain_weights)
    )
    advice = "use the weights that the fine-tuning started from"
    if pretrained.tensors_sha256 == tuned.tensors_sha256:
        raise LiversegError(f"{pretrain_weights}: the same tensors as {weights}; {advice}")
    if len(pretrained.labels) > len(tuned.labels):
        raise LiversegError(
            f"{pretrain_weights}: it has the labels {', '.join(pretrained.labels)}, {weights} fewer; are they swapped?"
        )
    pairs = [(name, pretrained.arguments[name], tuned.arguments[name]) for name in ("size", "in_channels")]
    if not {pretrained.network, tuned.network} <= NETWORKS.keys():
        pairs.insert(0, ("network", pretrained.network, tuned.network))
    pairs += pretrained.input_spec.differences(tuned.input_spec)
    differences = [f"{name} {before} here, {after} in {weights}" for name, before, after in pairs if before != after]
    state, pretrained_state = read_weights(weights), read_weights(pretrain_weights)
    shared, pretrained_shared = (
        {name: tensor for name, tensor in tensors.items() if name.startswith(_TRANSFERRED)}
        for tensors in (state, pretrained_state)
    )
    _refuse(pretrain_weights, [*differences, *_tensor_differences(pretrained_shared, shared)], advice)
    head_kept = False
    for name, tensor in state.items():
        before = pretrained_state.get(name)
        if before is None or before.shape != tensor.shape:
            head_kept = True
        elif tensor.is_floating_point():  # batch norm also counts batches, as integers
            state[name] = torch.lerp(tensor, before, share)
    record = replace(
        tuned, metrics={}, type_temperature=1.0, voxel_threshold=None, lesion_threshold=None,
        averaged_share=share if head_kept else None,
    )  # fmt: skip
    export_weights(averaged, state, record)
    logging.getLogger(__name__).info(
        "averaged %s: %g of %s, the rest of %s", averaged, share, pretrain_weights, weights
    )
    return Path(averaged).absolute()


def _require_record(path: str | os.PathLike, advice: str) -> WeightsRecord:
    record = read_record(path)
    if record is None:
        raise LiversegError(f"{path}: no record describes these weights; {advice}")
    return record


def _reason_left(in_file: torch.Tensor | None, in_network: torch.Tensor | None) -> str:
    if in_file is None:
        return "not in the file"
    if in_network is None:
        return "not in the network"
    if in_file.shape != in_network.shape:
        return f"{in_network.shape[0]} channels here, {in_file.shape[0]} in the file"
    return "a head starts new"


def _tensor_differences(state: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]) -> list[str]:
    differences = []
    for name, in_network in target.items():
        in_file = state.get(name)
        if in_file is None:
            differences.append(f"{name} missing in the file")
        elif in_file.shape != in_network.shape:
            differences.append(f"{name} {_shape(in_file)} in the file, {_shape(in_network)} in the network")
        elif in_file.dtype != in_network.dtype:
            differences.append(f"{name} {in_file.dtype} in the file, {in_network.dtype} in the network")
    return differences + [f"{name} not in the network" for name in state if name not in target]


def _refuse(path: str | os.PathLike, differences: list[str], advice: str) -> None:
    """Raise LiversegError if there are differences."""
    if not differences:
        return
    others = len(differences) - _MAX_DIFFERENCES
    more = f"; and {others} other{'s' if others > 1 else ''}" if others > 0 else ""
    raise LiversegError(f"{path}: does not fit: {'; '.join(differences[:_MAX_DIFFERENCES])}{more}; {advice}")


def _labels(out_channels: int, record: WeightsRecord) -> tuple[str, ...]:
    """Return the labels of a network with `out_channels`; those of the record if no label table has this length."""
    try:
        return label_names(labels_for(out_channels)) if out_channels else ()
    except ValueError:
        return record.labels


def _shape(tensor: torch.Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"
