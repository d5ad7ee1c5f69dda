"""What a training or an evaluation starts from: its items, its record, its first weights."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from liverseg.datalists import DataItem, datalist_hash, read_datalist
from liverseg.errors import LiversegError
from liverseg.labels import label_names, labels_for
from liverseg.networks import SEResUNet, TransferReport, WeightsRecord, package_versions, transfer_weights
from liverseg.transforms import SLAB_SLICES

__all__ = ["RunData", "load_run_data", "run_record", "start_from", "write_transfer"]


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


def load_run_data(datalist: str | os.PathLike, dataset_dir: str | os.PathLike, fold: int) -> RunData:
    """Read a data list and see that its folder and files are there.

    Raises:
        LiversegError: if the folder is missing or empty, the list is not sound, has no such fold, names a file that is
            not there, or the images of the fold leave nothing to train on.
    """
    folder = Path(dataset_dir)
    if not folder.is_dir():
        raise LiversegError(f"dataset_dir {folder}: no such folder; give --dataset_dir")
    if not any(folder.iterdir()):
        raise LiversegError(f"dataset_dir {folder}: the folder is empty")
    listed = read_datalist(datalist)
    training, validation = listed.split(fold)
    if not training:
        raise LiversegError(f"{datalist}: fold {fold} holds every item; nothing is left to train on")
    test = tuple(item for item in listed.test if item.label is not None)
    for item in (*training, *validation, *test):
        for name in (item.image, str(item.label)):
            if not (folder / name).is_file():
                raise LiversegError(f"{datalist}: {folder / name} does not exist; is dataset_dir right?")
    return RunData(training, validation, test)


def run_record(network: SEResUNet, hu_window: tuple[float, float], datalist: str | os.PathLike) -> WeightsRecord:
    """The record of a network about to be trained: epoch 0, no metrics yet.

    Its weights are kept without auxiliary heads, so it tells of a network without deep supervision.
    """
    arguments = {**network.arguments(), "deep_supervision": False}
    return WeightsRecord(
        network=type(network).__name__,
        arguments=arguments,
        slab_slices=SLAB_SLICES,
        hu_window=(float(hu_window[0]), float(hu_window[1])),
        labels=label_names(labels_for(arguments["out_channels"])),
        datalist_name=read_datalist(datalist).name,
        datalist_sha256=datalist_hash(datalist),
        epoch=0,
        metrics={},
        versions=package_versions(),
    )


def start_from(
    network: SEResUNet, pretrain_weights: str | None, hu_window: tuple[float, float]
) -> TransferReport | None:
    """Carry pre-trained weights into a network, or say that it starts from scratch.

    Args:
        network: the joint network, changed in place.
        pretrain_weights: exported weights; None for a start from scratch.
        hu_window: the run's HU window, which the weights must have been trained with.

    Returns:
        What was loaded and what was left; None for a start from scratch.

    Raises:
        LiversegError: if the weights are missing or do not fit.
    """
    log = logging.getLogger(__name__)
    if pretrain_weights is None:
        log.info("transfer: none, training from scratch as told (pretrain_weights null)")
        return None
    if not Path(pretrain_weights).is_file():
        raise LiversegError(
            f"pretrain_weights {pretrain_weights}: no such file; export it with the pretrain bundle, "
            "or say --pretrain_weights null to train from scratch"
        )
    report = transfer_weights(network, pretrain_weights, hu_window=hu_window, slab_slices=SLAB_SLICES)
    log.info("%s", report.summary())
    return report


def write_transfer(report: TransferReport | None, output_dir: str | os.PathLike) -> None:
    """Write what `start_from` did to `transfer.json` in an existing folder."""
    content = {"loaded": [], "left": {}} if report is None else report.to_json()
    (Path(output_dir) / "transfer.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
