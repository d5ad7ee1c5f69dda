"""`liverseg predict` and the bundle's inference command: the same files, errors and exit codes."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import zipfile

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from commands import INFER, JOINT, run_bundle

from liverseg.cli.main import main
from liverseg.errors import ExitCode
from liverseg.inference import find_bundle
from liverseg.results.case_folder import CASE_FILES

SAME_EVERY_TIME = [name for name in CASE_FILES if name != "record.json"]


@pytest.fixture
def volumes(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    hu = np.random.default_rng(0).integers(-1000, 1000, (32, 40, 4)).astype(np.int16)
    for name in ("a.nii", "b.nii.gz"):
        nib.save(nib.Nifti1Image(hu, np.diag([-2.0, -2.0, 4.0, 1.0])), folder / name)
    return folder


def bundle_command(*arguments):
    command = ["-m", "monai.bundle", "run", "inference", "--config_file", "configs/inference.yaml", *arguments]
    return subprocess.run(
        [sys.executable, *command],
        cwd=find_bundle(JOINT),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.integration
def test_both_commands_give_the_same_files(volumes, weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LIVERSEG_WEIGHTS", str(weights))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert main(["predict", str(volumes), str(tmp_path / "command"), "--min-lesion-ml", "0.05"]) == 0
    finally:
        torch.set_num_threads(threads)
    captured = capsys.readouterr()
    assert [line.split(":")[0] for line in captured.out.splitlines()] == ["a", "b"]
    done = bundle_command(
        *("--dataset_dir", str(volumes), "--output_dir", str(tmp_path / "bundle"), "--weights", str(weights)),
        *("--min_lesion_ml", "0.05"),
    )
    assert done.returncode == 0, done.stderr
    for case in ("a", "b"):
        for name in SAME_EVERY_TIME:
            command, bundle = (tmp_path / road / case / name for road in ("command", "bundle"))
            assert command.read_bytes() == bundle.read_bytes(), name
        records = [
            json.loads((tmp_path / road / case / "record.json").read_text(encoding="utf-8"))
            for road in ("command", "bundle")
        ]
        for record in records:
            record.pop("seconds"), record.pop("finished")
        assert records[0] == records[1]


@pytest.mark.integration
def test_the_bundles_exit_code_is_that_of_failed_cases_with_one_line_each(volumes, weights, tmp_path):
    (volumes / "bad.nii").write_text("no volume")
    run = {"dataset_dir": volumes, "output_dir": tmp_path / "out", "weights": weights, "progress": False}
    done = run_bundle(JOINT, "inference", INFER, **run)
    assert done.code == 3
    assert "Traceback" not in done.err
    assert done.err.splitlines()[-1].startswith("liverseg: 1 of 3 cases failed: bad")
    assert (tmp_path / "out" / "a" / "record.json").is_file()
    assert not (tmp_path / "out" / "bad").exists()


def test_a_misspelt_override_of_the_bundle_is_refused(volumes, tmp_path):
    done = run_bundle(JOINT, "inference", INFER, dataset_dir=volumes, output_dirr=tmp_path / "out")
    assert done.code == 2
    assert done.err.splitlines()[-1] == "liverseg: unknown override --output_dirr; did you mean --output_dir?"


def predict(*arguments):
    return main(["predict", *map(str, arguments)])


@pytest.mark.integration
def test_one_file_and_the_exit_code_for_some(volumes, weights, tmp_path, capsys):
    assert predict(volumes / "a.nii", tmp_path / "one", "--weights", weights, "--batch-size", 1, "--device", "cpu") == 0
    record = json.loads((tmp_path / "one" / "a" / "record.json").read_text(encoding="utf-8"))
    assert record["settings"]["batch_size"] == 1
    (volumes / "bad.nii.gz").write_bytes(b"no volume")
    assert predict(volumes, tmp_path / "some", "--weights", weights) == 3
    assert capsys.readouterr().err.splitlines()[-1].startswith("liverseg: 1 of 3 cases failed: bad")


@pytest.mark.integration
@pytest.mark.parametrize(
    ("make", "code", "words"),
    [
        (lambda t, v, w: [t / "none", t / "out"], 1, "none: no such folder or file"),
        (lambda t, v, w: [t, t / "out"], 1, "no CT in this folder"),
        (lambda t, v, w: [v, t / "out", "--weights", t / "no.pt"], 1, "no.pt: no such weights file"),
        (lambda t, v, w: [v, w / "out"], 1, "output cannot be written there"),
        (lambda t, v, w: [v, t / "out", "--bundle", t], 1, "not a bundle's folder"),
        (lambda t, v, w: [v, t / "out", "--device", "tpu9"], 2, "device 'tpu9' is not known"),
        (lambda t, v, w: [v, t / "out", "--batch-size", "0"], 2, "batch_size is 0"),
        (lambda t, v, w: [v, t / "out", "--min-lesion-ml", "-1"], 2, "min_lesion_ml is -1"),
        (lambda t, v, w: [v, t / "out", "--weigths", w], 2, "unknown argument --weigths; did you mean --weights?"),
        (lambda t, v, w: [v], 2, "arguments are required: output"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(make, code, words, volumes, weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LIVERSEG_WEIGHTS", str(weights))
    empty = tmp_path / "empty"
    empty.mkdir()
    arguments = make(empty, volumes, weights)
    assert predict(*arguments) == code
    captured = capsys.readouterr()
    assert words in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert captured.out == ""
    assert not (empty / "out").exists()


@pytest.mark.integration
def test_a_page_and_tables_over_all_cases(volumes, weights, tmp_path, capsys):
    (volumes / "bad.nii").write_text("no volume")
    options = ("--weights", weights, "--liver", "NONE", "--report", "--statistics", "--amp", "false")
    assert predict(volumes, tmp_path / "out", *options) == 3
    summary, lesions = (pd.read_csv(tmp_path / "out" / name) for name in ("summary.csv", "lesions.csv"))
    assert summary["case"].tolist() == ["a", "b"]
    for row in summary.to_dict("records"):
        folder = tmp_path / "out" / row["case"]
        table, labels = pd.read_csv(folder / "lesions.csv"), np.asarray(nib.load(folder / "labels.nii.gz").dataobj)
        assert row["liver_ml"] == pytest.approx((labels > 0).sum() * 0.016)
        assert row["lesions_ml"] == pytest.approx(table["volume_ml"].sum())
        assert row["lesion_share"] == pytest.approx(row["lesions_ml"] / row["liver_ml"], abs=1e-4)
        assert row["lesions"] == len(table) == (lesions["case"] == row["case"]).sum() > 0
        assert row["longest_diameter_mm"] == table["longest_diameter_mm"].max()
        page = (folder / "report.html").read_text(encoding="utf-8")
        assert f"{row['liver_ml']:.0f} ml with its lesions" in page
    for name in ("a.nii", "b.nii.gz"):
        (volumes / name).unlink()
    assert predict(volumes, tmp_path / "none", *options) == 1
    assert not (tmp_path / "none" / "summary.csv").exists() or not len(pd.read_csv(tmp_path / "none" / "summary.csv"))


def test_a_zip_that_leads_outside_is_one_line_and_leaves_nothing(weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        archive.writestr("../../outside.dcm", b"x")
    assert predict(tmp_path / "study.zip", tmp_path / "out", "--weights", weights) == 1
    captured = capsys.readouterr()
    assert (
        captured.err.startswith("liverseg: ")
        and len(captured.err.splitlines()) == 1
        and "study.zip: member" in captured.err
    )
    assert not list((tmp_path / "out").iterdir()) and not list((tmp_path / "tmp").iterdir())
    assert not (tmp_path / "outside.dcm").exists()


@pytest.fixture
def at_once():
    """Fail after some seconds: to open a pipe waits until somebody writes to it."""

    def stop(*_):
        raise TimeoutError

    handler = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, handler)


@pytest.mark.parametrize("command", ["predict", "batch"])
@pytest.mark.parametrize("name", ["ct.nii.gz", "ct.nii", "study.zip", "cases.csv", "cases.json", "ct"])
@pytest.mark.parametrize("kind", ["a named pipe", "a device"])
def test_a_pipe_or_device_is_refused_at_once(command, name, kind, at_once, weights, tmp_path, capsys):
    path = tmp_path / name
    if kind == "a device":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(path)
    assert main([command, str(path), str(tmp_path / "out"), "--weights", str(weights)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"liverseg: {path}: {kind}, neither a file nor a folder; give a file"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["predict", "batch"])
def test_a_pipe_in_place_of_a_mask_is_refused_at_once(command, at_once, volumes, weights, tmp_path, capsys):
    os.mkfifo(tmp_path / "mask.nii.gz")
    options = ["--weights", str(weights), "--liver", str(tmp_path / "mask.nii.gz")]
    assert main([command, str(volumes / "a.nii"), str(tmp_path / "out"), *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"liverseg: {tmp_path / 'mask.nii.gz'}: a named pipe, neither a file nor a folder; give a file"


@pytest.mark.integration
def test_a_pipe_in_a_folder_fails_alone(at_once, volumes, weights, tmp_path, capsys):
    os.mkfifo(volumes / "pipe.nii.gz")
    for command in ("predict", "batch"):
        options = ["--weights", str(weights), "--liver", "none"]
        assert main([command, str(volumes), str(tmp_path / command), *options]) == ExitCode.SOME_CASES_FAILED
        err = capsys.readouterr().err
        assert f"{volumes / 'pipe.nii.gz'}: a named pipe, neither a file nor a folder; give a file" in err
        assert sorted(path.parent.name for path in (tmp_path / command).glob("*/record.json")) == ["a", "b"]
