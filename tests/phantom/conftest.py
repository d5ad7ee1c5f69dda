"""Small phantoms, made once and shared by the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from liverseg.phantom import write_cohort, write_lits_tree
from liverseg.phantom.patient import Coverage, Phantom, make_phantom


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    """Return a complete abdomen with its organ map."""
    seed = np.random.SeedSequence((11, 3))
    return make_phantom(seed, matrix=160, coverage=Coverage.ABDOMEN, main_type="metastasis", organs=True)


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a typed cohort of five patients."""
    root = tmp_path_factory.mktemp("phantom") / "cohort"
    return write_cohort(root, patients=5, slices=12, matrix=64, seed=4, workers=1, progress=False)


@pytest.fixture(scope="session")
def lits_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a LiTS-like tree of two volumes."""
    root = tmp_path_factory.mktemp("phantom") / "lits"
    return write_lits_tree(root, volumes=2, matrix=64, seed=4, workers=1, progress=False)
