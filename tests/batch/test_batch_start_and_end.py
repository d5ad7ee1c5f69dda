"""Start and end of a batch: finding cases, starting workers, writing tables; and changes in between."""

import errno
import shutil
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from batch_runs import happened, log, write_ct, write_study

from liverseg.batch import run as run_module
from liverseg.batch import state as state_module
from liverseg.batch.events import CaseFailedBefore, CaseStarted, OutputUnwritable, WorkerReady, WorkerRefused
from liverseg.batch.job import Job, run_spec
from liverseg.batch.reporter import BatchReporter, write_line
from liverseg.batch.run import run_batch
from liverseg.batch.settings import configuration_hash
from liverseg.batch.state import BatchState, case_fingerprint
from liverseg.batch.worker import CaseWorker
from liverseg.bundle.paths import inference_config
from liverseg.cases.case import BatchCase
from liverseg.cases.events import CaseDone, CaseFailed
from liverseg.cli.main import main
from liverseg.errors import ExitCode, LiversegError, SomeCasesFailed, UsageError


def worker_events(job, *cases):
    """Return the events of a worker that gets these cases."""
    events = []
    CaseWorker(job, events.append, threading.Event()).work(cases)
    return events


def test_a_batch_interrupted_while_it_searches_for_cases_leaves_nothing(
    source, worker_threads, weights, tmp_path, monkeypatch
):
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

    monkeypatch.setattr(state_module, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(run_module, "find_batch", slow)
    with pytest.raises(LiversegError, match="no such folder or file"):
        run_batch(tmp_path / "nowhere", tmp_path / "out", weights=weights)
    assert seen == [True]
    assert not alive.exists()


@pytest.mark.integration
def test_a_batch_interrupted_while_it_writes_its_tables(source, worker_threads, weights, tmp_path, monkeypatch, capsys):
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


def test_the_name_of_a_series_for_nifti_files_alone_is_refused(source, weights, tmp_path):
    with pytest.raises(UsageError, match=r"ct\.nii\.gz is a NIfTI file; only DICOM has series"):
        run_batch(source, tmp_path / "out", weights=weights, series="portal")
    assert not (tmp_path / "out").exists()


def test_a_worker_that_cannot_be_started_is_an_error(source, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))
    with pytest.raises(LiversegError, match=r"a worker cannot be started .*No such file"):
        run_batch(source, tmp_path / "out", weights=weights)
    assert log(tmp_path / "out")[-1]["how"] == "failed"


@pytest.mark.integration
def test_a_worker_leaves_alone_what_another_run_has_seen_fail(job, source):
    case = BatchCase("ct", source / "ct.nii.gz")
    known = {"category": "unreadable", "weights_sha256": job.spec.weights_sha256}
    known |= {"configuration_sha256": job.spec.configuration(case), "input": case_fingerprint(case, None)}
    BatchState(job.output).record_failure("ct", **known)
    event = worker_events(job, case)[-1]
    assert isinstance(event, CaseFailedBefore)
    assert event.known["category"] == "unreadable"
    again = Job(**{**vars(job), "retry_failed": True})
    assert isinstance(worker_events(again, case)[-1], CaseDone)


@pytest.mark.integration
def test_weights_or_a_bundle_changed_meanwhile_are_not_used(job, source, weights, tmp_path):
    case = BatchCase("ct", source / "ct.nii.gz")
    copy = tmp_path / "bundle"
    shutil.copytree(job.bundle, copy)
    config = copy / "configs" / "inference.yaml"
    own = Job(**{**vars(job), "bundle": copy, "spec": run_spec(config, weights, {})})
    assert own == Job.from_json(own.to_json())
    config.write_text(config.read_text(encoding="utf-8").replace("\n# ", "\n#  "), encoding="utf-8")  # the same content
    assert worker_events(own) == [WorkerReady()]
    config.write_text(config.read_text(encoding="utf-8") + "\nmore: 1\n", encoding="utf-8")
    (event,) = worker_events(own, case)
    assert isinstance(event, WorkerRefused) and event.exit_code == ExitCode.FAILED
    assert "has changed since the batch started" in event.reason


def test_the_record_beside_a_state_dict_is_part_of_the_spec(weights, tmp_path):
    config, model = inference_config(None), tmp_path / "model.pt"
    model.write_bytes(weights.read_bytes())
    alone = run_spec(config, model, {})
    model.with_suffix(".json").write_text("{}", encoding="utf-8")
    with_record = run_spec(config, model, {})
    model.with_suffix(".json").write_text('{"temperature": 2}', encoding="utf-8")
    assert alone != with_record and with_record != run_spec(config, model, {})
    assert run_spec(config, model, {"device": "cpu", "progress": True}) == run_spec(config, model, {})


@pytest.mark.integration
def test_a_failed_case_whose_mask_is_mended_is_tried_again(source, worker_threads, weights, tmp_path):
    mask = tmp_path / "masks" / "ct.nii.gz"
    write_ct(mask)  # HU, no mask
    arguments = [str(source), str(tmp_path / "out"), "--weights", str(weights), "--liver", str(tmp_path / "masks")]
    assert main(["batch", *arguments]) == 1
    assert main(["batch", *arguments]) == 1
    assert happened(tmp_path / "out", "begun") == ["ct"]
    nib.save(nib.Nifti1Image(np.ones((32, 40, 4), np.uint8), np.diag([-2.0, -2.0, 4.0, 1.0])), mask)
    assert main(["batch", *arguments]) == 0
    assert happened(tmp_path / "out", "done") == ["ct"]


def test_a_file_system_without_locks_ends_the_batch_and_no_case(job, source, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("liverseg.utils.locks.fcntl.flock", no_locks)
    event = worker_events(job, BatchCase("ct", source / "ct.nii.gz"))[-1]
    assert isinstance(event, OutputUnwritable)
    assert "does its file system support locks?" in event.reason
    assert not list((job.output / ".liverseg" / "locks").iterdir())


@pytest.mark.integration
def test_a_complete_case_is_not_reported_as_failed(source, worker_threads, weights, tmp_path):
    run_batch(source, tmp_path / "out", weights=weights)
    config, state = inference_config(None), BatchState(tmp_path / "out")
    spec = run_spec(config, weights, {})
    case = BatchCase("ct", source / "ct.nii.gz")
    # as after a kill of its worker between the last file and `CaseDone`
    known = {"category": "internal", "weights_sha256": spec.weights_sha256, "input": case_fingerprint(case, None)}
    state.record_failure("ct", **known, configuration_sha256=spec.configuration(case))
    run_batch(source, tmp_path / "out", weights=weights)
    assert happened(tmp_path / "out", "done") == ["ct"]
    assert state.read_failure("ct") is None


@pytest.mark.integration
def test_a_case_whose_worker_ended_after_the_last_file_is_done(source, worker_threads, weights, tmp_path):
    run_batch(source, tmp_path / "out", weights=weights)
    state, case = BatchState(tmp_path / "out"), BatchCase("ct", source / "ct.nii.gz")
    reporter = BatchReporter("in", [case], state, run_spec(inference_config(None), weights, {}), None)
    started, failed = CaseStarted("ct", ""), CaseFailed("ct", None, "timeout", "took longer")
    record = tmp_path / "out" / "ct" / "record.json"
    content = record.read_text(encoding="utf-8")
    older = content.replace('"finished": "2', '"finished": "1')
    assert older != content
    for earlier in (older, None):
        record.write_text(earlier, encoding="utf-8") if earlier else record.unlink()
        reporter.on_event(started)
        record.write_text(content, encoding="utf-8")
        reporter.on_event(failed)
        assert (reporter.made, reporter.failures) == ({"ct"}, set())
    reporter.on_event(started)
    reporter.on_event(failed)
    assert reporter.failures == {"ct"}  # it has an earlier record of another file content


@pytest.mark.integration
def test_a_case_whose_input_has_become_unreadable_is_reported_as_failed(source, worker_threads, weights, tmp_path):
    run_batch(source, tmp_path / "out", weights=weights)
    (source / "ct.nii.gz").write_text("no NIfTI", encoding="utf-8")
    for _ in range(2):
        with pytest.raises(LiversegError, match="1 of 1 cases failed"):
            run_batch(source, tmp_path / "out", weights=weights)
        assert len((tmp_path / "out" / "summary.csv").read_text(encoding="utf-8").splitlines()) == 1
        assert "ct,unreadable," in (tmp_path / "out" / "failed.csv").read_text(encoding="utf-8")
    write_ct(source / "ct.nii.gz")
    run_batch(source, tmp_path / "out", weights=weights)
    assert len((tmp_path / "out" / "summary.csv").read_text(encoding="utf-8").splitlines()) == 2


@pytest.mark.integration
def test_a_mask_whose_name_no_disk_takes_fails_its_case_alone(source, worker_threads, weights, tmp_path):
    image = source / "ct.nii.gz"
    rows = ["case,image,liver", f"good,{image},", f"bad,{image},{'m' * 300}.nii.gz"]
    (tmp_path / "list.csv").write_text("\n".join(rows), encoding="utf-8")
    for _ in range(2):  # recognised in the second run
        with pytest.raises(SomeCasesFailed):
            run_batch(tmp_path / "list.csv", tmp_path / "out", weights=weights)
        assert [happened(tmp_path / "out", "begun").count(case) for case in ("good", "bad")] == [1, 1]
    assert happened(tmp_path / "out", "done") == ["good"]


def test_lines_can_be_written_to_any_terminal(tmp_path):
    with (tmp_path / "log").open("w", encoding="ascii") as file:
        write_line("Leber \u00fc\u0394\x1b[2J", file)
    assert (tmp_path / "log").read_text(encoding="ascii").strip() == r"Leber \xfc\u0394\x1b[2J"


@pytest.mark.integration
def test_a_batch_lists_and_counts_what_it_passes_over(source, worker_threads, weights, tmp_path, capsys):
    (source / "scan.mha").write_bytes(b"ObjectType = Image")
    (source / "empty").mkdir()
    run_batch(source, source / "results", weights=weights)
    assert capsys.readouterr().err.splitlines()[-1].endswith("1 done, 0 failed, 0 left, 2 skipped, see skipped.csv")
    lines = (source / "results" / "skipped.csv").read_text(encoding="utf-8").splitlines()
    assert lines == [
        "path,reason",
        f"{source / 'empty'},an empty folder",
        f'{source / "scan.mha"},"MetaImage, which is not read; convert a CT to .nii.gz"',
    ]
    (source / "scan.mha").unlink()
    (source / "empty").rmdir()
    run_batch(source, source / "results", weights=weights)
    assert capsys.readouterr().err.splitlines()[-1].endswith("1 done, 0 failed, 0 left")
    assert (source / "results" / "skipped.csv").read_text(encoding="utf-8") == "path,reason\n"


@pytest.mark.parametrize(
    ("overrides", "affects"),
    [
        ({"untilt": True}, False),
        ({"series": "portal"}, False),
        ({"dicom": False}, False),
        ({"keep_identifiers": True}, False),
        ({"phase": "portal"}, True),  # a NIfTI file gets a warning then
        ({"min_lesion_ml": 1.0}, True),
    ],
)
def test_settings_of_dicom_input_count_for_dicom_alone(overrides, affects, weights):
    config = inference_config(None)
    without, given = (run_spec(config, weights, settings) for settings in ({}, overrides))
    nifti, study = BatchCase("a", Path("/cts/a.nii.gz")), BatchCase("b", Path("/cts/b"))
    assert (given.configuration(nifti) != without.configuration(nifti)) is affects
    assert without.is_configuration(nifti, given.configuration(nifti)) is not affects
    assert given.configuration(study) != without.configuration(study)
    # a series in the row of a NIfTI file is not used either, and one of a study is
    assert given.configuration(replace(nifti, series="late", study="1.2")) == given.configuration(nifti)
    assert given.configuration(replace(study, series="late")) != given.configuration(study)
    # as versions wrote them that counted all settings for all cases
    assert given.is_configuration(nifti, configuration_hash(given.settings, {}))


@pytest.mark.integration
def test_cases_of_nifti_are_not_computed_again_for_settings_of_dicom(source, worker_threads, weights, tmp_path):
    write_study(source / "study")
    output = tmp_path / "out"
    for overrides, computed in (
        ({}, ["ct", "study"]),
        ({"untilt": True}, ["study"]),
        ({"series": "portal"}, ["study"]),
    ):
        before = len(happened(output, "done"))
        run_batch(source, output, weights=weights, **overrides)
        assert sorted(happened(output, "done")[before:]) == computed
