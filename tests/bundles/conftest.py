"""Inputs of the bundles' commands, which tests may damage."""

import json

import numpy as np
import pytest


@pytest.fixture
def tree(lits_tree, tmp_path):
    """Links to the phantom tree's volumes and a copied list, which tests may damage."""
    folder = tmp_path / "tree"
    folder.mkdir()
    for path in lits_tree.glob("*.nii.gz"):
        (folder / path.name).symlink_to(path)
    content = json.loads((lits_tree / "datalist.json").read_text(encoding="utf-8"))
    items = [*content["training"], *content["test"]]
    for fold, item in enumerate(items):  # volume 1 is in training, whatever the split was
        item["fold"] = 0 if item["image"] == "volume-1.nii.gz" else fold % 2
    (folder / "datalist.json").write_text(json.dumps({**content, "training": items, "test": []}))
    return folder


@pytest.fixture
def ct_folder(tmp_path, write_nifti):
    """One small CT of noise."""
    folder = tmp_path / "ct"
    folder.mkdir()
    write_nifti(folder / "a.nii.gz", np.random.default_rng(0).integers(-1000, 1000, (32, 40, 4)).astype(np.int16))
    return folder
