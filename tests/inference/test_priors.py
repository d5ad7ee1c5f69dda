"""Prior odds change types by Bayes' rule, and nothing else."""

import numpy as np
import pytest

from liverseg.errors import LiversegError
from liverseg.inference.lesions import find_lesions
from liverseg.inference.prediction import SlabPrediction
from liverseg.inference.transforms import with_type_priors
from liverseg.labels import LESION_TYPES

ROWS = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]], np.float32)


def prediction(rows=ROWS):
    labels = np.ones((1, 1, 2 + len(rows)), np.uint8)
    labels[..., 2:] = 2
    return SlabPrediction(labels, rows)


def priors(*odds):
    return dict(zip(LESION_TYPES, odds, strict=True))


def test_bayes_rule_by_hand():
    found = with_type_priors(prediction(), priors(1, 2, 5)).type_probabilities
    assert found == pytest.approx(np.array([[0.6, 0.6, 0.5], [0.2, 1.0, 1.5]]) / [[1.7], [2.7]])
    assert found.dtype == np.float32


def test_only_proportions_matter_and_equal_ones_change_nothing():
    assert with_type_priors(prediction(), priors(3, 3, 3)).type_probabilities == pytest.approx(ROWS)
    few, many = (with_type_priors(prediction(), priors(*odds)) for odds in ((0.1, 0.2, 0.5), (10, 20, 50)))
    assert few.type_probabilities == pytest.approx(many.type_probabilities)


def test_outlines_stay_and_types_change():
    plain, known = (
        find_lesions(result, 1.0) for result in (prediction(), with_type_priors(prediction(), priors(1, 1, 99)))
    )
    assert ((plain.inside >= 2) == (known.inside >= 2)).all()
    assert (set(plain.inside[plain.inside >= 2]), set(known.inside[known.inside >= 2])) == ({2}, {4})


def test_a_type_that_is_as_good_as_impossible_leaves_numbers():
    certain = prediction(np.array([[1.0, 0.0, 0.0]], np.float32))
    found = with_type_priors(certain, priors(1e-60, 1, 1)).type_probabilities
    assert np.isfinite(found).all() and found.sum() == pytest.approx(1)


def test_a_ct_without_lesions_has_none_with_priors():
    empty = SlabPrediction(np.zeros((1, 2, 2), np.uint8), np.zeros((0, 1), np.float32))
    assert with_type_priors(empty, priors(1, 1, 1)) is empty


def test_priors_of_other_types_are_refused():
    with pytest.raises(LiversegError, match="type priors of cyst; they are for a network that names"):
        with_type_priors(prediction(), {"cyst": 1.0})
    with pytest.raises(LiversegError, match="they are for a network that names"):
        with_type_priors(prediction(np.ones((2, 1), np.float32)), priors(1, 1, 1))
