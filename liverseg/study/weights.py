"""The weights a study starts from: there, and of pre-training."""

from __future__ import annotations

from liverseg.errors import LiversegError
from liverseg.labels import PRETRAIN_LABELS, label_names
from liverseg.networks import read_record
from liverseg.study.config import StudyDefinition
from liverseg.utils.files import is_file

__all__ = ["check_lits_weights"]


def check_lits_weights(study: StudyDefinition) -> None:
    """Refuse weights that are not those of pre-training, such as a joint network's, which has seen typed patients.

    Whether a patient of the study was pre-trained on is not to be seen from weights: `liverseg datalist check
    --against` compares the two lists.

    Raises:
        LiversegError: if a row starts from `lits` and the weights are not there, have no record, or name lesion types.
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
