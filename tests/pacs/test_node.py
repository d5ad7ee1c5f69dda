"""The node in a process: receive, compute, send, restart, refuse."""

import json
import resource
import shutil
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from dicom_files import compress
from node_processes import IDENTIFIERS, Archive, Node, connect, free_port, send, write_ct_study
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom.sop_class import InstanceAvailabilityNotification, MRImageStorage, SecondaryCaptureImageStorage

from liverseg.cli.main import main
from liverseg.imageio.dicom_series import read_series

pytestmark = pytest.mark.integration


@pytest.fixture
def options(weights):
    """Options with which a study takes about a second."""
    return ["--weights", weights, "--liver", "none"]


def conformance_errors(folder):
    """Return the errors that dciodvfy finds in the objects of a node; none if it is not installed."""
    if shutil.which("dciodvfy") is None:
        return []
    paths = sorted(folder.glob("outgoing/*/*.dcm"))
    runs = [subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True) for path in paths]
    return [line for run in runs for line in (run.stdout + run.stderr).splitlines() if line.startswith("Error")]


def test_study_is_received_computed_and_sent_to_the_destination(tmp_path, options):
    paths = write_ct_study(tmp_path / "ct", slices=6)
    sent = ["--destination", "ARCHIVE@127.0.0.1:{}", "--summary", "pdf"]
    with Archive() as archive:
        sent[1] = sent[1].format(archive.port)
        with Node(tmp_path / "node", *options, *sent) as node:
            assert send(node.port, paths[:3]) == [0, 0, 0]
            assert send(node.port, paths[3:]) == [0, 0, 0]
            node.wait_for("sent")
            code, out = node.stop()
    assert code == 0, out
    source = pydicom.dcmread(paths[0])
    assert node.states() == {source.StudyInstanceUID: "sent"}
    seg, _, pdf = archive.objects
    assert [item.Modality for item in archive.objects] == ["SEG", "SR", "DOC"]
    for item in archive.objects:
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber", "StudyInstanceUID"):
            assert item[keyword].value == source[keyword].value, keyword
        assert item.StudyDescription == IDENTIFIERS["StudyDescription"]
        assert "PatientIdentityRemoved" not in item
    assert bytes(pdf.EncapsulatedDocument).startswith(b"%PDF-")
    assert conformance_errors(node.folder) == []
    seg.save_as(tmp_path / "seg.dcm", enforce_file_format=True)
    frames = hd.seg.segread(tmp_path / "seg.dcm")
    referenced = {
        item.ReferencedSOPInstanceUID for item in frames.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert referenced == {pydicom.dcmread(path).SOPInstanceUID for path in paths}
    # as received: the data sets are byte for byte those of the files
    received = {}
    for path in node.instances():
        item = pydicom.dcmread(path)
        received[item.SOPInstanceUID] = item
    for path in paths:
        item = pydicom.dcmread(path)
        assert received[item.SOPInstanceUID] == item
        np.testing.assert_array_equal(received[item.SOPInstanceUID].pixel_array, item.pixel_array)


def test_later_slices_make_a_new_version_that_replaces_the_first(tmp_path, options):
    paths = write_ct_study(tmp_path / "ct", slices=6)
    with (
        Archive() as archive,
        Node(tmp_path / "node", *options, "--destination", f"ARCHIVE@127.0.0.1:{archive.port}") as node,
    ):
        send(node.port, paths[:4])
        node.wait_for("sent")
        assert send(node.port, paths) == [0] * 6  # the first four again: nothing changes for them
        node.wait_for("sent", times=2)
        node.stop()
    assert len(archive.objects) == len(set(archive.uids())) == 4
    (case,) = [path for path in (tmp_path / "node" / "results").iterdir() if not path.name.startswith(".")]
    assert case.name.endswith("-2")
    record = json.loads((case / "record.json").read_text(encoding="utf-8"))
    assert record["input"]["series"]["slices"] == 6
    assert [line["instances"] for line in node.log("queued")] == [4, 6]


def test_same_study_gives_the_same_objects_on_another_node(tmp_path, options):
    paths = write_ct_study(tmp_path / "ct")
    found = []
    for name in ("first", "second"):
        with (
            Archive() as archive,
            Node(
                tmp_path / name,
                *options,
                "--destination",
                f"ARCHIVE@127.0.0.1:{archive.port}",
                "--summary",
                "secondary-capture",
            ) as node,
        ):
            send(node.port, paths)
            node.wait_for("sent")
        found.append([(item.SOPInstanceUID, item.SeriesInstanceUID) for item in archive.objects])
    assert found[0] == found[1] and len(found[0]) == 3
    assert conformance_errors(tmp_path / "first") == []


@pytest.mark.parametrize("commit", ["same", pytest.param("new", marks=pytest.mark.slow)])
def test_storage_commitment_is_waited_for_and_lost_objects_are_sent_again(tmp_path, options, commit):
    paths = write_ct_study(tmp_path / "ct")
    port = free_port()
    with Archive(commit=commit, node=port) as archive:
        sent = ["--destination", f"ARCHIVE@127.0.0.1:{archive.port}", "--commit"]
        with Node(tmp_path / "node", *options, *sent, port=port) as node:
            send(port, paths)
            assert node.wait_for("sent")[0]["how"] == "committed"
            archive.objects.clear()
    assert len(archive.requests) == 1

    with Archive(commit=commit, node=port) as archive:
        archive.lost = {f"{number}" for number in range(3)}
        lost = archive.lost
        archive._status = lambda item, count: lost.add(str(item.SOPInstanceUID)) or 0 if count == 0 else 0
        sent = ["--destination", f"ARCHIVE@127.0.0.1:{archive.port}", "--commit"]
        with Node(tmp_path / "again", *options, *sent, port=port) as node:
            send(port, paths)
            node.wait_for("not committed")
            lost.clear()
            node.wait_for("sent")
    assert len(set(archive.uids())) == 2 and len(archive.uids()) == 4


def test_destination_without_storage_commitment_is_enough(tmp_path, options):
    paths = write_ct_study(tmp_path / "ct")
    with (
        Archive() as archive,
        Node(tmp_path / "node", *options, "--destination", f"ARCHIVE@127.0.0.1:{archive.port}", "--commit") as node,
    ):
        send(node.port, paths)
        assert "offers no storage commitment" in node.wait_for("sent")[0]["how"]


def test_storage_commitment_that_is_refused_is_asked_for_again_soon(tmp_path, options):
    paths = write_ct_study(tmp_path / "ct")
    with (
        Archive(commit="refused once") as archive,
        Node(tmp_path / "node", *options, "--destination", f"ARCHIVE@127.0.0.1:{archive.port}", "--commit") as node,
    ):
        send(node.port, paths)
        assert "refused (status 0x0110); does the destination know" in node.wait_for("not sent")[0]["reason"]
        assert node.wait_for("sent")[0]["how"] == "committed"
        assert len(archive.objects) == 2


def test_destination_that_is_down_gets_the_result_when_it_is_up(tmp_path, options):
    paths, port = write_ct_study(tmp_path / "ct"), free_port()
    with Node(tmp_path / "node", *options, "--destination", f"ARCHIVE@127.0.0.1:{port}") as node:
        send(node.port, paths)
        node.wait_for("destination unreachable")
        assert set(node.states().values()) == {"computed"}
        with Archive(port) as archive:
            node.wait_for("sent")
            assert len(archive.objects) == 2


def test_object_that_is_refused_is_tried_again_and_the_others_are_not(tmp_path, options):
    paths = write_ct_study(tmp_path / "ct")
    with (
        Archive(status=lambda item, count: 0xA700 if count == 1 else 0) as archive,
        Node(tmp_path / "node", *options, "--destination", f"ARCHIVE@127.0.0.1:{archive.port}") as node,
    ):
        send(node.port, paths)
        assert node.wait_for("not sent")[0]["reason"] == "measurements.dcm: refused with status 0xA700"
        node.wait_for("sent")
        assert [item.Modality for item in archive.objects] == ["SEG", "SR"]


def test_failed_study_has_a_category_and_is_tried_again_on_request(tmp_path, options):
    paths = write_ct_study(tmp_path / "ct", slices=6)
    del paths[2]  # a gap
    with Node(tmp_path / "node", *options) as node:
        send(node.port, paths)
        assert node.wait_for("failed")[0]["category"] == "geometry"
        node.stop()
        assert set(node.states().values()) == {"failed"}
        node.start()
        time.sleep(1)
        assert len(node.log("failed")) == 1
        node.stop()
        node._options = [*node._options, "--retry-failed"]
        node.start()
        node.wait_for("failed", times=2)


@pytest.mark.parametrize(
    "step", ["received", "begun", *(pytest.param(step, marks=pytest.mark.slow) for step in ("queued", "done", "sent"))]
)
def test_killed_after_a_step_goes_on_at_the_next_start(tmp_path, options, step):
    paths = write_ct_study(tmp_path / "ct")
    with (
        Archive() as archive,
        Node(tmp_path / "node", *options, "--destination", f"ARCHIVE@127.0.0.1:{archive.port}") as node,
    ):
        assert send(node.port, paths) == [0] * 5
        node.wait_for(step)
        node.kill()
        assert len(node.instances()) == 5
        node.start()
        if step == "sent":
            time.sleep(1)
        node.wait(lambda: set(node.states().values()) == {"sent"})
        node.stop()
    assert len(set(archive.uids())) == 2
    assert len(node.log("sent")) == 1
    assert not list((tmp_path / "node" / "incoming").iterdir())


def test_whatever_was_accepted_before_a_kill_is_there_after_it(tmp_path, options):
    paths = write_ct_study(tmp_path / "ct", slices=40)
    accepted = set()
    with Node(tmp_path / "node", *options, "--quiet-seconds", "600") as node:
        for kill_after in (7, 19, 26):
            association = connect(node.port)
            for count, path in enumerate(paths):
                item = pydicom.dcmread(path)
                if item.SOPInstanceUID in accepted:
                    continue
                if count == kill_after:
                    node.process.send_signal(signal.SIGKILL)
                status = association.send_c_store(item) if association.is_established else pydicom.Dataset()
                if status.get("Status") == 0:
                    accepted.add(item.SOPInstanceUID)
                if node.process.poll() is not None:
                    break
            node.kill()
            stored = {pydicom.dcmread(path).SOPInstanceUID for path in node.instances()}
            assert stored >= accepted and len(accepted) >= kill_after
            node.start()
        association.abort()


def test_peer_that_closes_in_the_middle_of_an_object_leaves_nothing(tmp_path, options):
    path = write_ct_study(tmp_path / "ct", slices=1)[0]
    item = pydicom.dcmread(path)
    with Node(tmp_path / "node", *options) as node:
        association = connect(node.port)
        real, calls = association.dul.socket.send, []

        def send_part(data):
            calls.append(data)
            real(data[: len(data) // 2])
            association.dul.socket.socket.shutdown(socket.SHUT_RDWR)

        association.dul.socket.send = send_part
        association.send_c_store(item)
        assert calls
        assert send(node.port, [path]) == [0]
        assert len(node.instances()) == 1


def test_sigterm_lets_a_study_wait_on_disk(tmp_path, options):
    paths = write_ct_study(tmp_path / "ct")
    with Node(tmp_path / "node", *options, "--quiet-seconds", "600") as node:
        assert send(node.port, paths) == [0] * 5
        code, _ = node.stop(signal.SIGINT)
        assert code == 0
        assert node.log("run ended") and node.log("received")[0]["instances"] == 5
        assert not (tmp_path / "node" / "alive").exists()


def test_objects_that_are_not_ct(tmp_path, options):
    path = write_ct_study(tmp_path / "ct", slices=1)[0]
    other = pydicom.dcmread(path)
    other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    classes = (SecondaryCaptureImageStorage, MRImageStorage)
    with Node(tmp_path / "refusing", *options) as node:
        association = connect(node.port, classes=classes)
        assert not association.accepted_contexts or all(
            context.abstract_syntax not in classes for context in association.accepted_contexts
        )
        association.release()
    with Node(tmp_path / "ignoring", *options, "--others", "ignore") as node:
        association = connect(node.port, classes=classes)
        assert association.send_c_store(other).Status == 0xB006
        association.release()
        assert node.wait_for("ignored")[0]["instances"] == 1
        assert node.instances() == []


def test_same_uid_with_other_content_and_another_patient_are_refused(tmp_path, options):
    paths = write_ct_study(tmp_path / "ct", slices=3)
    changed, other = pydicom.dcmread(paths[0]), pydicom.dcmread(paths[1])
    changed.PixelData = bytes(len(changed.PixelData))
    other.PatientID = "somebody else"
    with Node(tmp_path / "node", *options, "--quiet-seconds", "600") as node:
        before = send(node.port, paths[:1])
        association = connect(node.port)
        statuses = [association.send_c_store(item).Status for item in (changed, other)]
        association.release()
        assert [*before, *statuses] == [0, 0xC001, 0xC002]
        (kept,) = node.instances()
        assert pydicom.dcmread(kept).PixelData == pydicom.dcmread(paths[0]).PixelData
        node.wait_for("received", times=2)
        assert node.audit()[-1]["EventOutcomeDescription"] == {
            "another instance with this UID is there": 1,
            "another patient than the study's": 1,
        }


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_uids_that_are_paths_or_missing_are_refused(tmp_path, options):
    path = write_ct_study(tmp_path / "ct", slices=1)[0]
    with Node(tmp_path / "node", *options, "--quiet-seconds", "600") as node:
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
            for value in ("../../../../tmp/hostile", "1.2.3/../../x", "", "1" * 65, "1.2\0.3"):
                item = pydicom.dcmread(path)
                item[keyword]._value = value
                association = connect(node.port)
                assert association.send_c_store(item).Status == 0xC000, (keyword, value)
                association.release()
        item = pydicom.dcmread(path)
        association = connect(node.port)
        real = association.dimse.send_msg

        def send_other_uid(request, context):
            request.AffectedSOPInstanceUID = "1.2.3.4"
            real(request, context)

        association.dimse.send_msg = send_other_uid
        assert association.send_c_store(item).Status == 0xA900
        association.release()
        assert node.instances() == []
        assert send(node.port, [path]) == [0]
        assert len(node.instances()) == 1
        assert not list(tmp_path.rglob("*hostile*"))


def test_limits_of_a_study(tmp_path, options):
    paths = write_ct_study(tmp_path / "ct", slices=4)
    size = paths[0].stat().st_size
    with Node(tmp_path / "count", *options, "--max-instances", "2", "--quiet-seconds", "600") as node:
        assert send(node.port, paths) == [0, 0, 0xA700, 0xA700]
    limit = ["--max-study-gb", str(max(0.001, 3.5 * size / (1 << 30)))]
    large = write_ct_study(tmp_path / "large", number=2, slices=1)[0]
    item = pydicom.dcmread(large)
    item.add_new(0x00091010, "OB", bytes(2 << 20))
    item.add_new(0x00090010, "LO", "TEST")
    item.save_as(large)
    with Node(tmp_path / "size", *options, *limit, "--quiet-seconds", "600") as node:
        assert send(node.port, [large, *paths]) == [0xA700, 0, 0, 0, 0]


def test_full_disk_is_refused_before_it_is_full(tmp_path, options):
    paths = write_ct_study(tmp_path / "ct", slices=1)
    with Node(tmp_path / "node", *options, "--min-free-gb", "1000000") as node:
        assert send(node.port, paths) == [0xA700]
        assert node.instances() == []


def test_object_that_cannot_be_written_while_it_arrives_is_one_line_in_the_journal(tmp_path, options):
    paths = write_ct_study(tmp_path / "ct", slices=2)
    large = pydicom.dcmread(paths[1])
    large.add_new(0x00090010, "LO", "TEST")
    large.add_new(0x00091010, "OB", bytes(2 << 20))
    large.save_as(paths[1])
    with Node(tmp_path / "node", *options, "--quiet-seconds", "600") as node:
        resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        assert send(node.port, paths[1:]) != [0]
        (line,) = node.wait_for("error")
        assert line["reason"] == "an object cannot be written while it arrives (File too large)"
        assert send(node.port, paths[:1]) == [0]
        _, out = node.stop()
        assert "Traceback" not in out


def test_callers_that_are_not_allowed(tmp_path, options):
    with Node(tmp_path / "node", *options, "--allow-ae", "CT1", "--allow-ae", "CT2") as node:
        assert connect(node.port, ae_title="OTHER").is_rejected
        assert connect(node.port, ae_title="CT1", called="NOBODY").is_rejected
        association = connect(node.port, ae_title="CT2")
        assert association.send_c_echo().Status == 0
        association.release()
        codes = [line["EventID"]["csd-code"] for line in node.audit()]
        assert codes.count("110113") == 2
        assert [line["reason"] for line in node.wait_for("connection refused", times=2)] == [
            "association rejected: calling AE title not allowed",
            "association rejected: called AE title is NOBODY, not LIVERSEG",
        ]
    with Node(tmp_path / "address", *options, "--allow-address", "10.1.0.0/16") as node:
        assert not connect(node.port).is_established
        assert node.wait_for("connection refused")[0]["reason"] == "address not allowed"
    with Node(tmp_path / "own", *options, "--allow-address", "127.0.0.0/8") as node:
        association = connect(node.port)
        assert association.is_established
        association.release()


def test_one_association_too_many_is_rejected(tmp_path, options):
    with Node(tmp_path / "node", *options, "--max-associations", "2") as node:
        open_ones = list(map(connect, [node.port] * 2))
        assert all(association.is_established for association in open_ones)
        assert connect(node.port).is_rejected
        assert node.wait_for("connection refused")[0]["reason"] == "association rejected: too many associations"
        for association in open_ones:
            association.release()


def test_huge_pdu_ends_the_connection_and_not_the_node(tmp_path, options):
    with Node(tmp_path / "node", *options) as node:
        with socket.create_connection(("127.0.0.1", node.port)) as raw:
            raw.settimeout(20)
            raw.sendall(struct.pack(">BBL", 1, 0, 0xFFFFFFFF) + bytes(1000))
            assert raw.recv(100) in (b"", b"\7\0\0\0\0\4\0\0\2\0")  # closed, or an abort
        association = connect(node.port)
        assert association.send_c_echo().Status == 0
        association.release()


def test_two_nodes_do_not_share_a_folder(tmp_path, options):
    with Node(tmp_path / "node", *options) as node:
        other = Node.__new__(Node)
        other.folder, other.port, other._options, other._environment = node.folder, free_port(), options, {}
        other.start(wait=False)
        out, _ = other.process.communicate(timeout=60)
        assert other.process.returncode == 1
        assert "another node uses this folder" in out


def test_compressed_slices_are_stored_as_they_come(tmp_path, options):
    syntaxes = [
        *(ExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEGLosslessSV1, JPEGLossless, JPEG2000Lossless),
    ]
    paths = write_ct_study(tmp_path / "ct", slices=len(syntaxes))
    expected = np.stack([pydicom.dcmread(path).pixel_array for path in paths]) - 1024
    for path, syntax in zip(paths, syntaxes, strict=True):
        compress(path, syntax)
    with Node(tmp_path / "node", *options) as node:
        sent = {}
        for path, syntax in zip(paths, syntaxes, strict=True):
            item = pydicom.dcmread(path)
            association = connect(node.port, syntaxes=[syntax])
            assert association.send_c_store(item).Status == 0
            association.release()
            sent[item.SOPInstanceUID] = syntax, item.PixelData
        kept = [pydicom.dcmread(path) for path in node.instances()]
        assert {item.SOPInstanceUID: (item.file_meta.TransferSyntaxUID, item.PixelData) for item in kept} == sent
        node.wait_for("done")
        (folder,) = {path.parent for path in node.instances()}
        np.testing.assert_array_equal(read_series(folder)[0].transpose(2, 1, 0), expected)


@pytest.mark.skipif(shutil.which("storescu") is None, reason="dcmtk is not installed")
def test_dcmtk_sends_and_echoes(tmp_path, options):
    paths = write_ct_study(tmp_path / "ct")
    with Node(tmp_path / "node", *options) as node:
        peer = ["-aec", "LIVERSEG", "-aet", "DCMTK", "127.0.0.1", str(node.port)]
        assert subprocess.run(["echoscu", *peer]).returncode == 0
        assert subprocess.run(["echoscu", "-aec", "NOBODY", *peer[2:]], capture_output=True).returncode != 0
        subprocess.run(["storescu", *peer, *map(str, paths)], check=True)
        assert node.wait_for("done")
        assert node.log("association")[0]["ae_title"] == "DCMTK"


def test_notification_that_all_instances_are_available_ends_the_waiting(tmp_path, options):
    paths = write_ct_study(tmp_path / "ct")
    items = list(map(pydicom.dcmread, paths))
    notice = pydicom.Dataset()
    notice.StudyInstanceUID = items[0].StudyInstanceUID
    series = pydicom.Dataset()
    series.SeriesInstanceUID, series.ReferencedSOPSequence = items[0].SeriesInstanceUID, []
    for item in items:
        reference = pydicom.Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = item.SOPClassUID, item.SOPInstanceUID
        series.ReferencedSOPSequence.append(reference)
    notice.ReferencedSeriesSequence = [series]
    with Node(tmp_path / "node", *options, "--quiet-seconds", "600") as node:
        send(node.port, paths[:-1])
        association = connect(node.port, classes=(InstanceAvailabilityNotification,))
        assert association.send_n_create(notice, InstanceAvailabilityNotification, "1.2.3")[0].Status == 0
        association.release()
        time.sleep(1)
        assert not node.log("queued")  # an instance is missing
        send(node.port, paths)
        association = connect(node.port, classes=(InstanceAvailabilityNotification,))
        association.send_n_create(notice, InstanceAvailabilityNotification, "1.2.4")
        association.release()
        assert node.wait_for("queued")[0]["instances"] == 5


def test_studies_are_deleted_after_the_time_to_keep_them(tmp_path, options):
    paths = write_ct_study(tmp_path / "ct")
    with Archive() as archive:
        sent = ["--destination", f"ARCHIVE@127.0.0.1:{archive.port}"]
        with Node(tmp_path / "node", *options, *sent) as node:
            send(node.port, paths)
            node.wait_for("sent")
            node.stop()
            node._options = [*node._options, "--keep-days", "0"]
            node.start()
            node.wait_for("deleted")
            for name in ("studies", "outgoing", "incoming"):
                assert not list((node.folder / name).iterdir())
            assert [path.name for path in (node.folder / "results").iterdir()] == [".liverseg"]
            send(node.port, paths[:1])  # nothing remembers the study
            assert len(node.instances()) == 1


def test_check_counts_the_studies_and_fails_without_a_node(tmp_path, options, capsys):
    paths = write_ct_study(tmp_path / "ct")
    with Node(tmp_path / "node", *options) as node:
        send(node.port, paths)
        node.wait_for("done")
        words = ["listen", str(node.folder), "--check", "--port", str(node.port), "--min-free-gb", "0"]
        assert main(words) == 0
        lines = capsys.readouterr().out.splitlines()
        assert "computed: 1" in lines and "failed: 0" in lines
        assert main([*words, "--ae-title", "OTHER"]) == 1
        assert "the association was rejected: Called AE title not recognised" in capsys.readouterr().err
        node.stop()
        assert main(words) == 1
        assert "no answer to C-ECHO (no connection: Connection refused)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("prot: 104", "unknown option 'prot'; did you mean port?"),
        ("port: high", "argument --port: invalid int value: 'high'"),
        ("- port", "options and values are needed"),
        ("port: 99999999", "port is 99999999; 0 to 65535 are allowed"),
        ("destination: archive", "destination 'archive'; AE@HOST:PORT is needed"),
        ("ae-title: a title that is too long", "1 to 16 characters"),
        ("allow-address: [10.0.0.0/99]", "allow-address '10.0.0.0/99'"),
        ("commit: true", "--destination"),
        ("tls-cert: a.pem", "TLS needs both a certificate and its key"),
        ("others: keep", "argument --others: invalid choice: 'keep'"),
        (": :", "cannot be read as YAML"),
        ("ae-title:", "ae-title is ''; one value is needed"),
        ("port: [104, 105]", "port is ['104', '105']; one value is needed"),
        ("allow-ae: [CT1, {CT2: 1}]", "values are needed"),
        ("commit: often", "commit is 'often'; true or false is needed"),
        ("commit: [true]", "true or false is needed"),
        ("min-free-gb: -1", "min-free-gb is -1.0; 0 to 1048576 are allowed"),
    ],
)
def test_mistakes_in_a_config_are_one_line(tmp_path, capsys, content, message):
    (tmp_path / "node.yaml").write_text(content)
    assert main(["listen", str(tmp_path / "node"), "--config", str(tmp_path / "node.yaml")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "node").exists()


def test_config_sets_options_and_the_command_line_wins(tmp_path, weights):
    (tmp_path / "node.yaml").write_text(
        f"ae-title: CONFIG\nallow-ae: [CT1, NO, 0123]\nweights: {weights}\nliver: none\nreport: true\nport: 1\n"
        "untilt: false\ncommit: false\n"
    )
    with Node(tmp_path / "node", "--config", tmp_path / "node.yaml") as node:
        for title in ("CT1", "NO", "0123"):  # the last two are no text in YAML
            association = connect(node.port, ae_title=title, called="CONFIG")
            assert association.is_established
            association.release()


def test_listening_process_imports_no_network(tmp_path, options):
    paths = write_ct_study(tmp_path / "ct")
    with Node(tmp_path / "node", *options) as node:
        send(node.port, paths)
        node.wait_for("done")
        maps = Path(f"/proc/{node.process.pid}/maps").read_text(encoding="utf-8")
        assert "libtorch" not in maps and "SimpleITK" not in maps
