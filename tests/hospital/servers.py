"""The servers of docker/hospital as processes, with the files of that folder and other ports and paths."""

import base64
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import closing, contextmanager
from pathlib import Path

HOSPITAL = Path(__file__).resolve().parents[2] / "docker" / "hospital"
USER, PASSWORD = "reader", "a password of the test"
NODE, ARCHIVE, PACS = "LIVERSEG", "ORTHANC", "PACS"
_DICOMWEB = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"


def free_port():
    """Return a TCP port that nothing listens at."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition, seconds=60, message="nothing happened"):
    """Call a function until its result is true, and return the result."""
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        if result := condition():
            return result
        time.sleep(0.1)
    raise AssertionError(f"{message} within {seconds} s")


def listening(port):
    """Return whether a server listens at a port of this machine."""
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def server(command, ports, log, **environment):
    """Run a process until the end of the block; enter the block when it listens at its ports."""
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **environment}, cwd=log.parent)
    try:
        for port in ports:
            until(lambda port=port: process.poll() is not None or listening(port), message=f"no start of {command[0]}")
        assert process.poll() is None, log.read_text(encoding="utf-8", errors="replace")[-3000:]
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Archive:
    """Orthanc with orthanc.json and forward.lua.

    Args:
        folder: for its data, configuration and log.
        stable_seconds: see StableAge, which is rounded to its housekeeping of some seconds.
        heartbeat_seconds: see LuaHeartBeatPeriod.
    """

    def __init__(self, folder, stable_seconds=1, heartbeat_seconds=2):
        self.folder = folder
        self.dicom_port, self.http_port, self.node_port, self.pacs_port = (free_port() for _ in range(4))
        configuration = json.loads((HOSPITAL / "orthanc.json").read_text(encoding="utf-8"))
        configuration |= {
            "DicomPort": self.dicom_port,
            "HttpPort": self.http_port,
            "StorageDirectory": str(folder / "db"),
            "IndexDirectory": str(folder / "db"),
            "TemporaryDirectory": str(folder),
            "LuaScripts": [str(HOSPITAL / "forward.lua")],
            "LuaHeartBeatPeriod": heartbeat_seconds,
            "StableAge": stable_seconds,
            "Plugins": [_DICOMWEB],
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "orthanc.json").write_text(json.dumps(configuration), encoding="utf-8")

    @contextmanager
    def running(self, send_results=False):
        """Run the server."""
        environment = {
            "VIEWER_USER": USER,
            "VIEWER_PASSWORD": PASSWORD,
            "NODE_HOST": "127.0.0.1",
            "NODE_PORT": str(self.node_port),
            "PACS_HOST": "127.0.0.1",
            "PACS_PORT": str(self.pacs_port),
            "SEND_RESULTS": str(send_results).lower(),
        }
        command = ["Orthanc", str(self.folder / "orthanc.json")]
        with server(command, (self.dicom_port, self.http_port), self.folder / "orthanc.log", **environment):
            yield self

    def store(self, folder, sender=PACS, called=ARCHIVE):
        """Send a folder of DICOM files with DCMTK's storescu; return its exit code and output."""
        words = ["-R", "-aet", sender, "-aec", called, "+sd", "+r", "127.0.0.1", str(self.dicom_port), str(folder)]
        done = subprocess.run(["storescu", *words], capture_output=True, text=True, timeout=120)
        return done.returncode, done.stdout + done.stderr

    def modalities(self):
        """Return the modality of each series of the archive."""
        return sorted(series["00080060"]["Value"][0] for series in self.search("series"))

    def not_sent(self):
        """Return the series that wait for their destination, each with its name."""
        path = self.folder / "db" / "not-sent.txt"
        return [line.split() for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def failures(self):
        """Return the number of transfers that failed."""
        jobs = json.loads(get(f"http://127.0.0.1:{self.http_port}/jobs?expand")[1])
        return sum(job["State"] == "Failure" for job in jobs)

    def search(self, what):
        """Return the answer of a QIDO-RS search."""
        return json.loads(get(f"http://127.0.0.1:{self.http_port}/dicom-web/{what}")[1] or "[]")


def get(url, method="GET", user=USER, password=PASSWORD):
    """Return status and body of a request with basic authentication; certificates are not checked."""
    request = urllib.request.Request(url, method=method)
    if user:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=60, context=ssl._create_unverified_context()) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@contextmanager
def website(folder, ohif, archive):
    """Serve OHIF's files and an archive's DICOMweb by nginx.conf, and yield the address."""
    port, health = free_port(), free_port()
    files, certificates = folder / "html", folder / "tls"
    files.mkdir(parents=True)
    certificates.mkdir()
    for path in Path(ohif).iterdir():
        if path.name != "app-config.js":
            (files / path.name).symlink_to(path.resolve())
    shutil.copy(HOSPITAL / "app-config.js", files)
    words = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    keys = ["-keyout", str(certificates / "tls.key"), "-out", str(certificates / "tls.crt")]
    subprocess.run(["openssl", "req", *words, *keys], check=True, capture_output=True, timeout=60)
    text = (HOSPITAL / "nginx.conf").read_text(encoding="utf-8")
    mime = next(path for path in (nginx_folder() / "mime.types", Path("/etc/nginx/mime.types")) if path.is_file())
    for old, new in {
        "listen 8443 ssl": f"listen 127.0.0.1:{port} ssl",
        "listen 127.0.0.1:8080": f"listen 127.0.0.1:{health}",
        "http://orthanc:8042": f"http://127.0.0.1:{archive.http_port}",
        "/usr/share/nginx/html": str(files),
        "/etc/nginx/tls": str(certificates),
        "/etc/nginx/mime.types": str(mime),
        "/tmp/nginx": str(folder / "nginx"),
        "/dev/stdout": str(folder / "access.log"),
        "/dev/stderr": str(folder / "error.log"),
    }.items():
        assert old in text, old
        text = text.replace(old, new)
    (folder / "nginx.conf").write_text(text, encoding="utf-8")
    user = "user root;" if os.geteuid() == 0 else ""  # as another user, it could not read pytest's folders
    command = [nginx(), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log"), "-g", f"daemon off; {user}"]
    with server(command, (port, health), folder / "nginx.log"):
        assert get(f"http://127.0.0.1:{health}/health", user=None)[0] == 204
        yield f"https://127.0.0.1:{port}"


def nginx():
    """Return the path of nginx, which need not be on the PATH of other users than root."""
    return os.environ.get("LIVERSEG_NGINX") or shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")


def nginx_folder():
    """Return the folder etc/nginx beside nginx, for one that was unpacked but not installed."""
    return Path(nginx()).resolve().parents[2] / "etc" / "nginx"
