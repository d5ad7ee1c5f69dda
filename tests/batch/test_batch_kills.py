"""Batches that are killed, interrupted or run twice: no case is lost, incomplete or computed twice."""

import os
import signal
import time
from collections import Counter

import pytest
from batch_runs import Batch, batch, happened, log, results, write_ct

from liverseg.batch.run import run_batch

pytestmark = pytest.mark.integration


def check(output, expected):
    """Check that exactly the expected files exist, byte for byte."""
    assert {case: results(output, case) for case in expected} == expected
    assert not list(output.rglob(".unfinished-*"))
    assert not list((output / ".liverseg" / "locks").iterdir())


def test_a_killed_batch_goes_on_where_it_was(many, worker_threads, weights, tmp_path):
    source, expected = many
    first = Batch(source, tmp_path / "out", "--weights", weights)
    first.wait_for("done")
    first.send(signal.SIGKILL)
    assert first.end()[0] == -signal.SIGKILL
    done = happened(tmp_path / "out", "done")
    assert len(done) < 12
    run_batch(source, tmp_path / "out", weights=weights)
    check(tmp_path / "out", expected)
    twice = {case for case, times in Counter(happened(tmp_path / "out", "done")).items() if times > 1}
    assert not twice
    again = happened(tmp_path / "out", "begun")
    # only unfinished cases are started again: one read, one computed, one written
    assert sum(times - 1 for times in Counter(again).values()) <= 3


def test_an_interrupted_batch_ends_in_good_order(many, worker_threads, weights, tmp_path):
    source, expected = many
    first = Batch(source, tmp_path / "out", "--weights", weights)
    first.wait_for("begun", times=2)
    first.send(signal.SIGTERM)
    code, _, err = first.end()
    assert code == 128 + signal.SIGTERM, err
    assert "Traceback" not in err
    done = happened(tmp_path / "out", "done")
    assert len(done) < 12
    assert log(tmp_path / "out")[-1]["how"] == "ended by SIGTERM"
    cases = {path.name for path in (tmp_path / "out").iterdir() if path.is_dir() and not path.name.startswith(".")}
    assert cases == set(done)
    run_batch(source, tmp_path / "out", weights=weights)
    check(tmp_path / "out", expected)


@pytest.mark.slow
def test_a_batch_interrupted_while_it_starts_ends_at_once(many, weights, tmp_path):
    first = Batch(many[0], tmp_path / "out", "--weights", weights)
    first.wait_for("run begun")
    start = time.monotonic()
    first.send(signal.SIGTERM)
    assert first.end()[0] == 128 + signal.SIGTERM
    assert time.monotonic() - start < 60  # not the 15 minutes that a worker may take to start
    assert happened(tmp_path / "out", "done") == []


def test_a_killed_worker_takes_no_case_with_it(many, weights, tmp_path):
    source, expected = many
    run = Batch(source, tmp_path / "out", "--weights", weights)
    run.wait_for("done", times=2)
    os.kill(run.worker(), signal.SIGKILL)
    code, _, err = run.end()
    assert code == 0, err
    check(tmp_path / "out", expected)
    # a case that was complete when its worker was killed may not be reported as done
    assert max(Counter(happened(tmp_path / "out", "done")).values()) == 1
    assert "a worker was ended by SIGKILL (killed)" in err


@pytest.mark.slow
def test_the_case_that_ends_every_worker_fails_and_no_other(many, weights, tmp_path):
    source, _ = many
    (tmp_path / "in").mkdir()
    for name in ("ct00", "ct01", "ct02"):
        (tmp_path / "in" / f"{name}.nii.gz").symlink_to(source / f"{name}.nii.gz")
    write_ct(tmp_path / "in" / "ct01-large.nii", 9, (512, 512, 200))  # not done before the kill
    run = Batch(tmp_path / "in", tmp_path / "out", "--weights", weights, "--liver", "none")
    for times in (1, 2, 3):
        run.wait_for("begun", case="ct01-large", times=times)
        os.kill(run.worker(), signal.SIGSEGV)
    code, _, err = run.end()
    assert code == 3, err
    (failed,) = [line for line in log(tmp_path / "out") if line["event"] == "failed"]
    assert (failed["case"], failed["category"]) == ("ct01-large", "internal")
    assert failed["reason"] == "the worker was ended by SIGSEGV while it had this case alone"
    assert sorted(happened(tmp_path / "out", "done")) == ["ct00", "ct01", "ct02"]


@pytest.mark.slow
def test_a_case_that_takes_too_long_fails_and_no_other(weights, tmp_path):
    for number in range(3):
        write_ct(tmp_path / "in" / f"ct{number}.nii.gz", number)
    write_ct(tmp_path / "in" / "ct1-large.nii", 9, (512, 512, 200))  # more than half a minute
    code, _, err = batch(
        tmp_path / "in", tmp_path / "out", "--weights", weights, "--liver", "none", "--case-timeout", 10
    )
    assert code == 3, err
    (failed,) = [line for line in log(tmp_path / "out") if line["event"] == "failed"]
    assert (failed["case"], failed["category"]) == ("ct1-large", "timeout")
    assert sorted(happened(tmp_path / "out", "done")) == ["ct0", "ct1", "ct2"]
    assert not (tmp_path / "out" / "ct1-large").exists()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["by accident", "as shards"])
def test_two_batches_at_once_on_one_folder(how, many, weights, tmp_path):
    source, expected = many
    shards = [[], []] if how == "by accident" else [["--shard", "1/2"], ["--shard", "2/2"]]
    runs = [Batch(source, tmp_path / "out", "--weights", weights, *shard) for shard in shards]
    for run in runs:
        code, _, err = run.end()
        assert code == 0, err
    check(tmp_path / "out", expected)
    assert Counter(happened(tmp_path / "out", "done")) == dict.fromkeys(expected, 1)
    summary = (tmp_path / "out" / "summary.csv").read_text(encoding="utf-8")
    assert len(summary.splitlines()) == 1 + 12  # the last to write has read all results
