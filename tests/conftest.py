"""What several test folders share: small phantoms, written once a session."""

import nibabel as nib
import numpy as np
import pytest

from liverseg.datalists import build_datalist
from liverseg.phantom import write_cohort, write_lits_tree


@pytest.fixture(scope="session")
def lits_tree(tmp_path_factory):
    """Six LiTS-like phantoms with a data list: 3 folds, two test volumes."""
    root = write_lits_tree(tmp_path_factory.mktemp("lits"), volumes=6, matrix=64, seed=5, workers=1, progress=False)
    build_datalist("lits", root, folds=3, test=0.33)
    return root


@pytest.fixture(scope="session")
def cohort_tree(tmp_path_factory):
    """Twelve typed phantoms, 24 slices, with a data list: 3 folds, three test patients or so."""
    root = tmp_path_factory.mktemp("cohort")
    write_cohort(root, patients=12, slices=24, matrix=64, seed=6, workers=1, progress=False)
    build_datalist("cohort", root, folds=3, test=0.25)
    return root


@pytest.fixture
def write_nifti():
    """A function that writes an array as NIfTI, 2 mm voxels unless an affine is given, and returns the path."""

    def write(path, array, affine=None):
        affine = np.diag([2.0, 2.0, 2.0, 1.0]) if affine is None else affine
        nib.save(nib.Nifti1Image(array, affine), path)
        return path

    return write
