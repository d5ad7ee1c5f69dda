"""Who is given which case, when workers are not to be had or do not end as they should."""

from functools import partial

import pytest
from batch_runs import write_ct

from liverseg.batch.cases import BatchCase
from liverseg.batch.dispatch import Dispatcher
from liverseg.batch.hands import Limits
from liverseg.batch.listener import BatchListener
from liverseg.batch.local import LocalWorker
from liverseg.errors import LiversegError


class Heard(BatchListener):
    """Keeps what it is told."""

    def __init__(self):
        self.told, self.left = [], []

    def done(self, case, about):
        self.told.append(case.name)

    def abandoned(self, case):
        self.left.append(case.name)


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


def test_a_worker_there_is_no_place_for_keeps_no_case(job, source):
    cases = [BatchCase(f"ct{number}", write_ct(source / f"ct{number}.nii.gz", number)) for number in range(3)]
    starts = iter([Pending, partial(LocalWorker, job, environment={})])
    assert sorted(done_by(starts, cases)) == ["ct0", "ct1", "ct2"]


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


def test_a_batch_goes_on_without_a_worker_that_cannot_be_begun(job, source):
    cases = [BatchCase(f"ct{number}", write_ct(source / f"ct{number}.nii.gz", number)) for number in range(2)]

    def none(_):
        raise LiversegError("too many processes")

    starts = iter([partial(LocalWorker, job, environment={}), none])
    assert sorted(done_by(starts, cases)) == ["ct0", "ct1"]
