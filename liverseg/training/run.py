"""What a training or an evaluation starts from: its items, its record, its first weights."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
from liverseg.utils.distributed import is_rank_zero
from liverseg.utils.files import is_dir, is_file, list_folder, sha256_file, write_text

__all__ = [
    "RunData",
    "check_key_score",
    "initialise_weights",
    "load_for_evaluation",
    "load_run_data",
    "run_record",
    "write_transfer",
]


@dataclass(frozen=True)
class RunData:
    """The items of one run.

    Attributes:
        training: what is learnt from.
        validation: the held-out fold, for choosing the best epoch.
        test: labelled items of patients in no fold.
    """

    training: tuple[DataItem, ...]
    validation: tuple[DataItem, ...]
    test: tuple[DataItem, ...]

    @property
    def evaluation(self) -> tuple[DataItem, ...]:
        """What an evaluation is made on: the test list, or the held-out fold where there is none."""
        if not self.test:
            logging.getLogger(__name__).warning(
                "the data list has no labelled test items: evaluating the held-out fold"
            )
        return self.test or self.validation


def load_run_data(
    datalist: str | os.PathLike, dataset_dir: str | os.PathLike, fold: int, num_channels: int, evaluating: bool = False
) -> RunData:
    """Read a data list and see that its labels are the network's and its folder and files are there.

    Args:
        datalist: the list.
        dataset_dir: folder its paths are relative to.
        fold: to hold out.
        num_channels: output channels of the network, which say what its label table is.
        evaluating: nothing will be trained: where the list has labelled test items, they are all that is taken, and it
            need not have folds nor the files of its training items.

    Raises:
        LiversegError: if the folder is missing or empty, the list is not sound, has other labels, no such fold, names a
            file that is not there, or the images of the fold leave nothing to train on.
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
                raise LiversegError(f"{datalist}: {folder / name} does not exist; is dataset_dir right?")
    return RunData(training, validation, test)


def _check_labels(datalist: str | os.PathLike, listed: DataList, num_channels: int) -> None:
    """Refuse a list whose label numbers mean something else: a lesion of LiTS would be trained as a cyst."""
    own = label_table(num_channels)
    # names are compared where they matter: LiTS's own lists call the lesion tumour
    same = listed.labels == own if num_channels == len(JOINT_LABELS) else listed.labels.keys() == own.keys()
    if not same:
        theirs = ", ".join(f"{index} {name}" for index, name in listed.labels.items()) or "none"
        ours = ", ".join(f"{index} {name}" for index, name in own.items())
        raise LiversegError(f"{datalist}: its labels are {theirs}; this bundle's are {ours}: take a list of this kind")


def check_key_score(items: Sequence[DataItem], key_score: str) -> None:
    """Refuse a lesion score for items of which none has its lesions outlined, before anything is trained.

    Args:
        items: what is scored.
        key_score: "lesion_dice" or "liver_dice".

    Raises:
        UsageError: if nobody could tell the score.
    """
    if key_score == "lesion_dice" and not any(item.lesions_are_outlined for item in items):
        raise UsageError(
            f"key_score is 'lesion_dice', but none of the {len(items)} items to be scored has its lesions outlined; "
            "give --key_score liver_dice, or another fold"
        )


def run_record(network: SlabNetwork, input_spec: SlabInput, datalist: str | os.PathLike, fold: int) -> WeightsRecord:
    """The record of a network about to be trained on an input: epoch 0, no metrics yet.

    Its weights are kept without auxiliary heads, so it tells of a network without deep supervision.
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
    """Load trained weights to score them, on patients they were not trained on as far as their record can tell.

    Args:
        network: changed in place.
        weights: .pt or .safetensors.
        input_spec: the run's input, which the weights must have been trained with.
        datalist: of the evaluation.
        fold: that is scored where the list has no test items.
        data: the run's items.

    Returns:
        The record of the weights; None where they have none.

    Raises:
        LiversegError: if the weights do not fit, or were trained on the fold that would be scored.
    """
    record = load_weights(network, weights, input_spec=input_spec)
    log = logging.getLogger(__name__)
    if record is None:
        log.warning("%s: no record beside it, so nobody can tell which patients it was trained on", weights)
    elif record.datalist_sha256 != sha256_file(datalist):
        log.warning(
            "%s: trained on data list %s, not on this %s; see to it that no patient is in both",
            weights,
            record.datalist_name,
            datalist,
        )
    elif not data.test and record.fold is None:
        log.warning("%s: its record tells no fold; it may have been trained on the patients of fold %d", weights, fold)
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
    """Carry weights into a network, or say that it starts from scratch.

    Args:
        network: of any strategy, changed in place.
        initialisation: one of `liverseg.bundle.validation.INITIALISATIONS`.
        input_spec: the run's input, which the weights must have been trained with.
        pretrain_weights: exported weights, for `lits`.
        imagenet_weights: local file, for `imagenet`; None as in `liverseg.networks.transfer_imagenet`.
        carry_heads: for `lits`, carry the heads too, of weights of the same network and labels.

    Returns:
        What was loaded and what was left; None for a start from scratch.

    Raises:
        UsageError: if `lits` is asked for without weights.
        LiversegError: if the weights are missing or do not fit.
    """
    log = logging.getLogger(__name__)
    if initialisation == "scratch":
        log.info("transfer: none, training from scratch as told")
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


def write_transfer(report: TransferReport | None, output_dir: str | os.PathLike) -> None:
    """Write what `initialise_weights` did to `transfer.json` in an existing folder."""
    content = {"loaded": [], "left": {}} if report is None else report.to_json()
    if is_rank_zero():
        write_text(Path(output_dir) / "transfer.json", json.dumps(content, indent=1) + "\n")
