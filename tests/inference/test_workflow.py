"""Both bundles' inference configs as MONAI workflows."""

import json
import logging
import sys
from dataclasses import replace

import pandas as pd
import pytest
from monai.bundle import ConfigWorkflow

from liverseg.errors import LiversegError
from liverseg.imageio.volume import read_volume
from liverseg.inference import find_bundle
from liverseg.inference.predict import run_inference
from liverseg.labels import LESION_TYPES
from liverseg.networks import export_weights, read_record, read_weights


@pytest.fixture
def weights_of(joint_weights, pretrain_weights):
    return {"liver_lesion_joint": joint_weights, "liver_lesion_pretrain": pretrain_weights}


@pytest.mark.parametrize("bundle", ["liver_lesion_joint", "liver_lesion_pretrain"])
def test_the_workflow_has_monais_properties(bundle, weights_of, ct_file, tmp_path):
    workflow = ConfigWorkflow(
        str(find_bundle(bundle) / "configs" / "inference.yaml"),
        workflow_type="inference",
        logging_file=False,
        dataset_dir=str(ct_file.parent),
        output_dir=str(tmp_path / "out"),
        weights=str(weights_of[bundle]),
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    assert workflow.network_def.out_channels == (5 if "joint" in bundle else 3)
    assert workflow.network_def.size == "small"  # from the weights' record
    assert len(workflow.dataset) == 1


@pytest.mark.integration
def test_the_pretrain_bundle_finds_untyped_lesions(pretrain_weights, ct_file, tmp_path):
    bundle = find_bundle("liver_lesion_pretrain")
    run_inference(ct_file, tmp_path / "out", weights=pretrain_weights, bundle=bundle, progress=False)
    assert set(pd.read_csv(tmp_path / "out" / "ct" / "lesions.csv")["type"]) == {"lesion"}
    assert json.loads((tmp_path / "out" / "ct" / "record.json").read_text(encoding="utf-8"))["labels"]["2"] == "lesion"


@pytest.mark.integration
def test_threshold_and_ranges_are_those_of_the_weights_record_by_default(joint_weights, ct_file, tmp_path):
    ranges = {kind: {"mean_hu": (2000.0, 2100.0)} for kind in LESION_TYPES}  # unlike any lesion of the CT
    plain = run(ct_file, tmp_path / "plain", joint_weights, min_confidence=0.0)
    scores = plain[1]["lesion_score"]
    assert plain[1]["indeterminate_because"].isna().all()
    threshold = float(scores.sort_values().iloc[-2:].mean()) if len(scores) > 1 else float(scores[0])
    guarded = tmp_path / "guarded.safetensors"
    record = replace(read_record(joint_weights), lesion_threshold=threshold, lesion_ranges=ranges)
    export_weights(guarded, read_weights(joint_weights), record)
    written, table = run(ct_file, tmp_path / "guarded", guarded, min_confidence=0.0)
    assert written["settings"]["lesion_threshold"] == threshold
    assert written["lesions"] == len(table) == (scores >= threshold - 1e-4).sum()
    assert written["lesions"] + written["lesions_below_threshold"] == len(scores)
    assert set(table["type"]) == {"indeterminate"}
    assert table["indeterminate_because"].str.contains("like no lesion of the training: a mean of").all()
    labels = read_volume(tmp_path / "guarded" / "ct" / "labels.nii.gz").array
    assert set(labels[labels >= 2]) == {5}
    off = run(ct_file, tmp_path / "off", guarded, min_confidence=0.0, lesion_threshold=0.0, lesion_ranges="null")
    assert off[1].equals(plain[1])
    assert off[0]["settings"]["lesion_ranges"] is None
    with pytest.raises(LiversegError, match="lesion_threshold is 2; it must be a number, 0 to 1"):
        run_inference(ct_file, tmp_path / "no", weights=joint_weights, lesion_threshold=2)
    with pytest.raises(LiversegError, match="lesion_ranges is 'wide'; it must be null"):
        run_inference(ct_file, tmp_path / "no", weights=joint_weights, lesion_ranges="wide")


def run(ct, output, weights, **keys):
    """Return record and lesion table of a case."""
    run_inference(ct, output, weights=weights, progress=False, preview=False, **keys)
    record = json.loads((output / "ct" / "record.json").read_text(encoding="utf-8"))
    return record, pd.read_csv(output / "ct" / "lesions.csv")


@pytest.mark.integration
def test_errors_come_through_monais_wrapping(ct_file, tmp_path, monkeypatch):
    monkeypatch.delenv("LIVERSEG_WEIGHTS", raising=False)
    with pytest.raises(LiversegError, match="no such weights file"):
        run_inference(ct_file, tmp_path / "out", weights=tmp_path / "none.safetensors")
    with pytest.raises(LiversegError, match="not a bundle's folder"):
        run_inference(ct_file, tmp_path / "out", bundle=tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.integration
def test_the_process_keeps_its_hook_and_its_loggers(ct_file, tmp_path, capsys):
    loggers = [logging.getLogger(name) for name in ("ignite", "monai.bundle.workflows")]
    before = sys.excepthook, [logger.level for logger in loggers]
    with pytest.raises(LiversegError, match="no such weights file"):
        run_inference(ct_file, tmp_path / "out", weights=tmp_path / "none.safetensors")
    assert (sys.excepthook, [logger.level for logger in loggers]) == before
    assert "Engine run is terminating" not in capsys.readouterr().err
