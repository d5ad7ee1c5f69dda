"""The app for MONAI Label in a real server, in the environment of `LIVERSEG_MONAILABEL_PYTHON`."""

import email
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from made_up_results import write_series

import liverseg

ROOT = Path(__file__).parents[2]
APP = ROOT / "integrations" / "monailabel" / "liverlesions"
PYTHON = os.environ.get("LIVERSEG_MONAILABEL_PYTHON", "")
START_SECONDS = 180

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="LIVERSEG_MONAILABEL_PYTHON names no Python with monailabel and liverseg"),
]


@pytest.fixture(scope="module")
def ct(tmp_path_factory):
    """A phantom CT whose liver the weights of liverseg find."""
    from liverseg.phantom import write_lits_tree

    root = tmp_path_factory.mktemp("cts")
    write_lits_tree(root, volumes=1, matrix=256, seed=3, workers=1, progress=False)
    return sorted(root.rglob("volume-*.nii*"))[0]


@pytest.fixture(scope="module")
def server(ct, tmp_path_factory):
    """Address of a running server whose studies are the folder of the CT."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("server")
    studies = folder / "studies"
    studies.mkdir()
    shutil.copy(ct, studies / f"phantom{''.join(ct.suffixes)}")
    app = shutil.copytree(APP, folder / "app")  # the server writes its log into it
    command = [PYTHON, "-m", "monailabel.main", "start_server", "--app", app, "--studies", studies]
    command += ["--host", "127.0.0.1", "--port", port, "--conf", "device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [*map(str, command)], env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + START_SECONDS
    try:
        while True:
            try:
                with urllib.request.urlopen(f"{address}/info/", timeout=10):
                    break
            except OSError:
                text = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
                assert process.poll() is None and time.monotonic() < deadline, text[-3000:]
                time.sleep(0.5)
        yield address
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def post(address, path="", upload=None, **params):
    """Post a form to the model; return the response's content type and body."""
    boundary = uuid.uuid4().hex
    parts = [b'Content-Disposition: form-data; name="params"\r\n\r\n' + json.dumps(params).encode()]
    if upload is not None:
        head = f'Content-Disposition: form-data; name="file"; filename="{upload.name}"\r\n\r\n'
        parts.append(head.encode() + upload.read_bytes())
    body = b"".join(b"--" + boundary.encode() + b"\r\n" + part + b"\r\n" for part in parts)
    request = urllib.request.Request(
        f"{address}/infer/liver_lesions?{path}",
        body + f"--{boundary}--\r\n".encode(),
        {"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )
    with urllib.request.urlopen(request, timeout=300) as response:
        return response.headers["Content-Type"], response.read()


@pytest.fixture(scope="module")
def expected(ct):
    return liverseg.predict(ct, device="cpu")


def test_the_server_describes_the_model(server):
    with urllib.request.urlopen(f"{server}/info/", timeout=30) as response:
        info = json.load(response)
    assert info["version"] == liverseg.__version__
    model = info["models"]["liver_lesions"]
    assert (model["type"], model["dimension"]) == ("segmentation", 3)
    assert model["labels"] == {"liver": 1, "cyst": 2, "hemangioma": 3, "metastasis": 4, "indeterminate": 5}


def check(found, params, expected, ct):
    """Compare a label map and its table with those of liverseg in this environment, and its grid with the CT's."""
    labels, theirs = sitk.GetArrayFromImage(found).T, expected.labels
    assert (theirs > 0).sum() > 1000
    assert (labels == theirs).mean() > 0.9999
    image = sitk.ReadImage(ct)
    for name in ("GetOrigin", "GetSpacing", "GetDirection"):
        np.testing.assert_allclose(getattr(found, name)(), getattr(image, name)(), atol=1e-4)
    assert params["liver_ml"] == pytest.approx(expected.record["liver_ml"], rel=0.01)
    assert [row["type"] for row in params["lesions"]] == expected.lesions["type"].tolist()
    ours = expected.lesions["volume_ml"].tolist()
    assert [row["volume_ml"] for row in params["lesions"]] == pytest.approx(ours, rel=0.05)
    assert params["warnings"] == list(expected.warnings)


def test_an_image_of_the_server(server, expected, ct, tmp_path):
    kind, body = post(server, "image=phantom&output=all", result_extension=".nrrd")
    message = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
    parts = {part.get_param("name", header="Content-Disposition"): part for part in message.get_payload()}
    assert {*parts} == {"params", "image"}
    assert parts["image"].get_filename().endswith(".nrrd")
    (tmp_path / "labels.nrrd").write_bytes(parts["image"].get_payload(decode=True))
    params = json.loads(parts["params"].get_payload(decode=True))
    check(sitk.ReadImage(tmp_path / "labels.nrrd"), params, expected, ct)


def test_an_uploaded_image(server, expected, ct, tmp_path):
    _, body = post(server, "output=image", upload=ct)
    (tmp_path / "labels.nii.gz").write_bytes(body)
    params = json.loads(post(server, "output=json", upload=ct)[1])
    check(sitk.ReadImage(tmp_path / "labels.nii.gz"), params, expected, ct)


def test_a_folder_of_dicom_files(server, tmp_path):
    """As the server keeps the images of a DICOMweb archive."""
    folder = write_series(tmp_path / "series")
    params = json.loads(post(server, f"image={folder}&output=json")[1])
    assert params["lesions"] == []
    assert params["warnings"] == list(liverseg.predict(folder, device="cpu").warnings)


def test_what_cannot_be_used_is_an_error_with_a_reason(server, tmp_path):
    wrong = tmp_path / "no volume.nii.gz"
    wrong.write_bytes(b"no volume")
    for arguments, reason in (
        ({"upload": wrong}, "cannot be read as NIfTI"),
        ({"path": "image=phantom", "result_extension": ".png"}, "result_extension is '.png'"),
    ):
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(server, **arguments)
        assert caught.value.code == 400
        assert reason in json.load(caught.value)["detail"]
