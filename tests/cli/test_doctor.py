"""`liverseg doctor` describes this machine and the default weights of predict."""

import json
import platform

import pytest
import torch

from liverseg.cli.main import main
from liverseg.networks import SEResUNet, SlabInput, WeightsRecord, package_versions, save_state


def examined(capsys, *options):
    assert main(["doctor", "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def test_doctor_shows_versions_threads_and_bundles(capsys, monkeypatch):
    monkeypatch.delenv("LIVERSEG_WEIGHTS", raising=False)
    facts = examined(capsys, "--torch")
    assert facts["software"]["torch"] == torch.__version__ == facts["torch"]["version"]
    assert facts["backends"]["torch"].startswith(torch.__version__)
    assert facts["software"]["python"] == platform.python_version()
    assert facts["torch"]["threads"] == torch.get_num_threads()
    assert facts["processor"]["memory"].split()[1].startswith("GiB")
    assert facts["bundles"]["liver_lesion_joint"].endswith("liver_lesion_joint")
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [section for section in facts if section != "torch"]


@pytest.fixture
def weights(tmp_path):
    network = SEResUNet("small", out_channels=3)
    record = WeightsRecord(
        "SEResUNet", network.arguments(), SlabInput((-200.0, 250.0)), ("background", "liver", "lesion"), "some list",
        "ab" * 32, 7, {}, package_versions(),
    )  # fmt: skip
    save_state(tmp_path / "model.pt", network.state_dict(), record)
    return tmp_path / "model.pt"


def test_doctor_describes_the_weights(weights, capsys, monkeypatch):
    monkeypatch.setenv("LIVERSEG_WEIGHTS", str(weights))
    facts = examined(capsys)["weights"]
    assert facts["default"] == f"{weights} ($LIVERSEG_WEIGHTS)"
    assert facts["network"] == "SEResUNet, small"
    assert facts["trained on"] == "some list, 7 epochs"
    weights.with_suffix(".json").write_text("no record")
    assert "model.json" in examined(capsys)["weights"]["usable"]
    weights.unlink()
    assert examined(capsys)["weights"] == {"default": "none: $LIVERSEG_WEIGHTS has none; give --weights, or train some"}
