"""A batch on good and bad CTs: results, messages, and a second run."""

import json
import shutil
import subprocess
import sys
import zipfile
from urllib.parse import unquote

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from batch_runs import batch, happened, log, results, write_ct, write_study

from liverseg.cli.main import main

pytestmark = pytest.mark.integration

BAD = {
    "cut": "unreadable",
    "text": "unreadable",
    "tilted": "geometry",
    "magnet": "not CT",
    "normalised": "not CT",
    "outside": "unreadable",
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Three good CTs in three formats, and one bad CT of each kind."""
    root = tmp_path_factory.mktemp("source")
    write_ct(root / "a" / "scan.nii.gz", 1)
    write_study(root / "b" / "portal", 2)
    for file in write_study(root / "zipped", 3).iterdir():
        with zipfile.ZipFile(root / "study.zip", "a") as archive:
            archive.write(file, f"export/{file.name}")
    shutil.rmtree(root / "zipped")
    (root / "cut.nii.gz").write_bytes((root / "a" / "scan.nii.gz").read_bytes()[:3000])
    (root / "text.nii").write_text("no volume", encoding="utf-8")
    write_study(root / "tilted", 4, tilt_degrees=12)
    write_study(root / "magnet", 5, modality="MR")
    array = np.random.default_rng(6).random((32, 40, 4)).astype(np.float32)
    nib.save(nib.Nifti1Image(array, np.eye(4)), root / "normalised.nii.gz")
    with zipfile.ZipFile(root / "outside.zip", "w") as archive:
        archive.writestr("../../outside.dcm", b"x")
    return root


@pytest.fixture(scope="module")
def run(source, weights, tmp_path_factory):
    """Source, output and messages of a batch. Tests that change the output copy it."""
    output = tmp_path_factory.mktemp("batch") / "out"
    return source, output, batch(source, output, "--weights", weights, "--liver", "none")


def test_good_cases_are_done_and_bad_ones_sorted(run):
    source, output, (code, out, err) = run
    assert code == 3, err
    assert sorted(happened(output, "done")) == ["a__scan", "b__portal", "study"]
    failed = pd.read_csv(output / "failed.csv").set_index("case")
    assert failed["category"].to_dict() == BAD
    assert failed["input"]["tilted"] == str(source / "tilted")
    assert (failed["tries"] == 1).all()
    assert "gantry tilt of 12 degrees" in failed["reason"]["tilted"]
    assert not list(source.parent.rglob("outside.dcm"))
    # stdout has a line for each done case, with progress and speed; the rest is on stderr
    lines = out.splitlines()
    assert len(lines) == 3
    assert all("/9] " in line and " an hour, " in line for line in lines)
    assert err.splitlines()[-1] == (
        f"liverseg: 6 of 9 cases failed; {output / 'failed.csv'} says why, --retry-failed tries them again"
    )
    assert "Traceback" not in err


def test_tables_are_those_of_all_cases(run):
    _, output, _ = run
    summary, lesions = pd.read_csv(output / "summary.csv"), pd.read_csv(output / "lesions.csv")
    assert list(summary["case"]) == ["a__scan", "b__portal", "study"]
    for row in summary.to_dict("records"):
        assert (
            (lesions["case"] == row["case"]).sum()
            == row["lesions"]
            == len(pd.read_csv(output / row["case"] / "lesions.csv"))
        )


def test_the_page_shows_every_case_and_links_to_files_that_are_there(run):
    _, output, _ = run
    page = (output / "index.html").read_text(encoding="utf-8")
    assert "3 done, 6 failed, 0 not yet" in page
    links = {part.split('"')[0] for mark in ('href="', 'src="') for part in page.split(mark)[1:]}
    assert {"a__scan/preview.png", "b__portal/labels.nii.gz", "study/record.json"} <= links
    assert all((output / unquote(link)).is_file() for link in links)
    assert all(f"<td>{case}</td>" in page for case in BAD)


def test_the_log_covers_the_run_from_start_to_end(run):
    _, output, _ = run
    lines = log(output)
    assert [lines[0]["event"], lines[-1]["event"]] == ["run begun", "run ended"]
    assert (lines[0]["cases"], lines[-1]["made"], lines[-1]["failed"]) == (9, 3, 6)
    assert all({"time", "host", "pid"} <= set(line) for line in lines)
    done = next(line for line in lines if line["event"] == "done" and line["case"] == "a__scan")
    assert {"read", "lesions", "write"} <= set(done["seconds"])


def again(run, tmp_path, *arguments, weights=None):
    """Run the batch again on a copy of its output; return the cases that were started, and the exit code."""
    source, output, _ = run
    there = tmp_path / "again"
    shutil.copytree(output, there)
    before = len(log(there))
    code = main(["batch", str(source), str(there), "--weights", str(weights), "--liver", "none", *arguments])
    return there, code, sorted(line["case"] for line in log(there)[before:] if line["event"] == "begun")


def test_what_is_complete_is_not_done_again_and_what_failed_stays_so(run, weights, tmp_path, capsys):
    there, code, started = again(run, tmp_path, weights=weights)
    assert (code, started) == (3, [])
    captured = capsys.readouterr()
    assert "cut: failed before: unreadable: " in captured.err
    assert pd.read_csv(there / "failed.csv")["tries"].tolist() == [1] * 6


def test_failures_are_tried_again_when_asked_for(run, worker_threads, weights, tmp_path):
    there, code, started = again(run, tmp_path, "--retry-failed", weights=weights)
    assert (code, started) == (3, sorted(BAD))
    assert pd.read_csv(there / "failed.csv")["tries"].tolist() == [2] * 6


def damage_labels(folder):
    (folder / "a__scan" / "labels.nii.gz").write_bytes(b"")


def lose_the_record(folder):
    (folder / "a__scan" / "record.json").unlink()


def other_input(folder):
    record = json.loads((folder / "a__scan" / "record.json").read_text(encoding="utf-8"))
    record["input"]["sha256"] = "0" * 64
    (folder / "a__scan" / "record.json").write_text(json.dumps(record), encoding="utf-8")


@pytest.mark.parametrize("change", [damage_labels, lose_the_record, other_input])
def test_anything_but_a_complete_case_is_done_again(change, run, worker_threads, weights, tmp_path):
    source, output, _ = run
    shutil.copytree(output, tmp_path / "out")
    change(tmp_path / "out")
    before = len(log(tmp_path / "out"))
    assert main(["batch", str(source), str(tmp_path / "out"), "--weights", str(weights), "--liver", "none"]) == 3
    assert [line["case"] for line in log(tmp_path / "out")[before:] if line["event"] == "begun"] == ["a__scan"]
    assert results(tmp_path / "out", "a__scan") == results(output, "a__scan")


def test_what_gives_cases_out_does_without_torch():
    code = "import sys, liverseg.batch.run; print('torch' in sys.modules)"  # only workers import it and MONAI
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_folder_of_masks_with_a_label_serves_several_cases(worker_threads, weights, tmp_path, capsys):
    mask = np.zeros((32, 40, 4), np.uint8)
    mask[8:24, 10:30], mask[2:5, 2:5] = 5, 1  # liver and spleen as in TotalSegmentator
    for number, name in enumerate(("one", "two")):
        write_ct(tmp_path / "in" / f"{name}.nii.gz", number)
        (tmp_path / "masks" / name).mkdir(parents=True)
        nib.save(nib.Nifti1Image(mask, np.diag([-2.0, -2.0, 4.0, 1.0])), tmp_path / "masks" / name / "liver.nii.gz")
    command = ["batch", str(tmp_path / "in"), str(tmp_path / "out"), "--weights", str(weights), "--liver"]
    assert main([*command, f"{tmp_path / 'masks'}:5"]) == 0, capsys.readouterr().err
    for name in ("one", "two"):
        record = json.loads((tmp_path / "out" / name / "record.json").read_text(encoding="utf-8"))
        assert record["input"]["liver"]["path"] == str(tmp_path / "masks" / name / "liver.nii.gz")
        labels = np.asarray(nib.load(tmp_path / "out" / name / "labels.nii.gz").dataobj)
        assert not (labels[mask != 5] == 1).any() and (labels[mask == 5] > 0).all()
    assert main([*command, f"{tmp_path / 'masks' / 'one' / 'liver.nii.gz'}:5"]) == 2
    assert "one mask for 2 cases; give a folder" in capsys.readouterr().err


def test_a_manifest_with_masks_priors_and_names_that_lead_elsewhere(source, worker_threads, weights, tmp_path):
    mask = np.zeros((32, 40, 4), np.uint8)
    mask[8:24, 10:30] = 1
    nib.save(nib.Nifti1Image(mask, np.diag([-2.0, -2.0, 4.0, 1.0])), tmp_path / "mask.nii.gz")
    image = source / "a" / "scan.nii.gz"
    rows = [
        "case,image,liver,prior_cyst,prior_hemangioma,prior_metastasis",
        f"plain,{image},,,,",
        f"masked,{image},mask.nii.gz,,,",
        f"../../../known,{image},,1,1000,1",
        f"gone,{tmp_path / 'gone.nii.gz'},,,,",
    ]
    (tmp_path / "list.csv").write_text("\n".join(rows), encoding="utf-8")
    output = tmp_path / "out"
    command = ["batch", tmp_path / "list.csv", output, "--weights", weights, "--min-confidence", "0", "--liver", "none"]
    command = [str(word) for word in command]
    assert main(command) == 3
    (known,) = [case for case in happened(output, "done") if case.startswith("known-")]
    records = {
        case: json.loads((output / case / "record.json").read_text(encoding="utf-8"))
        for case in ("plain", "masked", known)
    }
    assert records["masked"]["input"]["liver"]["path"] == str(tmp_path / "mask.nii.gz")
    labels = np.asarray(nib.load(output / "masked" / "labels.nii.gz").dataobj)
    assert set(np.unique(labels[mask == 0])) & {1} == set()  # outside the mask there may be a lesion, but no liver
    assert records[known]["type_priors"] == {"cyst": 1, "hemangioma": 1000, "metastasis": 1}
    counts = records[known]["lesions_by_type"]
    assert counts["hemangioma"] == sum(counts.values()) == records["plain"]["lesions"]
    assert records["plain"]["lesions_by_type"]["hemangioma"] < counts["hemangioma"]
    assert pd.read_csv(output / "failed.csv")["case"].tolist() == ["gone"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["list.csv", "mask.nii.gz", "out"]
    # a changed mask makes it another case
    mask[8:10] = 0
    nib.save(nib.Nifti1Image(mask, np.diag([-2.0, -2.0, 4.0, 1.0])), tmp_path / "mask.nii.gz")
    before = len(log(output))
    assert main(command) == 3
    assert [line["case"] for line in log(output)[before:] if line["event"] == "begun"] == ["masked"]
