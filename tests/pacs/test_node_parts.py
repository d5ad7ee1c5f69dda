"""Parts of the node without a process: settings, journal, store, times between attempts."""

import json
import subprocess
import sys

import pydicom
import pytest
from node_processes import write_ct_study

from liverseg.errors import UsageError
from liverseg.pacs.journal import AuditTrail, Journal
from liverseg.pacs.sender import next_attempt
from liverseg.pacs.settings import NodeSettings, RemoteNode
from liverseg.pacs.studies import Refused, StudyStore, read_header


@pytest.fixture
def store(tmp_path):
    opened = StudyStore(tmp_path / "node", 10, 1 << 20)
    opened.open()
    return opened


def receive(store, paths, association=1):
    return [store.receive(path, read_header(path), association) for path in paths]


@pytest.mark.parametrize("text", ["PACS", "PACS@host", "@host:104", "PACS@host:0", "PA\\CS@host:104", "PACS@:104"])
def test_destinations_that_are_refused(text):
    with pytest.raises(UsageError, match="AE@HOST:PORT"):
        RemoteNode.parse(text)


def test_destination_with_an_ipv6_address():
    assert RemoteNode.parse("PACS@[::1]:104") == RemoteNode("PACS", "::1", 104)


@pytest.mark.parametrize("title", ["", " ", "a" * 17, "back\\slash", "tab\t", "ü"])
def test_ae_titles_that_are_refused(tmp_path, title):
    with pytest.raises(UsageError, match="AE title"):
        NodeSettings(tmp_path, ae_title=title)


def test_times_between_attempts_double_up_to_a_limit():
    assert [next_attempt(count) for count in (0, 1, 2, 3)] == [0, 5, 10, 20]
    assert next_attempt(10_000) == 900


def test_journal_is_bounded_and_loses_no_recent_line(tmp_path):
    journal = Journal(tmp_path / "run.jsonl", max_bytes=1000, max_files=2)
    for number in range(100):
        journal.log("note", number=number)
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == ["run.jsonl", "run.jsonl.1", "run.jsonl.2"]
    assert all(path.stat().st_size <= 1200 for path in files)
    lines = [json.loads(line) for path in reversed(files) for line in path.read_text(encoding="utf-8").splitlines()]
    numbers = [line["number"] for line in lines]
    assert numbers == list(range(100))[-len(numbers) :] and len(numbers) > 10


def test_text_from_the_network_cannot_make_a_line_of_a_log(tmp_path):
    audit = AuditTrail(Journal(tmp_path / "audit.jsonl"), ("LIVERSEG", "127.0.0.1"))
    audit.record("refused", ('A"\n{"EventID": 1}', "10.0.0.1"), outcome="minor failure", reasons=["x"])
    (line,) = (tmp_path / "audit.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["EventOutcomeIndicator"] == 4


def test_store_survives_a_new_start_at_each_state(store, tmp_path):
    paths = write_ct_study(tmp_path / "ct")
    assert receive(store, paths[:3]) == [True, True, True]
    assert receive(store, paths[:1]) == [False]
    again = StudyStore(store.folder, 10, 1 << 20)
    again.open()
    (key,) = again.quiet(0, 0)
    study = again.queue(key)
    assert (study.state, study.version, study.instances) == ("queued", 1, 3)
    assert len(list(again.image(study).iterdir())) == 3
    third = StudyStore(store.folder, 10, 1 << 20)
    third.open()
    assert third.unfinished("queued") == [study] and third.quiet(0, 0) == []
    computed = third.change(study, state="computed")
    receive(third, paths[3:])
    later = third.queue(key)
    assert later.version == 2 and later.instances == 5
    assert third.change(computed, state="sent") is None  # of a version that is replaced
    assert third.read(key) == later


def test_version_that_was_half_made_is_made_again(store, tmp_path):
    receive(store, write_ct_study(tmp_path / "ct"))
    (key,) = store.quiet(0, 0)
    versions = store.studies / key / "versions"
    (versions / "1").mkdir(parents=True)  # renamed, but study.json was not written
    (versions / ".unfinished-1").mkdir()
    study = store.queue(key)
    assert len(list(store.image(study).iterdir())) == 5
    assert [path.name for path in versions.iterdir()] == ["1"]


def test_study_waits_for_its_associations_to_close(store, tmp_path):
    receive(store, write_ct_study(tmp_path / "ct"), association=7)
    assert store.quiet(0, 1000) == []
    store.end_association(7)
    assert len(store.quiet(0, 1000)) == 1
    assert store.quiet(1000, 1000) == []


def test_instance_of_another_patient_is_refused_after_a_new_start(store, tmp_path):
    paths = write_ct_study(tmp_path / "ct")
    receive(store, paths[:1])
    other = pydicom.dcmread(paths[1])
    other.PatientID = "other"
    other.save_as(paths[1])
    again = StudyStore(store.folder, 10, 1 << 20)
    again.open()
    with pytest.raises(Refused, match="another patient") as refusal:
        receive(again, [paths[1]])
    assert refusal.value.status == 0xC002


def test_study_with_new_instances_is_not_deleted(store, tmp_path):
    paths = write_ct_study(tmp_path / "ct")
    receive(store, paths[:4])
    (key,) = store.quiet(0, 0)
    study = store.queue(key)
    study = store.change(study, state="sent")
    receive(store, paths[4:])
    assert not store.delete(study)
    store.queue(key)
    assert store.delete(store.read(key))
    assert list(store.studies.iterdir()) == []


@pytest.mark.integration
def test_help_imports_nothing_heavy():
    script = (
        "import sys; from liverseg.cli.main import main\ntry: main(['listen', '--help'])\nexcept SystemExit: pass\n"
    )
    script += "print(*sys.modules, file=sys.stderr)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules = {*run.stderr.split()}
    assert modules & {"torch", "pynetdicom", "pandas", "SimpleITK", "scipy.ndimage"} == set()
    assert "--destination" in run.stdout
