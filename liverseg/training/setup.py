"""Set-up of a training or an evaluation: determinism, items, record, first weights."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from monai.data import set_track_meta
from monai.utils import set_determinism

from liverseg.datalists import DataItem, DataList, label_table, read_datalist
from liverseg.errors import LiversegError, UsageError
from liverseg.labels import JOINT_LABELS, label_names, labels_for
from liverseg.networks import (
    SlabInput,
    SlabNetwork,
    TransferReport,
    WeightsRecord,
    load_weights,
    package_versions,
    transfer_imagenet,
    transfer_weights,
)
from liverseg.utils.distributed import check_torchrun, is_rank_zero
from liverseg.utils.files import backslash_hint, is_dir, is_file, list_folder, sha256_file, write_text
from liverseg.utils.memory import keep_freed_memory
from liverseg.utils.precision import autocast_dtype

__all__ = [
    "RunData",
    "check_key_score",
    "initialise_weights",
    "load_for_evaluation",
    "load_run_data",
    "run_record",
    "set_up",
    "shared_handler",
    "write_transfer",
]

_Handler = TypeVar("_Handler")


@dataclass(frozen=True)
class RunData:
    """The items of one run.

    Attributes:
        training: items of all other folds.
        validation: items of the held-out fold, by which the best epoch is chosen.
        test: labelled items of patients in no fold.
    """

    training: tuple[DataItem, ...]
    validation: tuple[DataItem, ...]
    test: tuple[DataItem, ...]

    @property
    def evaluation(self) -> tuple[DataItem, ...]:
        """The items to score: the test list, or the held-out fold if the list has no labelled test items."""
        if not self.test:
            logging.getLogger(__name__).warning(
                "the data list has no labelled test items: evaluating the held-out fold"
            )
        return self.test or self.validation


def set_up(device: torch.device | str, amp: bool | str, seed: int | None = None) -> None:
    """Check number format and processes, and set MONAI's state for a run.

    Args:
        device: the network's device.
        amp: "auto", True or False.
        seed: makes weights, order and augmentation repeatable; None leaves the random state as it is.

    Raises:
        UsageError: if the device does not compute bfloat16 and `amp` is True, or if torchrun has started several
            processes that have not met.
    """
    autocast_dtype(device, amp)
    check_torchrun()
    set_track_meta(False)
    keep_freed_memory()
    if seed is not None:
        set_determinism(seed)


def load_run_data(
    datalist: str | os.PathLike, dataset_dir: str | os.PathLike, fold: int, num_channels: int, evaluating: bool = False
) -> RunData:
    """Read a data list and check its labels, its folder and its files.

    Args:
        datalist: path of the list.
        dataset_dir: folder that its paths are relative to.
        fold: the fold to hold out.
        num_channels: output channels of the network; its label table follows from them.
        evaluating: if the list has labelled test items, take only these. The list then needs neither folds nor the
            files of its training items.

    Raises:
        LiversegError: if the folder is missing or empty; if the list is not valid, has other labels, has no such fold
            or names a missing file; or if the fold leaves nothing to train on.
    """
    folder = Path(dataset_dir)
    if not is_dir(folder):
        raise LiversegError(f"dataset_dir {folder}: no such folder; give --dataset_dir")
    if not list_folder(folder):
        raise LiversegError(f"dataset_dir {folder}: the folder is empty")
    listed = read_datalist(datalist)
    _check_labels(datalist, listed, num_channels)
    test = tuple(item for item in listed.test if item.label is not None)
    training, validation = ((), ()) if evaluating and test else listed.split(fold)
    if not training and not evaluating:
        raise LiversegError(f"{datalist}: fold {fold} holds every item; nothing is left to train on")
    for item in (*training, *validation, *test):
        for name in (item.image, str(item.label)):
            if not is_file(folder / name):
                raise LiversegError(
                    f"{datalist}: {folder / name} does not exist; is dataset_dir right?{backslash_hint(name)}"
                )
    return RunData(training, validation, test)


def _check_labels(datalist: str | os.PathLike, listed: DataList, num_channels: int) -> None:
    """Refuse a list whose label numbers have another meaning: a lesion of LiTS would be trained as a cyst."""
    own = label_table(num_channels)
    # names are compared for the joint labels only: LiTS's own lists call the lesion tumour
    same = listed.labels == own if num_channels == len(JOINT_LABELS) else listed.labels.keys() == own.keys()
    if not same:
        theirs = ", ".join(f"{index} {name}" for index, name in listed.labels.items()) or "none"
        ours = ", ".join(f"{index} {name}" for index, name in own.items())
        raise LiversegError(f"{datalist}: its labels are {theirs}; this bundle's are {ours}: take a list of this kind")


def check_key_score(items: Sequence[DataItem], key_score: str) -> None:
    """Refuse a lesion score if none of the items has its lesions outlined, before anything is trained.

    Args:
        items: the items to score.
        key_score: "lesion_dice" or "liver_dice".

    Raises:
        UsageError: if the score cannot be computed.
    """
    if key_score == "lesion_dice" and not any(item.lesions_are_outlined for item in items):
        raise UsageError(
            f"key_score is 'lesion_dice', but none of the {len(items)} items to be scored has its lesions outlined; "
            "give --key_score liver_dice, or another fold"
        )


def run_record(network: SlabNetwork, input_spec: SlabInput, datalist: str | os.PathLike, fold: int) -> WeightsRecord:
    """Return the record of a network before its training: epoch 0, no metrics.

    Weights are saved without auxiliary heads, so the record is that of a network without deep supervision.
    """
    arguments = {**network.arguments(), "deep_supervision": False}
    return WeightsRecord(
        network=type(network).__name__,
        arguments=arguments,
        input_spec=input_spec,
        labels=label_names(labels_for(channels)) if (channels := arguments["out_channels"]) else (),
        datalist_name=read_datalist(datalist).name,
        datalist_sha256=sha256_file(datalist),
        epoch=0,
        metrics={},
        versions=package_versions(),
        fold=fold,
    )


def load_for_evaluation(
    network: SlabNetwork,
    weights: str | os.PathLike,
    input_spec: SlabInput,
    datalist: str | os.PathLike,
    fold: int,
    data: RunData,
) -> WeightsRecord | None:
    """Load trained weights for an evaluation, and check by their record that they were trained on other patients.

    Args:
        network: changed in place.
        weights: path, .pt or .safetensors.
        input_spec: the run's input; the weights must have been trained with the same.
        datalist: data list of the evaluation.
        fold: the fold that is scored if the list has no test items.
        data: the run's items.

    Returns:
        The record of the weights, or None if they have none.

    Raises:
        LiversegError: if the weights do not fit, or were trained on the fold to be scored.
    """
    record = load_weights(network, weights, input_spec=input_spec)
    log = logging.getLogger(__name__)
    if record is None:
        log.warning("%s: no record beside it, so it is unknown which patients it was trained on", weights)
    elif record.datalist_sha256 != sha256_file(datalist):
        log.warning(
            "%s: trained on data list %s, not on this %s; make sure that no patient is in both",
            weights,
            record.datalist_name,
            datalist,
        )
    elif not data.test and record.fold is None:
        log.warning("%s: its record has no fold; it may have been trained on the patients of fold %d", weights, fold)
    elif not data.test and record.fold != fold:
        raise LiversegError(
            f"{weights}: trained with fold {record.fold} held out, so on the patients of fold {fold}; "
            f"give --fold {record.fold}"
        )
    return record


def initialise_weights(
    network: SlabNetwork,
    initialisation: str,
    input_spec: SlabInput,
    pretrain_weights: str | None = None,
    imagenet_weights: str | None = None,
    carry_heads: bool = False,
) -> TransferReport | None:
    """Initialise a network from weights, or leave it as it is for a training from scratch.

    Args:
        network: network of any strategy, changed in place.
        initialisation: one of `liverseg.bundle.validation.INITIALISATIONS`.
        input_spec: the run's input; the weights must have been trained with the same.
        pretrain_weights: path of exported weights, for `lits`.
        imagenet_weights: path, for `imagenet`; None as in `liverseg.networks.transfer_imagenet`.
        carry_heads: for `lits`, also carry the heads over. The weights must be of the same network and labels.

    Returns:
        The tensors that were loaded and left, or None for a training from scratch.

    Raises:
        UsageError: if `initialisation` is `lits` and there are no weights.
        LiversegError: if the weights are missing or do not fit.
    """
    log = logging.getLogger(__name__)
    if initialisation == "scratch":
        log.info("transfer: none, training from scratch")
        return None
    if initialisation == "imagenet":
        report = transfer_imagenet(network, imagenet_weights)
    elif pretrain_weights is None:
        raise UsageError("initialisation lits: no pretrain_weights are given; say scratch or imagenet, or give them")
    elif not is_file(pretrain_weights):
        raise LiversegError(
            f"pretrain_weights {pretrain_weights}: no such file; export it with the pretrain bundle, "
            "or say --pretrain_weights null to train from scratch"
        )
    else:
        report = transfer_weights(network, pretrain_weights, input_spec=input_spec, heads=carry_heads)
    log.info("%s", report.summary())
    return report


def write_transfer(report: TransferReport | None, output_dir: str | os.PathLike, skip_scratch: bool = False) -> None:
    """Write `transfer.json`: which tensors `initialise_weights` loaded and left.

    Args:
        report: from `initialise_weights`.
        output_dir: an existing folder.
        skip_scratch: write no file for a training from scratch, instead of one without tensors.
    """
    if report is None and skip_scratch:
        return
    content = {"loaded": [], "left": {}} if report is None else report.to_json()
    if is_rank_zero():
        write_text(Path(output_dir) / "transfer.json", json.dumps(content, indent=1) + "\n")


def shared_handler(handler: _Handler) -> _Handler:
    """Return a handler that other parts of the config refer to, as an entry of `train::handlers`.

    MONAI's `check_properties` reads the `_target_` of every entry, so an entry cannot be a plain reference.
    """
    return handler
