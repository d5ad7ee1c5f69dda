"""What frames a batch: looking for cases, beginning workers, the tables; and what changes between."""

import errno
import shutil
import signal
import sys
import threading
import time
from functools import partial

import nibabel as nib
import numpy as np
import pytest
from batch_runs import happened, log, write_ct

from liverseg.batch import run as run_module
from liverseg.batch import state as state_module
from liverseg.batch.cases import BatchCase
from liverseg.batch.completeness import wanted
from liverseg.batch.dispatch import Dispatcher
from liverseg.batch.hands import Limits
from liverseg.batch.job import Job
from liverseg.batch.listener import BatchListener
from liverseg.batch.local import LocalWorker
from liverseg.batch.run import run_batch
from liverseg.batch.stamps import case_stamp
from liverseg.batch.state import BatchState
from liverseg.batch.telling import BatchTeller, say
from liverseg.batch.worker import CaseWorker
from liverseg.bundle_folders import inference_config
from liverseg.cli.main import main
from liverseg.errors import ExitCode, LiversegError, SomeCasesFailed


@pytest.fixture
def source(tmp_path):
    write_ct(tmp_path / "in" / "ct.nii.gz")
    return tmp_path / "in"


def told_by_worker(job, *cases):
    """The events of a worker that is given these cases."""
    events = []
    CaseWorker(job, lambda **about: events.append(about), threading.Event()).work(cases)
    return events


@pytest.fixture
def job(source, weights, tmp_path):
    state = BatchState(tmp_path / "out")
    state.begin()
    config = inference_config(None)
    return Job(tmp_path / "out", config.parent.parent, weights, {}, wanted(config, weights, {}))


def test_a_batch_told_to_end_while_it_looks_for_cases_leaves_nothing(source, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "find_batch", lambda *_: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        run_batch(source, tmp_path / "out", weights=weights)
    assert ended.value.code == 128 + signal.SIGTERM
    assert not (tmp_path / "out").exists()


def test_a_batch_lives_while_it_looks_for_cases(source, weights, tmp_path, monkeypatch):
    alive, seen = tmp_path / "out" / ".liverseg" / "alive", []
    find = run_module.find_batch

    def slow(*arguments):
        deadline = time.monotonic() + 30
        while not alive.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        seen.append(alive.exists())
        return find(*arguments)

    monkeypatch.setattr(state_module, "ALIVE_SECONDS", 0.05)
    monkeypatch.setattr(run_module, "find_batch", slow)
    with pytest.raises(LiversegError, match="no such folder or file"):
        run_batch(tmp_path / "nowhere", tmp_path / "out", weights=weights)
    assert seen == [True]
    assert not alive.exists()


def test_a_batch_told_to_end_while_it_writes_its_tables(source, weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run_module, "write_tables", lambda *_: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        run_batch(source, tmp_path / "out", weights=weights)
    assert ended.value.code == 128 + signal.SIGTERM
    assert [line["event"] for line in log(tmp_path / "out")][-2:] == ["done", "run ended"]
    assert log(tmp_path / "out")[-1]["how"] == "ended by SIGTERM"
    assert not (tmp_path / "out" / ".liverseg" / "alive").exists()
    monkeypatch.undo()
    run_batch(source, tmp_path / "out", weights=weights)
    assert log(tmp_path / "out")[-1]["how"] == "done"
    assert (tmp_path / "out" / "summary.csv").exists()
    assert "1 done, 0 failed, 0 left" in capsys.readouterr().err


def test_a_worker_that_cannot_be_begun_is_told_of(source, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))
    with pytest.raises(LiversegError, match=r"a worker cannot be begun .*No such file"):
        run_batch(source, tmp_path / "out", weights=weights)
    assert log(tmp_path / "out")[-1]["how"] == "failed"


def test_a_worker_leaves_alone_what_another_run_has_seen_fail(job, source):
    case = BatchCase("ct", source / "ct.nii.gz")
    known = {"category": "unreadable", "weights_sha256": job.wanted.weights_sha256}
    known |= {"configuration_sha256": job.wanted.configuration(case), "input": case_stamp(case, None)}
    BatchState(job.output).keep_failure("ct", **known)
    told = told_by_worker(job, case)[-1]
    assert told["event"] == "failed before"
    assert told["known"]["category"] == "unreadable"
    again = Job(**{**vars(job), "retry_failed": True})
    assert told_by_worker(again, case)[-1]["event"] == "done"


def test_weights_or_a_bundle_changed_meanwhile_are_not_used(job, source, weights, tmp_path):
    case = BatchCase("ct", source / "ct.nii.gz")
    copy = tmp_path / "bundle"
    shutil.copytree(job.bundle, copy)
    config = copy / "configs" / "inference.yaml"
    own = Job(**{**vars(job), "bundle": copy, "wanted": wanted(config, weights, {})})
    assert own.wanted.same_as(Job.from_json(own.to_json()).wanted)
    config.write_text(config.read_text(encoding="utf-8").replace("\n# ", "\n#  "), encoding="utf-8")  # says the same
    assert told_by_worker(own)[-1] == {"event": "ready"}
    config.write_text(config.read_text(encoding="utf-8") + "\nmore: 1\n", encoding="utf-8")
    (told,) = told_by_worker(own, case)
    assert told["event"] == "refused" and told["exit_code"] == ExitCode.FAILED
    assert "is not what it was when the batch began" in told["reason"]


def test_what_a_state_dict_cannot_say_of_itself_is_part_of_what_is_wanted(weights, tmp_path):
    config, model = inference_config(None), tmp_path / "model.pt"
    model.write_bytes(weights.read_bytes())
    alone = wanted(config, model, {})
    model.with_suffix(".json").write_text("{}", encoding="utf-8")
    with_record = wanted(config, model, {})
    model.with_suffix(".json").write_text('{"temperature": 2}', encoding="utf-8")
    assert not alone.same_as(with_record) and not with_record.same_as(wanted(config, model, {}))
    assert wanted(config, model, {"device": "cpu", "progress": True}).same_as(wanted(config, model, {}))


def test_a_failed_case_whose_mask_is_mended_is_tried_again(source, weights, tmp_path):
    mask = tmp_path / "masks" / "ct.nii.gz"
    write_ct(mask)  # HU, no mask
    arguments = [str(source), str(tmp_path / "out"), "--weights", str(weights), "--liver", str(tmp_path / "masks")]
    assert main(["batch", *arguments]) == 1
    assert main(["batch", *arguments]) == 1
    assert happened(tmp_path / "out", "begun") == ["ct"]
    nib.save(nib.Nifti1Image(np.ones((32, 40, 4), np.uint8), np.diag([-2.0, -2.0, 4.0, 1.0])), mask)
    assert main(["batch", *arguments]) == 0
    assert happened(tmp_path / "out", "done") == ["ct"]


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


def test_a_worker_there_is_no_place_for_keeps_no_case(job, source):
    cases = [BatchCase(f"ct{number}", write_ct(source / f"ct{number}.nii.gz", number)) for number in range(3)]
    starts = iter([Pending, partial(LocalWorker, job, environment={})])
    heard = Heard()
    dispatcher = Dispatcher(lambda tell: next(starts)(tell), 2, Limits(), heard)
    for case in cases:
        dispatcher.events.put((None, {"event": "todo", "case": case}))
    dispatcher.events.put((None, {"event": "planned"}))
    dispatcher.run()
    assert sorted(heard.told) == ["ct0", "ct1", "ct2"]


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
    heard = Heard()
    dispatcher = Dispatcher(lambda tell: next(starts)(tell), 2, Limits(), heard)
    for case in cases:
        dispatcher.events.put((None, {"event": "todo", "case": case}))
    dispatcher.events.put((None, {"event": "planned"}))
    dispatcher.run()
    assert sorted(heard.told) == ["ct0", "ct1"]


def test_a_file_system_without_locks_ends_the_batch_and_no_case(job, source, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("liverseg.file_lock.fcntl.flock", no_locks)
    told = told_by_worker(job, BatchCase("ct", source / "ct.nii.gz"))
    assert told[-1]["event"] == "unwritable"
    assert "does its file system know no locks?" in told[-1]["reason"]
    assert not list((job.output / ".liverseg" / "locks").iterdir())


def test_a_complete_case_is_not_told_as_failed(source, weights, tmp_path):
    run_batch(source, tmp_path / "out", weights=weights)
    config, state = inference_config(None), BatchState(tmp_path / "out")
    made = wanted(config, weights, {})
    case = BatchCase("ct", source / "ct.nii.gz")
    # as if its worker had been killed between its last file and telling of it
    known = {"category": "internal", "weights_sha256": made.weights_sha256}
    state.keep_failure("ct", **known, configuration_sha256=made.configuration(case), input=case_stamp(case, None))
    run_batch(source, tmp_path / "out", weights=weights)
    assert happened(tmp_path / "out", "done") == ["ct"]
    assert state.failure("ct") is None


def test_a_case_made_by_a_worker_that_was_ended_before_it_told_of_it_is_done(source, weights, tmp_path):
    run_batch(source, tmp_path / "out", weights=weights)
    state, case = BatchState(tmp_path / "out"), BatchCase("ct", source / "ct.nii.gz")
    teller = BatchTeller("in", 1, state, wanted(inference_config(None), weights, {}), None)
    record = tmp_path / "out" / "ct" / "record.json"
    whole = record.read_text(encoding="utf-8")
    older = whole.replace('"finished": "2', '"finished": "1')
    assert older != whole
    for earlier in (older, None):
        record.write_text(earlier, encoding="utf-8") if earlier else record.unlink()
        teller.begun(case, "")
        record.write_text(whole, encoding="utf-8")
        teller.failed(case, "timeout", "took longer")
        assert (teller.made, teller.failures) == ({"ct"}, set())
    teller.begun(case, "")
    teller.failed(case, "timeout", "took longer")
    assert teller.failures == {"ct"}  # its record was there before, of another content of the file


def test_a_mask_whose_name_no_disk_takes_fails_its_case_alone(source, weights, tmp_path):
    image = source / "ct.nii.gz"
    rows = ["case,image,liver", f"good,{image},", f"bad,{image},{'m' * 300}.nii.gz"]
    (tmp_path / "list.csv").write_text("\n".join(rows), encoding="utf-8")
    for _ in range(2):  # the second time it is known
        with pytest.raises(SomeCasesFailed):
            run_batch(tmp_path / "list.csv", tmp_path / "out", weights=weights)
        assert [happened(tmp_path / "out", "begun").count(case) for case in ("good", "bad")] == [1, 1]
    assert happened(tmp_path / "out", "done") == ["good"]


def test_what_is_told_can_be_written_to_any_terminal(tmp_path):
    with (tmp_path / "log").open("w", encoding="ascii") as file:
        say("Leber \u00fc\u0394\x1b[2J", file)
    assert (tmp_path / "log").read_text(encoding="ascii").strip() == r"Leber \xfc\u0394\x1b[2J"
