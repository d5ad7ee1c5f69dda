"""Orthanc, a real archive with DICOMweb, for tests and campaigns."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import requests
from node_processes import free_port

PLUGINS = Path("/usr/share/orthanc/plugins")
INSTALLED = shutil.which("Orthanc") is not None and (PLUGINS / "libOrthancDicomWeb.so").exists()


class Orthanc:
    """Orthanc in a process.

    Args:
        folder: of its configuration and storage.
        modalities: its peers, (AE title, port) by name.
        password: of the user `liverseg`; None to let everybody in.
    """

    def __init__(self, folder, modalities=None, password=None):
        folder.mkdir(parents=True, exist_ok=True)
        self.dicom_port, self.http_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.http_port}"
        self._auth = ("liverseg", password) if password else None
        peers = {name: [title, "127.0.0.1", port] for name, (title, port) in (modalities or {}).items()}
        config = {
            "Name": "test",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "Plugins": [str(PLUGINS / "libOrthancDicomWeb.so")],
            "DicomAet": "ORTHANC",
            "DicomPort": self.dicom_port,
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": True,
            "AuthenticationEnabled": password is not None,
            "RegisteredUsers": {"liverseg": password} if password else {},
            "DicomCheckCalledAet": False,
            "DicomAlwaysAllowStore": True,
            "OverwriteInstances": False,
            "DicomModalities": peers,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        (folder / "orthanc.json").write_text(json.dumps(config))
        self._log = (folder / "orthanc.log").open("w")
        self._process = subprocess.Popen(
            ["Orthanc", str(folder / "orthanc.json")], stdout=self._log, stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                self.get("/system")
                return
            except requests.ConnectionError:
                assert self._process.poll() is None and time.monotonic() < deadline
                time.sleep(0.1)

    def get(self, path):
        """Return the answer of Orthanc's own interface."""
        return requests.get(f"{self.url}{path}", auth=self._auth, timeout=20).json()

    def upload(self, paths):
        for path in paths:
            answer = requests.post(f"{self.url}/instances", data=path.read_bytes(), auth=self._auth, timeout=20)
            answer.raise_for_status()

    def instances(self, modality):
        """Return the tags of the instances of a modality."""
        series = [item for item in self.get("/series?expand") if item["MainDicomTags"]["Modality"] == modality]
        return [self.get(f"/instances/{uid}/simplified-tags") for item in series for uid in item["Instances"]]

    def close(self):
        self._process.terminate()
        self._process.wait(30)
        self._log.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
