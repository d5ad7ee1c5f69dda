from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from liverseg.imageio.volume import Volume
from liverseg.inference import SlabPrediction
from liverseg.inference.lesions import find_lesions
from liverseg.inference.measurements import lesion_table
from liverseg.labels import JOINT_LABELS


def _turned(degrees, axis):
    turned = np.eye(3)
    first, second = (index for index in range(3) if index != axis)
    angle = np.radians(degrees)
    turned[first, first] = turned[second, second] = np.cos(angle)
    turned[first, second], turned[second, first] = -np.sin(angle), np.sin(angle)
    return turned


OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = _turned(9, 0) @ _turned(-12, 2) @ np.diag([1.5, -2.0, 4.0])
OBLIQUE[:3, 3] = (-30.0, 41.5, -612.25)
"""Affine rotated about two axes, with three spacings, and rows from front to back."""


@pytest.fixture(scope="session")
def make_case():
    """Return a function that makes a CT with a liver and two lesions, their table and labels.

    `order` permutes the file's axes and `flips` reverses them; positions in the patient do not change.
    """

    def make(
        shape=(48, 40, 16), affine=OBLIQUE, order=(0, 1, 2), flips=(), lesions=True, liver=True, labels=JOINT_LABELS
    ):
        i, j, k = np.meshgrid(*map(np.arange, shape), indexing="ij")
        half_i, half_j, half_k = (size / 2 for size in shape)
        hu = np.random.default_rng(5).normal(60, 40, shape).round().astype(np.int16)
        hu[((i - half_i) / half_i) ** 2 + ((j - half_j) / half_j) ** 2 > 1] = -1000
        marks = np.zeros(shape, np.uint8)
        if liver:
            inside = ((i - 0.7 * shape[0]) / 9) ** 2 + ((j - half_j) / 8) ** 2 + ((k - half_k) / 4) ** 2 < 1
            marks[inside] = 1
        if lesions:
            first, second = (int(0.7 * shape[0]) - 2, int(half_j) + 3, int(half_k)), (0, 0, 0)
            marks[first[0] - 2 : first[0] + 3, first[1] - 2 : first[1] + 2, first[2] - 1 : first[2] + 2] = 2
            second = (int(0.7 * shape[0]) + 3, int(half_j) - 4, int(half_k) - 1)
            marks[second[0] - 1 : second[0] + 2, second[1] - 1 : second[1] + 1, second[2] : second[2] + 2] = (
                len(labels) - 1
            )
        hu[marks >= 2] = 20
        turn = nib.orientations.axcodes2ornt("RAS")
        turn[:, 0] = np.argsort(order)
        turn[list(flips), 1] = -1
        to_own = nib.orientations.inv_ornt_aff(turn, shape)
        hu, marks = (nib.orientations.apply_orientation(array, turn) for array in (hu, marks))
        volume = Volume(hu, affine @ to_own, nib.Nifti1Header(), Path("ct.nii.gz"))
        axial = np.ascontiguousarray(Volume(marks, volume.affine, volume.header, volume.path).axial)
        types = len(labels) - 2
        shares = np.eye(types, dtype=np.float32)[axial[axial >= 2] - 2] * 0.7 + np.float32(0.3 / types)
        found = find_lesions(SlabPrediction(axial, shares), volume.voxel_ml, min_lesion_ml=0.0)
        table = lesion_table(found, volume, labels)
        return SimpleNamespace(volume=volume, lesions=found, table=table, labels=labels)

    return make
