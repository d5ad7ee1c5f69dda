"""Events of a batch as lines of JSON, and a failing GPU."""

import pytest
import torch
from batch_runs import happened, log

from liverseg.batch import events
from liverseg.batch.run import run_batch
from liverseg.batch.worker_main import CaseQueue, worker_loop
from liverseg.cases.case import BatchCase
from liverseg.cases.events import CaseDone, CaseFailed, StageEnded, StageProgress, StageStarted
from liverseg.errors import LiversegError

SENT = [
    events.WorkerReady(),
    events.WorkerRefused("no weights", 2),
    events.WorkerExited(-9, "out of memory"),
    events.OutputUnwritable("ct", "disk full"),
    events.CaseStarted("ct", "0f"),
    events.CaseLockedElsewhere("ct"),
    events.CaseAlreadyDone("ct"),
    events.CaseFailedBefore("ct", {"category": "geometry", "tries": 2}),
    events.CaseAbandoned("ct"),
    StageStarted("ct", "read"),
    StageEnded("ct", "read"),
    CaseDone("ct", "no lesion\n\udcff", {"read": 0.5}, ("no liver", "\u00fc")),
    CaseFailed("ct", None, "timeout", "took longer"),
]


@pytest.mark.parametrize("event", SENT, ids=lambda event: type(event).__name__)
def test_events_of_a_worker_survive_json(event):
    line = events.to_json(event)
    assert line.isascii() and "\n" not in line
    assert events.from_json(line) == event


def test_an_exception_does_not_leave_its_process():
    failed = CaseFailed("ct", "read", "geometry", "tilted", LiversegError("tilted"))
    assert events.from_json(events.to_json(failed)).error is None


@pytest.mark.parametrize("event", [StageProgress("ct", "network", 0.5), events.CasePlanned(BatchCase("ct", "ct.nii"))])
def test_other_events_are_not_sent(event):
    with pytest.raises(TypeError, match="is not an event of a worker"):
        events.to_json(event)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[]",
        "1",
        "null",
        "{}",
        '{"event": "CaseDone", "case": "ct"',
        '{"event": "CaseDone", "case": "ct"}',
        '{"event": "Unknown"}',
        '{"event": "StageProgress", "case": "ct", "part": "network", "share": 1}',
        '{"event": ["CaseDone"]}',
        '{"event": "WorkerReady", "more": 1}',
    ],
)
def test_lines_that_are_no_event_are_refused(line):
    with pytest.raises(ValueError):
        events.from_json(line)


def test_a_worker_sends_every_event_it_may_send():
    assert {type(event).__name__ for event in SENT} == {*events._EVENTS}


@pytest.mark.integration
def test_a_lost_gpu_ends_the_worker_and_its_case_fails_alone(source, worker_threads, weights, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr("liverseg.inference.cascade.LiverCascade.locate_liver", fail)
    with pytest.raises(LiversegError, match="1 of 1 cases failed"):
        run_batch(source, tmp_path / "out", weights=weights)
    (failed,) = [line for line in log(tmp_path / "out") if line["event"] == "failed"]
    assert failed["category"] == "internal"
    assert failed["reason"] == "the worker ended with exit code 71 while it had this case alone"
    assert happened(tmp_path / "out", "begun") == ["ct"] * 3
    notes = [line["what"] for line in log(tmp_path / "out") if line["event"] == "note"]
    assert notes == ["a worker ended with exit code 71 (crashed); its started cases are tried again, one at a time"] * 3


def test_an_unexpected_error_in_a_worker_is_its_exit_code(job, monkeypatch, capsys):
    def fail(*_):
        raise ZeroDivisionError("boom")

    monkeypatch.setattr("liverseg.batch.worker.CaseWorker.work", fail)
    assert worker_loop(job, CaseQueue(), lambda event: None) == 1
    assert "ZeroDivisionError: boom" in capsys.readouterr().err
