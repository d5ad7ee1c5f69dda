"""What is known of a patient before the CT is looked at, brought into the probabilities of the lesion types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from liverseg.errors import LiversegError
from liverseg.inference.prediction import SlabPrediction
from liverseg.labels import LESION_TYPES

__all__ = ["with_type_priors"]


def with_type_priors(prediction: SlabPrediction, priors: Mapping[str, float]) -> SlabPrediction:
    """A prediction whose type probabilities are those of a patient with these odds of each type.

    Bayes' rule for a network that has learnt from other proportions (Saerens, Latinne and Decaestecker, Neural
    Computation 14, 2002): each probability is multiplied by the prior of its type over that of the training, and all
    are scaled to sum to 1. That of the training is taken to be the same for every type; this is ours, since records of
    weights do not tell it.

    Args:
        prediction: of a network that names types.
        priors: by type, above 0; only their proportions matter.

    Raises:
        LiversegError: if they are not of the network's types.
    """
    if not len(prediction.type_probabilities):
        return prediction
    if prediction.type_probabilities.shape[1] != len(LESION_TYPES) or set(priors) != set(LESION_TYPES):
        raise LiversegError(
            f"type priors of {', '.join(priors)}; they are for a network that names {', '.join(LESION_TYPES)}"
        )
    weighted = prediction.type_probabilities * np.array([priors[name] for name in LESION_TYPES], np.float32)
    # float32 can lose all of a row whose likely types have a prior near 0: nothing is known of such a voxel then
    sums = weighted.sum(axis=1, keepdims=True)
    rows = np.where(sums > 0, weighted / np.maximum(sums, np.finfo(np.float32).tiny), prediction.type_probabilities)
    return replace(prediction, type_probabilities=rows)
