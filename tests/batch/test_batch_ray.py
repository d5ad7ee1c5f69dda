"""A batch on Ray's actors: the same results, and no case is lost with its actor."""

import os
import signal
import subprocess
import time
from collections import Counter
from importlib.util import find_spec

import pytest
from batch_runs import LONGEST, Batch, happened, log, results
from test_batch_kills import check

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is not installed"),
]


def actors(run):
    """Return the process ids of the actors of a batch that started its own cluster."""
    below, found = {run.process.pid}, []
    table = subprocess.check_output(["ps", "-eo", "pid,ppid,args"], text=True).splitlines()[1:]
    rows = [(int(pid), int(parent), args) for pid, parent, args in (line.split(None, 2) for line in table)]
    for _ in rows:
        below |= {pid for pid, parent, _ in rows if parent in below}
    found = [pid for pid, _, args in rows if pid in below and "ray::_CaseActor" in args]
    return sorted(found)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_lost_actor_changes_no_byte(workers, many, weights, tmp_path):
    source, expected = many
    environment = {"RAY_ADDRESS": ""}  # its own cluster, whatever runs on this machine
    run = Batch(source, tmp_path / "out", "--weights", weights, "--engine", "ray", "--workers", workers, **environment)
    run.wait_for("begun")
    deadline = time.monotonic() + LONGEST
    while len(found := actors(run)) < 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(found[0], signal.SIGKILL)
    code, _, err = run.end()
    assert code == 0, err
    check(tmp_path / "out", expected)
    assert max(Counter(happened(tmp_path / "out", "done")).values()) == 1
    assert any(line["event"] == "note" and "a worker" in line["what"] for line in log(tmp_path / "out"))


@pytest.mark.slow
def test_a_batch_interrupted_while_ray_starts(many, weights, tmp_path):
    run = Batch(many[0], tmp_path / "out", "--weights", weights, "--engine", "ray", "--workers", 1, RAY_ADDRESS="")
    run.wait_for("run begun")
    time.sleep(2)  # mostly during the start, when Ray has its own handler
    run.send(signal.SIGTERM)
    code, _, err = run.end()
    assert code == 128 + signal.SIGTERM, err
    assert log(tmp_path / "out")[-1]["how"] == "ended by SIGTERM"
    assert happened(tmp_path / "out", "done") == []


@pytest.mark.slow
def test_an_interrupted_batch_on_ray_ends_in_good_order(many, weights, tmp_path):
    source, expected = many
    arguments = [source, tmp_path / "out", "--weights", weights, "--engine", "ray", "--workers", 1]
    run = Batch(*arguments, RAY_ADDRESS="")
    run.wait_for("done")
    run.send(signal.SIGTERM)
    code, _, err = run.end()
    assert code == 128 + signal.SIGTERM, err
    assert "Traceback" not in err
    assert log(tmp_path / "out")[-1]["how"] == "ended by SIGTERM"
    done = happened(tmp_path / "out", "done")
    assert {case: results(tmp_path / "out", case) for case in done} == {case: expected[case] for case in done}
    assert not list((tmp_path / "out").rglob(".unfinished-*"))
