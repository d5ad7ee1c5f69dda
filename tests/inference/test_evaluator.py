"""From a folder of volumes to all files of a case, with real networks, and with failing cases."""

import hashlib
import io
import json
import shutil
import sys
import threading

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.image import imread
from monai.data import Dataset
from monai.transforms import Compose

from liverseg.errors import ExitCode, LiversegError, OutputError
from liverseg.inference import (
    CaseEvaluator,
    CaseWriter,
    FindLesionsd,
    LiverCascade,
    MeasureLesionsd,
    ReadCTd,
    SlabInferer,
    SomeCasesFailed,
    find_cases,
)
from liverseg.inference.lesion_measurements import lesion_columns
from liverseg.labels import JOINT_LABELS, PRETRAIN_LABELS
from liverseg.networks import SEResUNet, export_weights, read_record
from liverseg.results.case_folder import CASE_FILES


def evaluator(source, output, weights, channels=5, min_lesion_ml=0.1):
    return CaseEvaluator(
        dataset=Dataset(find_cases(source), transform=Compose([ReadCTd()])),
        network=SEResUNet("small", out_channels=channels),
        inferer=LiverCascade(SlabInferer()),
        postprocessing=Compose([FindLesionsd(min_lesion_ml=min_lesion_ml), MeasureLesionsd(num_channels=channels)]),
        writer=CaseWriter(output),
        device="cpu",
        weights=weights,
        settings={"min_lesion_ml": min_lesion_ml},
        progress=False,
    )


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.integration
@pytest.mark.parametrize(("channels", "labels"), [(5, JOINT_LABELS), (3, PRETRAIN_LABELS)])
def test_every_file_of_a_case(channels, labels, ct_file, joint_weights, pretrain_weights, tmp_path, capsys):
    weights = joint_weights if channels == 5 else pretrain_weights
    evaluator(ct_file.parent, tmp_path / "out", weights, channels).run()
    folder = tmp_path / "out" / "ct"
    assert sorted(path.name for path in folder.iterdir()) == sorted(CASE_FILES)

    written, ids = nib.load(folder / "labels.nii.gz"), nib.load(folder / "lesions.nii.gz")
    assert (written.get_data_dtype(), ids.get_data_dtype()) == (np.uint8, np.uint16)
    label_map, id_map = np.asarray(written.dataobj), np.asarray(ids.dataobj)
    assert label_map.shape == id_map.shape == (38, 34, 9)

    table = pd.read_csv(folder / "lesions.csv")
    assert tuple(table.columns) == lesion_columns(labels)
    rows = table.astype(object).where(table.notna(), None)  # an empty cell is null in JSON
    assert rows.to_dict("records") == json.loads((folder / "lesions.json").read_text(encoding="utf-8"))
    assert len(table) >= 1  # a random network finds something everywhere
    names = {label.name: label.index for label in labels}
    for row in table.to_dict("records"):
        assert (label_map[id_map == row["id"]] == names[row["type"]]).all()
        assert (id_map == row["id"]).sum() * 0.012 == pytest.approx(row["volume_ml"], abs=1e-4)
    assert ((id_map > 0) == (label_map >= 2)).all()

    assert imread(folder / "preview.png").ndim == 3
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    assert record["status"] == "done"
    assert record["input"] == {"path": str(ct_file), "sha256": sha256(ct_file), "bytes": ct_file.stat().st_size}
    assert record["weights"]["sha256"] == sha256(weights)
    assert record["weights"]["record"]["arguments"]["size"] == "small"
    assert record["weights"]["record"]["metrics"] == {"val_lesion_dice": None}
    assert set(record["seconds"]) == {"read", "liver", "network", "lesions", "write"}
    assert record["grid"]["shape"] == [38, 34, 9]
    assert record["grid"]["affine"] == nib.load(ct_file).affine.tolist()
    assert record["grid"]["spacing_mm"] == [2.0, 2.0, 3.0]
    assert record["lesions"] == len(table) == sum(record["lesions_by_type"].values())
    assert record["liver_ml"] == pytest.approx((label_map > 0).sum() * 0.012, abs=1e-3)
    assert record["settings"] == {"min_lesion_ml": 0.1}
    assert record["versions"]["torch"] == torch.__version__
    assert record["precision"] in ("float32", "bfloat16")
    # the liver of a random network reaches every side
    assert record["warnings"][0].startswith("the liver reaches the lowest and the highest slice")
    assert record["findings"][0] == {"code": "liver_cut_off", "sentence": record["warnings"][0]}
    assert [finding["sentence"] for finding in record["findings"]] == record["warnings"]
    assert (record["contrast_phase"]["phase"], record["contrast_phase"]["aorta_hu"]) == ("unknown", None)
    assert (record["lesions_below_threshold"], table["lesion_score"].between(0.2, 1).all()) == (0, True)
    out, _ = capsys.readouterr()
    assert out.startswith("ct: liver ")
    assert out.count("\n") == 1


@pytest.mark.integration
def test_no_liver_is_a_result_with_a_warning(ct_file, joint_weights, tmp_path, capsys):
    # a head that always predicts background
    network = SEResUNet("small", out_channels=5)
    network.load_state_dict({name: torch.zeros_like(value) for name, value in network.state_dict().items()})
    weights = tmp_path / "blind.safetensors"
    export_weights(weights, network.state_dict(), read_record(joint_weights))
    evaluator(ct_file, tmp_path / "out", weights).run()
    folder = tmp_path / "out" / "ct"
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    assert (record["liver_ml"], record["lesions"], record["warnings"]) == (0, 0, ["no liver found"])
    assert record["findings"] == [{"code": "no_liver", "sentence": "no liver found"}]
    assert record["contrast_phase"] is None
    assert (folder / "lesions.csv").read_text(encoding="utf-8").strip() == ",".join(lesion_columns(JOINT_LABELS))
    assert json.loads((folder / "lesions.json").read_text(encoding="utf-8")) == []
    assert not np.asarray(nib.load(folder / "labels.nii.gz").dataobj).any()
    assert (folder / "preview.png").stat().st_size > 1000
    assert "ct: warning: no liver found" in capsys.readouterr().err


@pytest.mark.integration
def test_a_half_written_case_is_done_again(ct_file, joint_weights, tmp_path):
    run = evaluator(ct_file, tmp_path / "out", joint_weights)
    run.run()
    folder = tmp_path / "out" / "ct"
    contents = {name: (folder / name).read_bytes() for name in CASE_FILES if name != "record.json"}
    (folder / "record.json").unlink()
    (folder / "lesions.csv").write_text("cut off in the")
    (folder / ".unfinished-labels.nii.gz").write_bytes(b"half")
    run.run()
    assert sorted(path.name for path in folder.iterdir()) == sorted(CASE_FILES)
    assert {name: (folder / name).read_bytes() for name in contents} == contents


BAD = {
    "four": lambda array: np.stack([array, array], axis=3),
    "normalised": lambda array: ((array + 1000) / 2000).astype(np.float32),
    "nan": lambda array: np.where(array > 150, np.nan, array).astype(np.float32),
    "huge": lambda array: array.astype(np.int32) * 1000,
    "complex": lambda array: array.astype(np.complex64),
}
WORDS = {
    "four": "4 dimensions",
    "normalised": "do not look like a CT in HU",
    "nan": "NaN or infinite",
    "huge": "HU are between",
    "complex": "complex64",
    "cut": "truncated",
    "text": "cannot be read as NIfTI",
}


@pytest.fixture
def bad_file(ct_array, tmp_path):
    def make(kind, folder):
        folder.mkdir(exist_ok=True)
        path = folder / f"{kind}.nii.gz"
        if kind == "text":
            path.write_text("no volume")
        else:
            array = BAD[kind](ct_array) if kind in BAD else ct_array
            nib.save(nib.Nifti1Image(array, np.diag([2.0, 2.0, 3.0, 1.0])), path)
        if kind == "cut":
            path.write_bytes(path.read_bytes()[:4000])
        return path

    return make


@pytest.mark.parametrize("kind", WORDS)
def test_one_bad_file_is_its_own_error_and_leaves_nothing(kind, bad_file, joint_weights, tmp_path):
    path = bad_file(kind, tmp_path / "in")
    with pytest.raises(LiversegError, match=WORDS[kind]) as caught:
        evaluator(path, tmp_path / "out", joint_weights).run()
    assert caught.value.exit_code == ExitCode.FAILED
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.integration
def test_a_bad_case_does_not_stop_the_others(bad_file, ct_file, joint_weights, tmp_path, capsys):
    bad_file("nan", ct_file.parent)
    bad_file("cut", ct_file.parent)
    shutil.copy(ct_file, ct_file.parent / "z-last.nii.gz")
    with pytest.raises(SomeCasesFailed, match="2 of 4 cases failed: cut, nan") as caught:
        evaluator(ct_file.parent, tmp_path / "out", joint_weights).run()
    assert caught.value.exit_code == ExitCode.SOME_CASES_FAILED
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["ct", "z-last"]
    assert all((tmp_path / "out" / case / "record.json").is_file() for case in ("ct", "z-last"))
    captured = capsys.readouterr()
    failures = [line for line in captured.err.splitlines() if "failed:" in line]
    assert len(failures) == 2
    assert "NaN or infinite" in failures[1]
    assert "Traceback" not in captured.err
    assert [line.split(":")[0] for line in captured.out.splitlines()] == ["ct", "z-last"]


def test_all_cases_failing_is_a_failure(bad_file, joint_weights, tmp_path):
    bad_file("nan", tmp_path / "in")
    bad_file("text", tmp_path / "in")
    with pytest.raises(LiversegError, match="2 of 2 cases failed") as caught:
        evaluator(tmp_path / "in", tmp_path / "out", joint_weights).run()
    assert caught.value.exit_code == ExitCode.FAILED


def test_an_output_that_cannot_be_written_is_reported(ct_file, joint_weights, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "ct").write_text("in the way")
    with pytest.raises(OutputError, match="ct: the case cannot be written"):
        evaluator(ct_file, tmp_path / "out", joint_weights).run()


def test_weights_are_checked_before_anything_is_written(ct_file, joint_weights, pretrain_weights, tmp_path):
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(joint_weights.read_bytes()[:5000])
    for weights, words in (
        (tmp_path / "none.pt", "no such weights file"),
        (cut, "truncated or foreign"),
        (pretrain_weights, "does not fit: out_channels 3 in the file, 5 in the network"),
    ):
        with pytest.raises(LiversegError, match=words):
            evaluator(ct_file, tmp_path / "out", weights).run()
    run = evaluator(ct_file, tmp_path / "out", joint_weights)
    run.pipeline.cascade = LiverCascade(SlabInferer(hu_window=(-100, 300)))
    with pytest.raises(LiversegError, match="HU window"):
        run.run()
    assert not (tmp_path / "out").exists()


@pytest.mark.integration
def test_smaller_lesions_can_be_left_out_and_nonsense_is_refused(ct_file, joint_weights, tmp_path):
    evaluator(ct_file, tmp_path / "out", joint_weights, min_lesion_ml=10_000).run()
    record = json.loads((tmp_path / "out" / "ct" / "record.json").read_text(encoding="utf-8"))
    assert record["lesions"] == 0
    assert record["lesions_dropped"] >= 1
    for wrong in (-1, float("nan"), "much", True):
        with pytest.raises(LiversegError, match="min_lesion_ml is"):
            FindLesionsd(min_lesion_ml=wrong)


class Watched:
    """Transform that lists the cases it reads, and waits for permission."""

    def __init__(self, transform):
        self.transform = transform
        self.reads, self.let = [], threading.Event()

    def __call__(self, item):
        self.let.wait(60)
        self.reads.append(item["case"])
        return self.transform(item)


def test_wrong_weights_are_reported_before_the_ct_is_read(ct_file, pretrain_weights, tmp_path):
    run = evaluator(ct_file, tmp_path / "out", pretrain_weights)
    run.pipeline.preprocessing = watched = Watched(run.dataset.transform)
    try:
        with pytest.raises(LiversegError, match="out_channels 3 in the file, 5 in the network"):
            run.prepare()
        assert watched.reads == []
    finally:
        watched.let.set()


@pytest.mark.integration
def test_the_first_case_is_read_once(ct_file, joint_weights, tmp_path):
    shutil.copy(ct_file, ct_file.with_name("next.nii.gz"))
    run = evaluator(ct_file.parent, tmp_path / "out", joint_weights)
    run.pipeline.preprocessing = watched = Watched(run.dataset.transform)
    watched.let.set()
    run.prepare()
    run.prepare()
    run.run()
    assert sorted(watched.reads) == ["ct", "next"]


@pytest.mark.integration
def test_the_bar_moves_within_a_case(ct_file, joint_weights, tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    run = evaluator(ct_file.parent, tmp_path / "out", joint_weights)
    run.progress = True
    monkeypatch.setattr(sys, "stderr", terminal)
    run.run()
    bars = [line for line in terminal.getvalue().split("\r") if "case [" in line]
    assert any(line.startswith("ct, liver:   0%") for line in bars)
    within = [line for line in bars if line.startswith("ct, network: ") and "| 0.0/1 case" not in line]
    assert len(within) > 2 and "100%" in within[-1]
