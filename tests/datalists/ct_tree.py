"""A small valid tree for tests: three patients with air, fat, a liver off the middle, lesions and noise."""

import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np

from liverseg.datalists.check import check_datalist

VOLUME, LABEL = "volume-0.nii.gz", "segmentation-0.nii.gz"
SHAPE = (40, 36, 12)
AFFINE = np.array([[-2.0, 0, 0, 37], [0, -2.0, 0, 29], [0, 0, 4.0, -810], [0, 0, 0, 1]])  # LPS
LABELS = {"0": "background", "1": "liver", "2": "lesion"}
TYPED = {"0": "background", "1": "liver", "2": "cyst", "3": "hemangioma", "4": "metastasis"}


def make_case(seed):
    """Return int16 HU and uint8 label map of one patient."""
    rng = np.random.default_rng(seed)
    i, j, k = np.indices(SHAPE)

    def ball(center, radii):
        return sum(((axis - c) / r) ** 2 for axis, c, r in zip((i, j, k), center, radii, strict=True)) < 1

    hu = np.full(SHAPE, -1000.0)
    hu[((i - 20) / 18) ** 2 + ((j - 18) / 16) ** 2 < 1] = -100
    hu[((i - 20) / 15) ** 2 + ((j - 18) / 13) ** 2 < 1] = 50
    hu[ball((28, 14, 7), (4, 4, 9))] = -700  # bowel with air, where a flipped liver would be
    liver, lesion = ball((12, 18, 4), (7, 8, 4)), ball((12, 18, 4), (2, 3, 2))
    hu[liver], hu[lesion] = 110, 40
    label = liver.astype(np.uint8) + lesion
    return np.rint(hu + rng.normal(0, 10, SHAPE)).astype(np.int16), label


def save(path, array, affine=AFFINE, change=None):
    """Write a NIfTI with both codes set; `change` edits the header last."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    content = bytearray(image.to_bytes())
    if change:  # after nibabel has written it, since nibabel would repair the header
        header = nib.Nifti1Header(bytes(content[:348]), check=False)
        change(header)
        content[:348] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(content), 1) if path.name.endswith(".gz") else bytes(content))
    return path


def write_tree(root):
    """Write `volume-N.nii.gz`, `segmentation-N.nii.gz` for three patients, and datalist.json; return its content."""
    for number in range(3):
        hu, label = make_case(number)
        save(root / f"volume-{number}.nii.gz", hu)
        save(root / f"segmentation-{number}.nii.gz", label)
    training = [
        {"image": f"volume-{n}.nii.gz", "label": f"segmentation-{n}.nii.gz", "patient": f"p{n}", "fold": n % 2}
        for n in range(2)
    ]
    test = [{"image": "volume-2.nii.gz", "label": "segmentation-2.nii.gz", "patient": "p2"}]
    return write_list(root, {"name": "tree", "labels": LABELS, "training": training, "test": test})


def write_list(root, content):
    """Write datalist.json again."""
    (Path(root) / "datalist.json").write_text(json.dumps(content))
    return content


def check(root, **settings):
    """Return the findings of a tree."""
    return check_datalist(root / "datalist.json", root, progress=False, **settings)


def found_in(root):
    """Return file, level and defect of each finding."""
    return [tuple(row) for row in check(root)[["file", "level", "defect"]].to_numpy()]
