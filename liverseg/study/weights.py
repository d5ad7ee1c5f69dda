"""The weights a study starts from: there, of pre-training, and made without the study's own patients."""

from __future__ import annotations

from collections.abc import Mapping

from liverseg.datalists import DataList
from liverseg.errors import LiversegError
from liverseg.files import file_hash, is_file
from liverseg.labels import PRETRAIN_LABELS, label_names
from liverseg.networks import read_record
from liverseg.study.definition import StudyDefinition
from liverseg.study.folds import fold_list_path

__all__ = ["check_lits_weights"]


def check_lits_weights(study: StudyDefinition, lists: Mapping[int, DataList]) -> None:
    """Refuse weights that would make a study of initialisations worthless; of other rows nothing is asked.

    Args:
        study: the study.
        lists: its folds' lists.

    Raises:
        LiversegError: if a row starts from `lits` and the weights are not there, have no record, name lesion types, so
            are not those of pre-training, or were trained on this study's data list or one of its folds'.
    """
    if not any(row.initialisation == "lits" for row in study.rows):
        return
    weights = study.lits_weights
    if weights is None or not is_file(weights):
        raise LiversegError(
            f"lits_weights {weights}: no such file, and rows start from it; export it with the pretrain bundle, or "
            "take the rows with initialisation lits out"
        )
    record = read_record(weights)
    if record is None:
        raise LiversegError(f"{weights}: no record says what these weights are; run the pretrain bundle's export")
    own = label_names(PRETRAIN_LABELS)
    if record.labels != own:
        raise LiversegError(
            f"{weights}: its labels are {', '.join(record.labels) or 'none'}; weights of pre-training have "
            f"{', '.join(own)}: export them with the pretrain bundle"
        )
    paths = [study.datalist, *(path for fold in lists if is_file(path := fold_list_path(study, fold)))]
    if record.datalist_sha256 in map(file_hash, paths):
        raise LiversegError(
            f"{weights}: trained on data list {record.datalist_name}, which is this study's own: its held-out patients "
            "were learnt from; pre-train on other patients"
        )
