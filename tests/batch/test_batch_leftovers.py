"""Leftovers of a killed batch are removed by the next batch."""

import os

import pytest
from batch_runs import write_ct

from liverseg.cli.main import main


def batch(*arguments):
    return main(["batch", *map(str, arguments)])


@pytest.mark.integration
def test_leftovers_of_a_killed_batch_are_taken_away(worker_threads, weights, tmp_path):
    for number in range(2):
        write_ct(tmp_path / "in" / f"ct{number}.nii.gz", number)
    (tmp_path / "in" / "broken.nii").write_text("no NIfTI", encoding="utf-8")
    output, state = tmp_path / "out", tmp_path / "out" / ".liverseg"
    assert batch(tmp_path / "in", output, "--weights", weights) == 3
    left = [output / ".unfinished-0-summary.csv", state / "failed" / ".unfinished-0-broken.json"]
    # as if killed after all cases were done or failed
    left += [state / "locks" / f"{case}.lock" for case in ("ct0", "broken")]
    for path in left:
        path.touch()
    assert batch(tmp_path / "in", output, "--weights", weights) == 3
    assert not [path for path in left if path.exists()]


@pytest.mark.integration
def test_pipes_and_devices_in_a_tree_are_not_opened(worker_threads, weights, tmp_path, capsys):
    write_ct(tmp_path / "in" / "ct.nii.gz")
    for name in ("pipe", "pipe.dcm", "pipe.nii", "pipe.zip"):
        os.mkfifo(tmp_path / "in" / name)
    (tmp_path / "in" / "zeros.dcm").symlink_to("/dev/zero")
    assert batch(tmp_path / "in", tmp_path / "out", "--weights", weights) == 3
    err = capsys.readouterr().err
    assert "1 done, 2 failed" in err
    assert err.count("failed: unreadable: ") == 2  # files with a volume's name are reported
    for name in ("pipe.nii", "pipe.zip"):
        assert f"{tmp_path / 'in' / name}: a named pipe, neither a file nor a folder; give a file" in err
