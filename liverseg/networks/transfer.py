"""Weights into a network: all of them, or all but the head from pre-training to joint training."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from liverseg.errors import LiversegError, UsageError
from liverseg.labels import label_names, labels_for
from liverseg.networks.base import SlabNetwork
from liverseg.networks.record import SlabInput, WeightsRecord
from liverseg.networks.weights import export_weights, read_record, read_weights

__all__ = [
    "TransferReport",
    "average_weights",
    "load_weights",
    "record_differences",
    "transfer_weights",
    "without_aux_heads",
]

_CARRIED = ("encoder.", "decoder.")
# their encoder and decoder, which are handed over, are the same; only the heads differ
_SHARED_ENCODER_DECODER = ("SEResUNet", "YNet", "LesionTypeUNet", "SlabClassifier")
_AUX_HEADS = "aux_heads."
_NAMED = 3


@dataclass(frozen=True)
class TransferReport:
    """What a hand-over did.

    Attributes:
        loaded: names of the tensors taken from the file.
        left: names of those that start new, or that only the file has, each with the reason.
    """

    loaded: tuple[str, ...]
    left: dict[str, str]

    def summary(self) -> str:
        """One line: how many tensors were loaded, which were left and why."""
        left = ", ".join(f"{name} ({why})" for name, why in self.left.items())
        return f"transfer: {len(self.loaded)} tensors loaded, {len(self.left)} left{': ' if left else ''}{left}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON content with the fields' names."""
        return {"loaded": list(self.loaded), "left": dict(self.left)}


def record_differences(
    record: WeightsRecord,
    network: SlabNetwork,
    input_spec: SlabInput | None = None,
    head: bool = True,
) -> list[str]:
    """Where a record and a network disagree, in words.

    Args:
        record: of the weights.
        network: they are meant for.
        input_spec: the network's input; None compares no more than its channels.
        head: also compare the output channels and their labels.
    """
    own = network.arguments()
    name = type(network).__name__
    if not head and record.network in _SHARED_ENCODER_DECODER:
        name = record.network
    pairs: list[tuple[str, Any, Any]] = [("network", record.network, name)]
    for name in ("size", "in_channels", *(["out_channels"] if head else [])):
        pairs.append((name, record.arguments[name], own[name]))
    if head:
        pairs.append(("labels", ", ".join(record.labels), ", ".join(_labels(own["out_channels"], record))))
    if input_spec is None:
        pairs.append(("slab slices", record.input_spec.slab_slices, own["in_channels"]))
    else:
        pairs += record.input_spec.differences(input_spec)
    return [f"{name} {theirs} in the file, {ours} in the network" for name, theirs, ours in pairs if theirs != ours]


def without_aux_heads(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state_dict less the auxiliary heads of deep supervision, which nothing but training needs."""
    return {name: tensor for name, tensor in state.items() if not name.startswith(_AUX_HEADS)}


def load_weights(
    network: SlabNetwork,
    path: str | os.PathLike,
    *,
    input_spec: SlabInput | None = None,
) -> WeightsRecord | None:
    """Load a weights file of the very same network, in place; `aux_heads.*` are passed over where it has none.

    Args:
        network: changed only if everything fits.
        path: .safetensors, .pt or .pth.
        input_spec: the network's input, to be compared; None compares no more than its channels.

    Warns, by its logger, of averaged weights with a head that has not been trained on.

    Returns:
        The record of the weights; None where they have none.

    Raises:
        LiversegError: if the file cannot be used, or anything differs: the first three differences are named.
    """
    record = read_record(path)
    state = read_weights(path)
    own = network.state_dict()
    if own.keys() == without_aux_heads(own).keys():
        state = without_aux_heads(state)
    differences = [] if record is None else record_differences(record, network, input_spec)
    _refuse(path, [*differences, *_tensor_differences(state, own)], "take the weights of this very network")
    network.load_state_dict(state)
    if record is not None and record.averaged_share is not None:
        logging.getLogger(__name__).warning(
            "%s: averaged with their pre-training, and their heads have not been trained on since; train on with "
            "--pretrain_weights %s --carry_heads True --fine_tuning heads",
            path, path,
        )  # fmt: skip
    return record


def transfer_weights(
    network: SlabNetwork, path: str | os.PathLike, *, input_spec: SlabInput, heads: bool = False
) -> TransferReport:
    """Carry encoder and decoder from pre-training into a network, in place; its heads stay as they are.

    A classifier has no decoder and takes the encoder alone.

    Args:
        network: of any strategy, changed only if everything fits.
        path: exported weights with their record.
        input_spec: the network's input.
        heads: also carry the heads, of weights of the same network and labels; auxiliary heads stay as they are.

    Raises:
        LiversegError: if the file cannot be used or has no record, or anything that is to be carried differs: the first
            three differences are named.
    """
    record = _known_record(path, "run the pretrain bundle's export, give its file")
    state, own = read_weights(path), network.state_dict()
    if heads:
        wanted, carried = without_aux_heads(own), without_aux_heads(state)
    else:
        wanted = {name: tensor for name, tensor in own.items() if name.startswith(_CARRIED)}
        parts = tuple(part for part in _CARRIED if any(name.startswith(part) for name in wanted))
        carried = {name: tensor for name, tensor in state.items() if name.startswith(parts)}
    differences = record_differences(record, network, input_spec, head=heads)
    _refuse(path, [*differences, *_tensor_differences(carried, wanted)], "pre-train with this network, window and slab")
    network.load_state_dict(carried, strict=False)
    left = {name: _why_left(name, state.get(name), own.get(name)) for name in {**own, **state} if name not in carried}
    return TransferReport(loaded=tuple(carried), left=left)


def average_weights(
    weights: str | os.PathLike, pretrain_weights: str | os.PathLike, averaged: str | os.PathLike, share: float = 0.5
) -> Path:
    """Average a fine-tuned network with what the fine-tuning started from, and export the result.

    What fine-tuning brought is largely kept, and what it lost on other data largely returns (Wortsman et al., Robust
    fine-tuning of zero-shot models, CVPR 2022). Encoder and decoder are averaged, and the head if it has the same shape
    in both. A head that only the fine-tuned network has was trained on other features: train it on with these.
    Validation scores and thresholds were the fine-tuned network's and are left out of the record.

    Args:
        weights: what the fine-tuning left, with its record.
        pretrain_weights: what it started from, with its record.
        averaged: target, ending in .safetensors.
        share: of `pretrain_weights` in the average, 0 to 1.

    Returns:
        The target's absolute path.

    Raises:
        UsageError: if the share is not between 0 and 1.
        LiversegError: if a file cannot be used or has no record, or the two are the same, swapped, or not of one
            design, size and input.
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise UsageError(f"share is {share!r}; it must be a number, 0 to 1")
    tuned, origin = (_known_record(path, "take weights that a bundle trained") for path in (weights, pretrain_weights))
    pairs = [(name, origin.arguments[name], tuned.arguments[name]) for name in ("size", "in_channels")]
    if not {origin.network, tuned.network} <= {*_SHARED_ENCODER_DECODER}:
        pairs.insert(0, ("network", origin.network, tuned.network))
    if origin.tensors_sha256 == tuned.tensors_sha256:
        raise LiversegError(
            f"{pretrain_weights}: the same tensors as {weights}; take what the fine-tuning started from"
        )
    if len(origin.labels) > len(tuned.labels):
        raise LiversegError(
            f"{pretrain_weights}: it has the labels {', '.join(origin.labels)}, {weights} fewer; are they swapped?"
        )
    state, started = read_weights(weights), read_weights(pretrain_weights)
    own, theirs = (
        {name: tensor for name, tensor in one.items() if name.startswith(_CARRIED)} for one in (state, started)
    )
    differences = [
        f"{name} {other} here, {mine} in {weights}"
        for name, other, mine in [*pairs, *origin.input_spec.differences(tuned.input_spec)]
        if other != mine
    ]
    _refuse(
        pretrain_weights, [*differences, *_tensor_differences(theirs, own)], "take what the fine-tuning started from"
    )
    for name, tensor in state.items():
        other = started.get(name)
        if (
            other is not None and other.shape == tensor.shape and tensor.is_floating_point()
        ):  # batch norm counts batches
            state[name] = torch.lerp(tensor, other, share)
    trained_apart = any(started.get(name) is None or started[name].shape != state[name].shape for name in state)
    record = replace(
        tuned, metrics={}, type_temperature=1.0, voxel_threshold=None, lesion_threshold=None,
        averaged_share=share if trained_apart else None,
    )  # fmt: skip
    export_weights(averaged, state, record)
    logging.getLogger(__name__).info(
        "averaged %s: %g of %s, the rest of %s", averaged, share, pretrain_weights, weights
    )
    return Path(averaged).absolute()


def _known_record(path: str | os.PathLike, what_to_do: str) -> WeightsRecord:
    record = read_record(path)
    if record is None:
        raise LiversegError(f"{path}: no record says what these weights are; {what_to_do}")
    return record


def _why_left(name: str, theirs: torch.Tensor | None, ours: torch.Tensor | None) -> str:
    if theirs is None:
        return "not in the file"
    if ours is None:
        return "not in the network"
    if theirs.shape != ours.shape:
        return f"{ours.shape[0]} channels here, {theirs.shape[0]} in the file"
    return "a head starts new"


def _tensor_differences(state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> list[str]:
    found = []
    for name, ours in own.items():
        theirs = state.get(name)
        if theirs is None:
            found.append(f"{name} missing in the file")
        elif theirs.shape != ours.shape:
            found.append(f"{name} {_shape(theirs)} in the file, {_shape(ours)} in the network")
        elif theirs.dtype != ours.dtype:
            found.append(f"{name} {theirs.dtype} in the file, {ours.dtype} in the network")
    return found + [f"{name} not in the network" for name in state if name not in own]


def _refuse(path: str | os.PathLike, differences: list[str], what_to_do: str) -> None:
    if not differences:
        return
    others = len(differences) - _NAMED
    more = f"; and {others} other{'s' if others > 1 else ''}" if others > 0 else ""
    raise LiversegError(f"{path}: does not fit: {'; '.join(differences[:_NAMED])}{more}; {what_to_do}")


def _labels(out_channels: int, record: WeightsRecord) -> tuple[str, ...]:
    """The labels a network of so many channels speaks; the record's own where no table tells."""
    try:
        return label_names(labels_for(out_channels)) if out_channels else ()
    except ValueError:
        return record.labels


def _shape(tensor: torch.Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"
