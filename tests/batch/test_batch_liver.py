"""Liver masks of a batch: a folder of masks, and the liver's label in them."""

import json

import nibabel as nib
import numpy as np
import pytest
from batch_runs import happened, log, write_ct

from liverseg.cli.main import main
from liverseg.labels import LIVER

pytestmark = pytest.mark.integration

AFFINE = np.diag([-2.0, -2.0, 4.0, 1.0])
"""Shape of the CTs of `write_ct`."""


@pytest.fixture
def cases(tmp_path):
    """Two CTs with a mask each, of organs 1 and 5, each half of the volume."""
    (tmp_path / "masks").mkdir()
    organs = np.ones((32, 40, 4), np.uint8)
    organs[:16] = 5
    for number in range(2):
        write_ct(tmp_path / "in" / f"ct{number}.nii.gz", number)
        nib.save(nib.Nifti1Image(organs, AFFINE), tmp_path / "masks" / f"ct{number}.nii.gz")
    return tmp_path


@pytest.fixture
def batch(cases, worker_threads, weights):
    """Return a function that runs the batch with a value of --liver and returns its exit code."""

    def run(liver):
        arguments = ["batch", str(cases / "in"), str(cases / "out"), "--weights", str(weights), "--preview"]
        return main([*arguments, "--liver", str(liver)])

    return run


def test_folder_with_label_selects_the_liver_of_every_case(cases, batch, monkeypatch):
    monkeypatch.chdir(cases)
    assert batch("masks:5") == 0
    assert sorted(happened(cases / "out", "done")) == ["ct0", "ct1"]
    for case in ("ct0", "ct1"):
        record = json.loads((cases / "out" / case / "record.json").read_text(encoding="utf-8"))
        labels = np.asarray(nib.load(cases / "out" / case / "labels.nii.gz").dataobj)
        assert (labels[:16] > 0).all()
        assert not (labels[16:] == LIVER).any()  # lesions of untrained weights may reach beyond the mask
        assert record["input"]["liver"]["path"] == str(cases / "masks" / f"{case}.nii.gz")
        assert record["settings"]["liver"] == str(cases / "masks:5")


def test_folder_without_label_fails_the_cases_and_names_the_labels(cases, batch, capsys):
    assert batch(cases / "masks") == 1
    reasons = [line["reason"] for line in log(cases / "out") if line["event"] == "failed"]
    assert len(reasons) == 2
    assert all("labels 1, 5; say which one is the liver" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("liver", "code", "message"),
    [
        ("masks/ct0.nii.gz:5", 2, "one mask for 2 cases; give a folder with a mask for each"),
        ("none:5", 1, "none: no such mask or folder; take auto, none or a mask's path"),
        (" ", 2, "liver is empty; it must be auto, none or the path of a mask"),
    ],
)
def test_wrong_value_is_refused_before_any_case(liver, code, message, cases, batch, capsys, monkeypatch):
    monkeypatch.chdir(cases)
    assert batch(liver) == code
    assert message in capsys.readouterr().err
    assert not (cases / "out").exists()
