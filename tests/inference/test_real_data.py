"""Real CT goes through with its geometry; what a random network finds there means nothing."""

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from liverseg.inference.workflow import run_inference

ROOT = Path(os.environ.get("LIVERSEG_REAL_DATA") or Path(__file__).parents[3] / "shared" / "realdata")


@pytest.mark.parametrize("name", ["hcc_048/hcc_048_portal.nii.gz", "totalsegmentator_3mm/example_ct_sm.nii.gz"])
def test_a_real_ct_runs_through(name, joint_weights, tmp_path):
    source = ROOT / name
    if not source.is_file():
        pytest.skip(f"{source} is not here; set LIVERSEG_REAL_DATA to the folder of real CT")
    ct = nib.load(source)
    first = int(ct.shape[2] * 0.55)
    part = tmp_path / "part.nii.gz"  # a few slices of the middle, on their own place of the grid
    nib.save(ct.slicer[:, :, first : first + 6], part)
    run_inference(part, tmp_path / "out", weights=joint_weights, progress=False)
    folder = tmp_path / "out" / "part"
    expected = nib.load(part)
    for result in ("labels.nii.gz", "lesions.nii.gz"):
        written = nib.load(folder / result)
        assert written.shape == expected.shape
        np.testing.assert_array_equal(written.affine, expected.affine)
        for code in ("qform_code", "sform_code", "xyzt_units"):
            assert int(written.header[code]) == int(expected.header[code])
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    assert record["warnings"] == []
