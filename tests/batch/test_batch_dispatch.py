"""Who is given which case, when workers are not to be had or do not end as they should."""

import signal
from functools import partial
from pathlib import Path

import pytest
from batch_runs import ThreadWorker, write_ct

from liverseg.batch import dispatch as dispatch_module
from liverseg.batch.dispatch import Dispatcher
from liverseg.batch.reporter import BatchCallback
from liverseg.batch.workers import Limits
from liverseg.cases.case import BatchCase
from liverseg.errors import ExitCode, LiversegError


class Heard(BatchCallback):
    """Keeps what it is told."""

    def __init__(self):
        self.told, self.left, self.failures, self.there, self.notes = [], [], {}, [], []

    def done(self, case, about):
        self.told.append(case.name)

    def already(self, case):
        self.there.append(case.name)

    def failed(self, case, category, reason):
        self.failures[case.name] = category, reason

    def abandoned(self, case):
        self.left.append(case.name)

    def note(self, what):
        self.notes.append(what)


HANGS = "hangs"


class Scripted:
    """A worker without a process, for which `fate` says what each case it is given comes to.

    That is the event it tells, an exit code with which it ends, or `HANGS`.
    """

    def __init__(self, fate, tell):
        self.fate, self.tell, self.gone, self.hangs = fate, tell, False, False
        tell({"event": "ready"})

    def send(self, case):
        if self.gone:
            return
        self.tell({"event": "begun", "case": case.name, "stamp": ""})
        self.tell({"event": "stage", "case": case.name, "stage": "lesions", "at": "begun"})
        fate = self.fate(case.name)
        if isinstance(fate, int):
            self._end(fate)
        elif fate == HANGS:
            self.hangs = True
        else:
            self.tell({"case": case.name, **fate})

    def kill(self):
        self._end(-signal.SIGKILL)

    def finish(self):
        if not self.hangs:
            self._end(0)

    drain = finish

    def _end(self, code):
        if not self.gone:
            self.gone = True
            self.tell({"event": "gone", "code": code})


DONE = {"event": "done"}


def dispatched(fate, names="abc", workers=1, limits=None):
    """A dispatcher with these cases to do, and what it tells."""
    heard = Heard()
    dispatcher = Dispatcher(partial(Scripted, fate), workers, limits or Limits(), heard)
    for name in names:
        dispatcher.events.put((None, {"event": "todo", "case": BatchCase(name, Path(name))}))
    dispatcher.events.put((None, {"event": "planned"}))
    return dispatcher, heard


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

    def fate(name):
        if name != "b":
            return DONE
        ended.append(name)
        killed_for_memory[0] += memory_short
        return -number

    monkeypatch.setattr(dispatch_module, "oom_kills", lambda: killed_for_memory[0])
    dispatcher, heard = dispatched(fate, workers=workers)
    dispatcher.run()
    assert sorted(heard.told) == ["a", "c"]
    reason = f"the worker was ended by {number.name} while it had this case alone"
    assert heard.failures == {"b": (category, reason)}
    assert len(ended) == times  # once among others, then alone
    assert heard.notes[0].startswith(f"a worker was ended by {number.name} (")


def test_a_case_that_only_waited_when_its_worker_ended_is_no_suspect():
    given = []

    def fate(name):
        given.append(name)
        ends = name == "b" or (name == "a" and given.count("a") == 1)
        return -signal.SIGSEGV if ends else DONE

    dispatcher, heard = dispatched(fate)
    dispatcher.run()
    assert sorted(heard.told) == ["a", "c"]
    assert [*heard.failures] == ["b"]
    assert given.count("b") == 3  # among others, as `a` was before, and twice alone


def test_a_case_whose_worker_is_killed_once_is_done():
    fates = iter([-signal.SIGKILL])
    dispatcher, heard = dispatched(lambda name: next(fates, DONE) if name == "a" else DONE)
    dispatcher.run()
    assert sorted(heard.told) == ["a", "b", "c"]
    assert not heard.failures


def test_a_case_that_takes_too_long_fails_and_no_other(monkeypatch):
    monkeypatch.setattr(dispatch_module, "_TICK", 0.01)
    dispatcher, heard = dispatched(lambda name: HANGS if name == "a" else DONE, limits=Limits(case=0.5))
    dispatcher.run()
    assert heard.failures == {"a": ("timeout", "took longer than 0.5 s")}
    assert sorted(heard.told) == ["b", "c"]


def test_a_case_without_memory_is_tried_again_alone():
    failed = {"event": "failed", "category": "out of memory", "reason": "no memory"}
    tried = []

    def fate(name):
        tried.append(name)
        return failed if name == "a" or (tried.count("b") == 1 and name == "b") else DONE

    dispatcher, heard = dispatched(fate)
    dispatcher.run()
    assert heard.failures == {"a": ("out of memory", "no memory")}
    assert sorted(heard.told) == ["b", "c"]
    assert (tried.count("a"), tried.count("b")) == (2, 2)


def test_a_case_another_run_has_in_hand_is_asked_for_again(monkeypatch):
    monkeypatch.setattr(dispatch_module, "_PATIENCE", 0.01)
    monkeypatch.setattr(dispatch_module, "_TICK", 0.01)
    fates = iter([{"event": "elsewhere"}] * 2 + [{"event": "already"}])
    dispatcher, heard = dispatched(lambda name: next(fates) if name == "a" else DONE)
    dispatcher.run()
    assert sorted(heard.told) == ["b", "c"]
    assert heard.there == ["a"]
    assert "in the hands of another run" in heard.notes[0]


def test_workers_that_end_before_they_are_ready_end_the_batch():
    class Failing(Pending):
        def __init__(self, tell):
            super().__init__(tell)
            begun.append(self)
            self.kill()

    begun, heard = [], Heard()
    dispatcher = Dispatcher(Failing, 1, Limits(), heard)
    dispatcher.events.put((None, {"event": "todo", "case": BatchCase("a", Path("a"))}))
    with pytest.raises(LiversegError, match="a worker was ended by SIGKILL 3 times before it was ready"):
        dispatcher.run()
    assert len(begun) == 3


def test_a_batch_told_to_end_leaves_what_it_has_for_the_next(monkeypatch):
    monkeypatch.setattr(dispatch_module, "_TICK", 0.01)
    killed, kill = [], Scripted.kill
    monkeypatch.setattr(Scripted, "kill", lambda worker: (killed.append(worker), kill(worker)))
    dispatcher, heard = dispatched(lambda name: dispatcher.stop() or HANGS, limits=Limits(grace=0.05))
    dispatcher.run()
    assert killed  # it hangs, so that the grace does not help it
    assert heard.left == ["a", "b"]  # one computed, one read ahead; the third was never given out
    assert not heard.told and not heard.failures


@pytest.mark.parametrize(
    ("event", "words", "code"),
    [
        ({"event": "unwritable", "reason": "out: full"}, "out: full: the batch stops; run it again to go on", 1),
        ({"event": "refused", "reason": "batch_size is 0", "exit_code": 2}, "batch_size is 0", 2),
    ],
)
def test_what_concerns_all_cases_ends_the_batch(event, words, code):
    dispatcher, heard = dispatched(lambda name: event)
    with pytest.raises(LiversegError) as caught:
        dispatcher.run()
    assert str(caught.value) == words
    assert caught.value.exit_code == ExitCode(code)
    assert not heard.failures and not heard.told


class Pending:
    """A worker a cluster has no place for."""

    def __init__(self, tell):
        self.tell = tell

    def send(self, case):
        raise AssertionError(f"{case.name} waits for a place")

    def kill(self):
        self.tell({"event": "gone", "code": -9})

    finish = drain = kill


def done_by(starts, cases):
    """The cases that two workers, begun so, have done."""
    heard = Heard()
    dispatcher = Dispatcher(lambda tell: next(starts)(tell), 2, Limits(), heard)
    for case in cases:
        dispatcher.events.put((None, {"event": "todo", "case": case}))
    dispatcher.events.put((None, {"event": "planned"}))
    dispatcher.run()
    return heard.told


@pytest.mark.integration
def test_a_worker_there_is_no_place_for_keeps_no_case(job, source):
    cases = [BatchCase(f"ct{number}", write_ct(source / f"ct{number}.nii.gz", number)) for number in range(3)]
    starts = iter([Pending, partial(ThreadWorker, job)])
    assert sorted(done_by(starts, cases)) == ["ct0", "ct1", "ct2"]


@pytest.mark.integration
def test_what_keeps_from_planning_is_told_in_a_line_and_ends_the_workers(source):
    class Busy(Pending):
        """Has a case in hand until it is killed."""

        def send(self, case):
            self.tell({"event": "begun", "case": case.name, "stamp": ""})
            dispatcher.events.put((None, {"event": "unplanned", "error": OSError("boom")}))

        def kill(self):
            killed.append(True)
            super().kill()

        def drain(self):
            pass

    def start(tell):
        tell({"event": "ready"})
        return Busy(tell)

    killed, heard = [], Heard()
    dispatcher = Dispatcher(start, 1, Limits(grace=1), heard)
    dispatcher.events.put((None, {"event": "todo", "case": BatchCase("ct", source / "ct.nii.gz")}))
    with pytest.raises(LiversegError, match=r"cannot be found out \(boom\)"):
        dispatcher.run()
    assert killed
    assert heard.left == ["ct"]


@pytest.mark.integration
def test_a_batch_goes_on_without_a_worker_that_cannot_be_begun(job, source):
    cases = [BatchCase(f"ct{number}", write_ct(source / f"ct{number}.nii.gz", number)) for number in range(2)]

    def none(_):
        raise LiversegError("too many processes")

    starts = iter([partial(ThreadWorker, job), none])
    assert sorted(done_by(starts, cases)) == ["ct0", "ct1"]
