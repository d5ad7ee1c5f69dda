"""A full or missing output folder: one line reports it, no case fails, and the next run continues."""

import json
import subprocess

import pytest
from batch_runs import Batch, batch, happened, log, results
from test_batch_kills import check

from liverseg.cli.main import main

pytestmark = pytest.mark.integration


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a separate disk of 512 KiB, and a function that enlarges the disk."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a disk can be mounted by root alone")
    yield folder, lambda: subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_ends_the_batch_and_no_case(many, worker_threads, weights, small_disk, capsys):
    source, expected = many
    folder, enlarge = small_disk
    command = ["batch", str(source), str(folder / "out"), "--weights", str(weights)]
    assert main(command) == 1
    err = capsys.readouterr().err
    line = err.splitlines()[-1]
    assert "No space left on device" in line and line.endswith("the batch stops; run it again to continue")
    assert "Traceback" not in err
    assert not happened(folder / "out", "failed")
    done = happened(folder / "out", "done")
    assert {case: results(folder / "out", case) for case in done} == {case: expected[case] for case in done}
    enlarge()
    assert main(command) == 0
    check(folder / "out", expected)


@pytest.mark.slow
def test_an_output_folder_that_goes_away_is_not_made_again(many, weights, tmp_path):
    source, expected = many
    run = Batch(source, tmp_path / "out", "--weights", weights)
    run.wait_for("done", times=2)
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    code, _, err = run.end()
    assert code == 1, err
    assert str(tmp_path / "out") in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()
    (tmp_path / "elsewhere").rename(tmp_path / "out")
    code, _, err = batch(source, tmp_path / "out", "--weights", weights)
    assert code == 0, err
    check(tmp_path / "out", expected)
    assert not [line for line in log(tmp_path / "out") if line["event"] == "failed"]


@pytest.mark.slow
def test_too_little_memory_fails_the_large_case_alone(many, weights, tmp_path):
    from batch_runs import write_ct

    source, _ = many
    for name in ("ct00.nii.gz", "ct01.nii.gz"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).symlink_to(source / name)
    write_ct(tmp_path / "in" / "ct00-large.nii.gz", 3, (512, 512, 60))
    code, _, err = batch(
        *(tmp_path / "in", tmp_path / "out", "--weights", weights, "--liver", "none", "--batch-size", 60),
        *("--amp", "false"),  # with bfloat16 half the memory would suffice, and nothing would fail
        memory_gb=3,
    )
    assert code == 3, err
    (failed,) = [line for line in log(tmp_path / "out") if line["event"] == "failed"]
    assert (failed["case"], failed["category"]) == ("ct00-large", "out of memory"), err
    assert sorted(happened(tmp_path / "out", "done")) == ["ct00", "ct01"]
    assert json.loads((tmp_path / "out" / "ct00" / "record.json").read_text(encoding="utf-8"))["status"] == "done"
