"""The archive sends CT series to the node and results to the PACS, again if they cannot be reached."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager, suppress

import pydicom
import pytest
import yaml
from phantom_study import write_study
from pydicom.errors import InvalidDicomError
from servers import ARCHIVE, HOSPITAL, NODE, PASSWORD, USER, Archive, server, until

from liverseg.cli.main import SUBCOMMANDS

MISSING = [name for name in ("Orthanc", "storescu", "storescp") if shutil.which(name) is None]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)}")]
SLICES = 3
SCRIPT = "from liverseg.cli.main import main; raise SystemExit(main())"


@contextmanager
def receiver(folder, title, port):
    """Run DCMTK's storescp, which writes what it receives into a folder."""
    folder.mkdir(exist_ok=True)
    with server(["storescp", "-aet", title, "-od", str(folder), "-fe", ".dcm", str(port)], [port], folder / "log"):
        yield


def received(folder):
    """Return modality and SOPInstanceUID of the complete files in a folder."""
    headers = []
    for path in folder.glob("*.dcm"):
        with suppress(InvalidDicomError, EOFError):  # storescp is still writing it
            headers.append(pydicom.dcmread(path, stop_before_pixels=True))
    return {(header.Modality, header.SOPInstanceUID) for header in headers if "Modality" in header}


def changed(source, folder, **tags):
    """Write copies of the first slices of a series with other tags; return their modality and SOPInstanceUID."""
    folder.mkdir()
    for number, path in enumerate(sorted(source.iterdir())[:SLICES]):
        header = pydicom.dcmread(path)
        for keyword, value in tags.items():
            setattr(header, keyword, value)
        header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = (
            f"{header.SeriesInstanceUID[:60]}.{number}"
        )
        header.save_as(folder / path.name)
    return received(folder)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "ct"
    write_study(folder, 6, 64)
    return folder


def test_series_wait_for_the_node_and_results_for_the_pacs(study, tmp_path):
    sent = changed(study, tmp_path / "ct")
    changed(study, tmp_path / "mr", Modality="MR", SeriesInstanceUID="1.2.3")
    own = changed(study, tmp_path / "own", Modality="SR", Manufacturer="liverseg", SeriesInstanceUID="1.2.4")
    changed(study, tmp_path / "other", Modality="SR", SeriesInstanceUID="1.2.5")
    later = changed(study, tmp_path / "later", SeriesInstanceUID="1.2.6")
    archive = Archive(tmp_path / "orthanc")
    with archive.running(send_results=True):
        for name in ("ct", "mr", "own", "other"):
            assert archive.store(tmp_path / name)[0] == 0
        until(
            lambda: archive.failures() >= 2 and sorted(name for _, name in archive.not_sent()) == ["liverseg", "pacs"],
            message="nothing was sent",
        )
        with receiver(tmp_path / "node", NODE, archive.node_port):  # with the next series, it tries again
            assert archive.store(tmp_path / "later")[0] == 0
            until(lambda: received(tmp_path / "node") == sent | later, message="it did not try again")
            until(lambda: [name for _, name in archive.not_sent()] == ["pacs"], message="it kept what was sent")
    with receiver(tmp_path / "pacs", "PACS", archive.pacs_port), archive.running(send_results=True):  # at its start too
        until(lambda: archive.not_sent() == [], message="it did not try again")
    assert received(tmp_path / "pacs") == own
    assert len(sent) == len(own) == len(later) == SLICES


def test_results_stay_in_the_archive_by_default(study, tmp_path):
    changed(study, tmp_path / "own", Modality="SR", Manufacturer="liverseg", SeriesInstanceUID="1.2.4")
    sent = changed(study, tmp_path / "ct")
    archive = Archive(tmp_path / "orthanc")
    with receiver(tmp_path / "node", NODE, archive.node_port), receiver(tmp_path / "pacs", "PACS", archive.pacs_port):
        with archive.running():
            assert archive.store(tmp_path / "own")[0] == 0
            assert archive.store(tmp_path / "ct")[0] == 0
            until(lambda: received(tmp_path / "node") == sent)
        assert received(tmp_path / "pacs") == set()


def test_only_known_applications_may_store(study, tmp_path):
    changed(study, tmp_path / "ct")
    with Archive(tmp_path / "orthanc").running() as archive:
        assert archive.store(tmp_path / "ct", sender="STRANGER")[0] != 0
        assert archive.store(tmp_path / "ct", called="ANOTHER")[0] != 0
        assert archive.search("series") == []
        assert archive.store(tmp_path / "ct")[0] == 0
        assert archive.modalities() == ["CT"]


def test_the_health_check_asks_for_the_plugin_of_the_viewer(tmp_path):
    compose = yaml.safe_load((HOSPITAL / "compose.yaml").read_text(encoding="utf-8"))
    kind, *command = compose["services"]["orthanc"]["healthcheck"]["test"]
    archive = Archive(tmp_path / "orthanc")
    for name, port in (("8042", archive.http_port), ("4242", archive.dicom_port)):
        command[-1] = command[-1].replace(name, str(port))
    command[-1] = command[-1].replace("$$", "$")
    environment = {**os.environ, "VIEWER_USER": USER, "VIEWER_PASSWORD": PASSWORD}

    def healthy(**changed):
        done = subprocess.run(command, env=environment | changed, capture_output=True, timeout=30)
        return done.returncode == 0

    assert kind == "CMD" and not healthy()
    with archive.running():
        assert healthy() and not healthy(VIEWER_PASSWORD="another")
    path = tmp_path / "orthanc" / "orthanc.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"Plugins": []}), encoding="utf-8")
    with archive.running():
        assert not healthy()


@pytest.mark.skipif("listen" not in SUBCOMMANDS, reason="no liverseg listen")
def test_a_study_comes_back_with_its_results(study, tmp_path):
    """PACS, archive, node, archive, PACS: with `liverseg listen` and its weights."""
    archive = Archive(tmp_path / "orthanc")
    options = yaml.safe_load((HOSPITAL / "node.yaml").read_text(encoding="utf-8"))
    assert (options["ae-title"], options["allow-ae"], options["port"]) == (NODE, [ARCHIVE], 11112)
    options |= {
        "address": "127.0.0.1",
        "port": archive.node_port,
        "destination": f"{ARCHIVE}@127.0.0.1:{archive.dicom_port}",
        "quiet-seconds": 2,
        "min-free-gb": 0,
    }
    (tmp_path / "node.yaml").write_text(yaml.safe_dump(options), encoding="utf-8")
    listen = [sys.executable, "-c", SCRIPT, "listen", str(tmp_path / "node"), "--config", str(tmp_path / "node.yaml")]
    (tmp_path / "logs").mkdir()
    with (
        receiver(tmp_path / "pacs", "PACS", archive.pacs_port),
        server(listen, [archive.node_port], tmp_path / "logs" / "node.log"),
        archive.running(send_results=True),
    ):
        assert archive.store(study)[0] == 0
        until(lambda: archive.modalities() == ["CT", "SEG", "SR"], seconds=300, message="no results in the archive")
        until(lambda: len(received(tmp_path / "pacs")) == 2, seconds=60, message="no results in the PACS")
    assert {modality for modality, _ in received(tmp_path / "pacs")} == {"SEG", "SR"}
    source = pydicom.dcmread(next(study.iterdir()))
    for path in (tmp_path / "pacs").glob("*.dcm"):
        result = pydicom.dcmread(path)
        for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "AccessionNumber", "StudyDate"):
            assert result[keyword].value == source[keyword].value
        assert result.Manufacturer == "liverseg"
