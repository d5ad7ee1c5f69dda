"""A batch on Ray's actors: the same results, and an actor that is lost takes no case with it."""

import os
import signal
import subprocess
import time
from collections import Counter

import pytest
from batch_runs import LONGEST, Batch, batch, happened, log
from test_batch_kills import check

pytest.importorskip("ray")


def actors(run):
    """Process ids of the actors of a batch that began a cluster of its own."""
    below, found = {run.process.pid}, []
    table = subprocess.check_output(["ps", "-eo", "pid,ppid,args"], text=True).splitlines()[1:]
    rows = [(int(pid), int(parent), args) for pid, parent, args in (line.split(None, 2) for line in table)]
    for _ in rows:
        below |= {pid for pid, parent, _ in rows if parent in below}
    found = [pid for pid, _, args in rows if pid in below and "ray::_CaseActor" in args]
    return sorted(found)


def test_a_lost_actor_changes_no_byte(many, weights, tmp_path):
    source, expected = many
    environment = {"RAY_ADDRESS": ""}  # a cluster of its own, whatever runs on this machine
    run = Batch(source, tmp_path / "out", "--weights", weights, "--engine", "ray", "--workers", 2, **environment)
    run.wait_for("done", times=2)
    deadline = time.monotonic() + LONGEST
    while len(found := actors(run)) < 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(found[0], signal.SIGKILL)
    code, _, err = run.end()
    assert code == 0, err
    check(tmp_path / "out", expected)
    assert Counter(happened(tmp_path / "out", "done")) == dict.fromkeys(expected, 1)
    assert any(line["event"] == "note" and "a worker" in line["what"] for line in log(tmp_path / "out"))


def test_an_actor_there_is_no_place_for_keeps_no_case(many, weights, tmp_path):
    source, expected = many
    whole = ["--engine", "ray", "--cpus", len(os.sched_getaffinity(0)), "--workers", 2]
    code, _, err = batch(source, tmp_path / "out", "--weights", weights, *whole, RAY_ADDRESS="")
    assert code == 0, err
    check(tmp_path / "out", expected)
