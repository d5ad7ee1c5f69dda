"""Both bundles' inference configs as MONAI workflows."""

import json
import logging
import sys

import pandas as pd
import pytest
from monai.bundle import ConfigWorkflow

from liverseg.errors import LiversegError
from liverseg.inference import find_bundle
from liverseg.inference.workflow import run_inference


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
