"""The dispatcher with workers that do not start or do not end normally."""

import signal
from functools import partial
from pathlib import Path

import pytest
from batch_runs import ThreadWorker, write_ct

from liverseg.batch import dispatcher as dispatcher_module
from liverseg.batch.dispatcher import Dispatcher
from liverseg.batch.events import (
    CaseAbandoned,
    CaseAlreadyDone,
    CaseLockedElsewhere,
    CasePlanned,
    CaseStarted,
    Note,
    OutputUnwritable,
    PlanningDone,
    PlanningFailed,
    WorkerExited,
    WorkerReady,
    WorkerRefused,
)
from liverseg.batch.workers import TimeLimits
from liverseg.cases.case import BatchCase
from liverseg.cases.events import Callback, CaseDone, CaseFailed, StageStarted
from liverseg.errors import ExitCode, LiversegError, OutputError


class Recorder(Callback):
    """Listener that keeps the events."""

    def __init__(self):
        self.events = []

    def on_event(self, event):
        self.events.append(event)

    def cases(self, kind):
        """Return the names of the cases with an event of this kind."""
        return [event.case for event in self.events if isinstance(event, kind)]

    @property
    def failures(self):
        return {event.case: (event.category, event.reason) for event in self.events if isinstance(event, CaseFailed)}

    @property
    def notes(self):
        return [event.text for event in self.events if isinstance(event, Note)]


HANGS = "hangs"


class Scripted:
    """Worker without a process.

    `outcome` takes the name of a case and returns its last event, an exit code with which the worker ends, or `HANGS`.
    """

    def __init__(self, outcome, emit):
        self.outcome, self.emit, self.exited, self.hangs = outcome, emit, False, False
        emit(WorkerReady())

    def send(self, case):
        if self.exited:
            return
        self.emit(CaseStarted(case.name, ""))
        self.emit(StageStarted(case.name, "lesions"))
        outcome = self.outcome(case.name)
        if isinstance(outcome, int):
            self._end(outcome)
        elif outcome == HANGS:
            self.hangs = True
        else:
            self.emit(outcome)

    def kill(self):
        self._end(-signal.SIGKILL)

    def finish(self):
        if not self.hangs:
            self._end(0)

    drain = finish

    def _end(self, code):
        if not self.exited:
            self.exited = True
            self.emit(WorkerExited(code))


def done(name):
    return CaseDone(name, "", {}, ())


def dispatched(outcome, names="abc", workers=1, limits=None):
    """Return a dispatcher of these cases after its run, and the recorder of its events."""
    recorder = Recorder()
    dispatcher = Dispatcher(partial(Scripted, outcome), workers, limits or TimeLimits(), recorder)
    for name in names:
        dispatcher.post(CasePlanned(BatchCase(name, Path(name))))
    dispatcher.post(PlanningDone())
    return dispatcher, recorder


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("number", "memory_short", "category", "times"),
    [
        (signal.SIGSEGV, False, "internal", 3),
        (signal.SIGKILL, False, "internal", 4),
        (signal.SIGKILL, True, "out of memory", 2),
    ],
)
def test_the_case_that_ends_every_worker_fails_alone(number, memory_short, category, times, workers, monkeypatch):
    ended, killed_for_memory = [], [0]

    def outcome(name):
        if name != "b":
            return done(name)
        ended.append(name)
        killed_for_memory[0] += memory_short
        return -number

    monkeypatch.setattr(dispatcher_module, "oom_kills", lambda: killed_for_memory[0])
    dispatcher, recorder = dispatched(outcome, workers=workers)
    dispatcher.run()
    assert sorted(recorder.cases(CaseDone)) == ["a", "c"]
    reason = f"the worker was ended by {number.name} while it had this case alone"
    assert recorder.failures == {"b": (category, reason)}
    assert len(ended) == times  # once together with others, then alone
    assert recorder.notes[0].startswith(f"a worker was ended by {number.name} (")


def test_a_case_that_only_waited_when_its_worker_ended_is_no_suspect():
    given = []

    def outcome(name):
        given.append(name)
        ends = name == "b" or (name == "a" and given.count("a") == 1)
        return -signal.SIGSEGV if ends else done(name)

    dispatcher, recorder = dispatched(outcome)
    dispatcher.run()
    assert sorted(recorder.cases(CaseDone)) == ["a", "c"]
    assert [*recorder.failures] == ["b"]
    assert given.count("b") == 3  # together with others, as `a` before, and twice alone


def test_a_case_whose_worker_is_killed_once_is_done():
    outcomes = iter([-signal.SIGKILL])
    dispatcher, recorder = dispatched(lambda name: next(outcomes, done("a")) if name == "a" else done(name))
    dispatcher.run()
    assert sorted(recorder.cases(CaseDone)) == ["a", "b", "c"]
    assert not recorder.failures


def test_a_case_that_takes_too_long_fails_and_no_other(monkeypatch):
    monkeypatch.setattr(dispatcher_module, "POLL_SECONDS", 0.01)
    dispatcher, recorder = dispatched(lambda name: HANGS if name == "a" else done(name), limits=TimeLimits(case=0.5))
    dispatcher.run()
    assert recorder.failures == {"a": ("timeout", "took longer than 0.5 s")}
    assert sorted(recorder.cases(CaseDone)) == ["b", "c"]


def test_a_case_without_memory_is_tried_again_alone():
    tried = []

    def outcome(name):
        tried.append(name)
        failed = CaseFailed(name, "compute", "out of memory", "no memory")
        return failed if name == "a" or (tried.count("b") == 1 and name == "b") else done(name)

    dispatcher, recorder = dispatched(outcome)
    dispatcher.run()
    assert recorder.failures == {"a": ("out of memory", "no memory")}
    assert sorted(recorder.cases(CaseDone)) == ["b", "c"]
    assert (tried.count("a"), tried.count("b")) == (2, 2)


def test_a_case_another_run_has_in_hand_is_asked_for_again(monkeypatch):
    monkeypatch.setattr(dispatcher_module, "LOCK_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(dispatcher_module, "POLL_SECONDS", 0.01)
    outcomes = iter([CaseLockedElsewhere("a"), CaseLockedElsewhere("a"), CaseAlreadyDone("a")])
    dispatcher, recorder = dispatched(lambda name: next(outcomes) if name == "a" else done(name))
    dispatcher.run()
    assert sorted(recorder.cases(CaseDone)) == ["b", "c"]
    assert recorder.cases(CaseAlreadyDone) == ["a"]
    assert recorder.notes == ["a is being processed by another run; will be checked again at the end"] * 2


def test_workers_that_end_before_they_are_ready_end_the_batch():
    class Failing(Pending):
        def __init__(self, emit):
            super().__init__(emit)
            started.append(self)
            self.kill()

    started, recorder = [], Recorder()
    dispatcher = Dispatcher(Failing, 1, TimeLimits(), recorder)
    dispatcher.post(CasePlanned(BatchCase("a", Path("a"))))
    with pytest.raises(LiversegError, match="a worker was ended by SIGKILL 3 times before it was ready"):
        dispatcher.run()
    assert len(started) == 3


def test_an_interrupted_batch_leaves_open_cases_for_the_next(monkeypatch):
    monkeypatch.setattr(dispatcher_module, "POLL_SECONDS", 0.01)
    killed, kill = [], Scripted.kill
    monkeypatch.setattr(Scripted, "kill", lambda worker: (killed.append(worker), kill(worker)))
    dispatcher, recorder = dispatched(lambda name: dispatcher.stop() or HANGS, limits=TimeLimits(grace=0.05))
    dispatcher.run()
    assert killed  # it hangs, so the grace period has no effect
    assert recorder.cases(CaseAbandoned) == ["a", "b"]  # one computed, one read ahead; the third was not dispatched
    assert not recorder.cases(CaseDone) and not recorder.failures


@pytest.mark.parametrize(
    ("event", "words", "error", "code"),
    [
        (OutputUnwritable("a", "out: full"), "out: full: the batch stops; run it again to continue", OutputError, 1),
        (WorkerRefused("batch_size is 0", 2), "batch_size is 0", LiversegError, 2),
    ],
)
def test_what_concerns_all_cases_ends_the_batch(event, words, error, code):
    dispatcher, recorder = dispatched(lambda name: event)
    with pytest.raises(error) as caught:
        dispatcher.run()
    assert str(caught.value) == words
    assert caught.value.exit_code == ExitCode(code)
    assert not recorder.failures and not recorder.cases(CaseDone)


class Pending:
    """Worker for which a cluster has no resources."""

    def __init__(self, emit):
        self.emit = emit

    def send(self, case):
        raise AssertionError(f"{case.name} waits for a place")

    def kill(self):
        self.emit(WorkerExited(-9))

    finish = drain = kill


def done_by(starts, cases):
    """Return the cases done by two workers that these functions start."""
    recorder = Recorder()
    dispatcher = Dispatcher(lambda emit: next(starts)(emit), 2, TimeLimits(), recorder)
    for case in cases:
        dispatcher.post(CasePlanned(case))
    dispatcher.post(PlanningDone())
    dispatcher.run()
    return recorder.cases(CaseDone)


@pytest.mark.integration
def test_a_worker_there_is_no_place_for_keeps_no_case(job, source):
    cases = [BatchCase(f"ct{number}", write_ct(source / f"ct{number}.nii.gz", number)) for number in range(3)]
    starts = iter([Pending, partial(ThreadWorker, job)])
    assert sorted(done_by(starts, cases)) == ["ct0", "ct1", "ct2"]


@pytest.mark.integration
def test_an_error_of_the_planner_is_one_line_and_ends_the_workers(source):
    class Busy(Pending):
        """Worker that keeps its case until it is killed."""

        def send(self, case):
            self.emit(CaseStarted(case.name, ""))
            dispatcher.post(PlanningFailed(OSError("boom")))

        def kill(self):
            killed.append(True)
            super().kill()

        def drain(self):
            pass

    def start(emit):
        emit(WorkerReady())
        return Busy(emit)

    killed, recorder = [], Recorder()
    dispatcher = Dispatcher(start, 1, TimeLimits(grace=1), recorder)
    dispatcher.post(CasePlanned(BatchCase("ct", source / "ct.nii.gz")))
    with pytest.raises(LiversegError, match=r"planning failed \(boom\)"):
        dispatcher.run()
    assert killed
    assert recorder.cases(CaseAbandoned) == ["ct"]


@pytest.mark.integration
def test_a_batch_goes_on_without_a_worker_that_cannot_be_started(job, source):
    cases = [BatchCase(f"ct{number}", write_ct(source / f"ct{number}.nii.gz", number)) for number in range(2)]

    def none(_):
        raise LiversegError("too many processes")

    starts = iter([partial(ThreadWorker, job), none])
    assert sorted(done_by(starts, cases)) == ["ct0", "ct1"]
