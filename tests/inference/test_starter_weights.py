"""The included weights: their record, and their use as default."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from liverseg.bundle.paths import STARTER_FOLDER, find_bundle
from liverseg.evaluation.scores import dice
from liverseg.inference.predict import run_inference
from liverseg.labels import LESION_TYPES
from liverseg.networks import read_record, read_weights
from liverseg.networks.record import tensors_hash
from liverseg.phantom.patient import Coverage, make_phantom
from liverseg.utils.files import sha256_file


@pytest.mark.parametrize(("name", "labels"), [("joint", 5), ("pretrain", 3)])
def test_they_are_what_their_records_say(name, labels):
    path = STARTER_FOLDER / f"{name}.safetensors"
    record = read_record(path)
    assert record.tensors_sha256 == tensors_hash(load_file(path))
    assert all(tensor.dtype != torch.float16 for tensor in read_weights(path).values())
    assert (record.arguments["size"], len(record.labels), record.input_spec.pixel_mm) == ("lite", labels, 1.5)
    assert record.input_spec.hu_window == (0, 250)
    assert record.datalist_name == f"starter-{name}"
    assert record.lesion_threshold > 0
    if labels == 5:
        assert set(record.lesion_ranges) == set(LESION_TYPES)


def test_their_licence_and_card_are_beside_them():
    licence = (STARTER_FOLDER / "LICENSE").read_text(encoding="utf-8")
    assert "CC BY-SA 4.0" in licence and "Medical Segmentation Decathlon" in licence and "HCC-TACE-Seg" in licence
    card = (STARTER_FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "Not a medical device" in card and "never tested on real lesions" in card
    assert sum(path.stat().st_size for path in STARTER_FOLDER.iterdir()) < 16e6


def outline(phantom, tmp_path, **arguments):
    """Return labels and record of a phantom's CT, computed with the default weights."""
    nib.save(nib.Nifti1Image(phantom.image, phantom.affine), tmp_path / "ct.nii.gz")
    run_inference(tmp_path / "ct.nii.gz", tmp_path / "out", preview=False, progress=False, **arguments)
    record = json.loads((tmp_path / "out" / "ct" / "record.json").read_text(encoding="utf-8"))
    return np.asarray(nib.load(tmp_path / "out" / "ct" / "labels.nii.gz").dataobj), record


@pytest.mark.integration
@pytest.mark.parametrize("name", ["joint", "pretrain"])
def test_where_none_are_given_they_outline_the_liver(name, tmp_path, monkeypatch):
    monkeypatch.delenv("LIVERSEG_WEIGHTS", raising=False)
    bundle = find_bundle(f"liver_lesion_{name}")
    if (bundle / "models" / "model.pt").exists():
        pytest.skip(f"{bundle} has been trained, and has weights of its own")
    phantom = make_phantom(
        np.random.SeedSequence(5), matrix=192, coverage=Coverage.LIVER, main_type="metastasis", annotated=True
    )
    labels, record = outline(phantom, tmp_path, bundle=bundle)
    assert record["weights"]["sha256"] == sha256_file(STARTER_FOLDER / f"{name}.safetensors")
    true = phantom.label > 0
    assert dice(((labels > 0) & true).sum(), (labels > 0).sum(), true.sum()) > 0.9
