"""Studies from a DICOMweb server and results back to it; a real Orthanc is the server."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pydicom
import pytest
from node_processes import IDENTIFIERS, Node, free_port, send, write_ct_study
from orthanc import INSTALLED, Orthanc

from liverseg.cli.main import main
from liverseg.errors import UsageError
from liverseg.pacs.dicomweb import TOKEN_VARIABLE, DicomWebUrl

needs_orthanc = pytest.mark.skipif(not INSTALLED, reason="Orthanc is not installed")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Orthanc with two CT studies, and an MR series in the first."""
    folder = tmp_path_factory.mktemp("orthanc")
    with Orthanc(folder / "server") as orthanc:
        for number in (1, 2):
            orthanc.upload(write_ct_study(folder / str(number), number=number))
        other = pydicom.dcmread(folder / "1" / "0.dcm")
        other.Modality, other.SeriesInstanceUID = "MR", "1.2.3.4.5"
        other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5.6"
        other.save_as(folder / "mr.dcm")
        orthanc.upload([folder / "mr.dcm"])
        yield orthanc


def study_url(server, number):
    return f"{server.url}/dicom-web/studies/1.2.826.0.1.3680043.10.1000.{number}"


def run(*words):
    return main([str(word) for word in words])


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        ("https://a.b/dicom-web/studies/1.2", DicomWebUrl("https://a.b/dicom-web", "1.2")),
        ("http://a:80/x/y/studies/1.2/series/3.4/", DicomWebUrl("http://a:80/x/y", "1.2", "3.4")),
        ("https://a/w/studies?StudyDate=2025", DicomWebUrl("https://a/w", query=(("StudyDate", "2025"),))),
        ("https://a/w/", DicomWebUrl("https://a/w")),
    ],
)
def test_urls(url, parsed):
    assert DicomWebUrl.parse(url) == parsed


@pytest.mark.parametrize(
    "url", ["ftp://a/studies/1", "https://u:p@a/studies/1", "https://a/b/studies/..%2f", "https://"]
)
def test_urls_that_are_refused(url):
    with pytest.raises(UsageError) as refusal:
        DicomWebUrl.parse(url)
    assert "p@" not in str(refusal.value)


@needs_orthanc
@pytest.mark.integration
def test_study_is_fetched_computed_and_its_results_are_stored(server, weights, tmp_path, capsys):
    words = ("--weights", weights, "--liver", "none", "--store-to", f"{server.url}/dicom-web")
    assert run("predict", study_url(server, 1), tmp_path / "out", *words) == 0
    (case,) = (tmp_path / "out").iterdir()
    record = json.loads((case / "record.json").read_text(encoding="utf-8"))
    assert record["input"]["series"]["slices"] == 5
    (seg,) = server.instances("SEG")
    (sr,) = server.instances("SR")
    for item in (seg, sr):
        assert item["PatientID"] == "PID-1" and item["PatientName"] == IDENTIFIERS["PatientName"]
        assert item["StudyInstanceUID"] == "1.2.826.0.1.3680043.10.1000.1"
    assert "2 objects stored" in capsys.readouterr().out
    assert (
        run("predict", study_url(server, 1) + "/series/1.2.826.0.1.3680043.10.1000.1.1", tmp_path / "out", *words) == 0
    )
    assert len(server.instances("SEG")) == 1  # the same object


@needs_orthanc
@pytest.mark.integration
def test_batch_of_a_query_is_resumed_and_stored_once(server, weights, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("--weights", weights, "--liver", "none", "--store-to", f"{server.url}/dicom-web")
    query = f"{server.url}/dicom-web/studies?ModalitiesInStudy=CT"
    assert run("batch", query, "out", *words) == 0
    assert "2 cases stored" in capsys.readouterr().out
    assert {item["PatientID"] for item in server.instances("SEG")} == {"PID-1", "PID-2"}
    assert run("batch", query, tmp_path / "out", *words) == 0
    lines = (tmp_path / "out" / "run.jsonl").read_text(encoding="utf-8").splitlines()
    assert len([line for line in map(json.loads, lines) if line["event"] == "done"]) == 2
    assert "0 cases stored" in capsys.readouterr().out


@needs_orthanc
@pytest.mark.integration
def test_manifest_with_urls_and_paths(server, weights, tmp_path, capsys):
    write_ct_study(tmp_path / "local", number=7)
    (tmp_path / "cases.csv").write_text(
        f"case,image\na,{study_url(server, 2)}\nb,local\nc,{server.url}/dicom-web/studies/1.2.3.999\n"
    )
    assert run("batch", tmp_path / "cases.csv", tmp_path / "out", "--weights", weights, "--liver", "none") == 3
    assert "c: not fetched: " in (shown := capsys.readouterr().err) and "the server has no such study" in shown
    failed = (tmp_path / "out" / "failed.csv").read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[:2] for line in failed[1:]] == [["c", "unreadable"]]
    assert all((tmp_path / "out" / name / "segmentation.dcm").exists() for name in "ab")


@needs_orthanc
@pytest.mark.integration
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/dicom-web/studies/1.2.3.999", "no such study"),
        ("/dicom-web/studies/1.2.826.0.1.3680043.10.1000.1/series/9.9", "no such CT series"),
        ("/nowhere/studies/1.2.3", "not found (404)"),
        ("/app/explorer.html", "names no study"),
    ],
)
def test_mistakes_are_one_line(server, weights, tmp_path, capsys, path, message):
    assert run("predict", f"{server.url}{path}", tmp_path / "out", "--weights", weights) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()


@needs_orthanc
@pytest.mark.integration
def test_server_that_wants_a_token(weights, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, "not-the-right-token")
    with Orthanc(tmp_path / "server", password="secret") as server:
        assert run("predict", study_url(server, 1), tmp_path / "out", "--weights", weights) == 1
        monkeypatch.delenv(TOKEN_VARIABLE)
        assert run("predict", study_url(server, 1), tmp_path / "out", "--weights", weights) == 1
    shown = capsys.readouterr().err
    assert f"refuses the token of {TOKEN_VARIABLE} (401)" in shown and "not-the-right-token" not in shown
    assert f"wants a token (401); set {TOKEN_VARIABLE}" in shown


class _Recorder(BaseHTTPRequestHandler):
    """Answers every request with a page, and keeps its headers."""

    seen = []  # noqa: RUF012

    def do_GET(self):
        self.seen.append(dict(self.headers))
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<html>Welcome</html>")

    def log_message(self, *_):
        pass


@pytest.mark.integration
def test_token_is_sent_to_this_machine_or_by_tls_alone(weights, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, "tok-123")
    web = HTTPServer(("127.0.0.1", free_port()), _Recorder)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{web.server_port}/studies/1.2.3"
    assert run("predict", url, tmp_path / "out", "--weights", weights) == 1
    assert "does not answer as a DICOMweb server" in capsys.readouterr().err
    assert _Recorder.seen[0]["Authorization"] == "Bearer tok-123"
    assert run("predict", url.replace("http", "https"), tmp_path / "out", "--weights", weights) == 1
    assert "TLS failed; does the server speak https at this port?" in capsys.readouterr().err
    web.shutdown()
    assert run("predict", "http://pacs.invalid/studies/1.2.3", tmp_path / "out", "--weights", weights) == 2
    shown = capsys.readouterr().err
    assert "not sent without TLS" in shown and "tok-123" not in shown


@pytest.mark.integration
def test_server_that_is_not_there(weights, tmp_path, capsys):
    url = f"http://127.0.0.1:{free_port()}/studies/1.2.3"
    assert run("predict", url, tmp_path / "out", "--weights", weights) == 1
    assert "cannot be reached" in capsys.readouterr().err


@needs_orthanc
@pytest.mark.integration
def test_node_sends_to_orthanc_with_storage_commitment(weights, tmp_path):
    port = free_port()
    with Orthanc(tmp_path / "server", modalities={"node": ("LIVERSEG", port)}) as server:
        options = [
            "--destination",
            f"ORTHANC@127.0.0.1:{server.dicom_port}",
            "--commit",
            "--summary",
            "secondary-capture",
        ]
        with Node(tmp_path / "node", "--weights", weights, "--liver", "none", *options, port=port) as node:
            send(port, write_ct_study(tmp_path / "ct", number=5))
            assert node.wait_for("sent")[0]["how"] == "committed"
        assert [len(server.instances(modality)) for modality in ("SEG", "SR", "OT")] == [1, 1, 1]
