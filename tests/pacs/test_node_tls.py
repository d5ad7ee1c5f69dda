"""The node by TLS, with an authority and certificates made by openssl."""

import shutil
import socket
import ssl
import subprocess
import time

import pytest
from node_processes import Archive, Node, connect, send, write_ct_study

from liverseg.cli.main import main

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed"),
]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Two authorities, and for each a server's and a client's certificate signed by it."""
    folder = tmp_path_factory.mktemp("certificates")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")

    def openssl(*words):
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, cwd=folder)

    for authority in ("own", "foreign"):
        new = ("req", "-newkey", "rsa:2048", "-nodes")
        openssl(
            *new, "-x509", "-days", 2, "-subj", f"/CN={authority}", "-keyout", f"{authority}.key", "-out", authority
        )
        for name in ("server", "client"):
            stem = f"{authority}-{name}"
            openssl(*new, "-subj", f"/CN={name}", "-keyout", f"{stem}.key", "-out", f"{stem}.csr")
            signing = ("-CA", authority, "-CAkey", f"{authority}.key", "-CAcreateserial", "-extfile", "names")
            openssl("x509", "-req", "-in", f"{stem}.csr", *signing, "-days", 2, "-out", f"{stem}.pem")
    return folder


def client(folder, certificate=None, authority="own", **versions):
    """Return the TLS arguments of a modality."""
    context = ssl.create_default_context(cafile=folder / authority)
    if certificate:
        context.load_cert_chain(folder / f"{certificate}.pem", folder / f"{certificate}.key")
    for name, value in versions.items():
        setattr(context, name, value)
    return context, "127.0.0.1"


def test_peers_need_a_certificate_of_the_authority(tmp_path, weights, certificates):
    paths = write_ct_study(tmp_path / "ct")
    own = ["--tls-cert", certificates / "own-server.pem", "--tls-key", certificates / "own-server.key"]
    own += ["--tls-ca", certificates / "own"]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "own-server.pem", certificates / "own-server.key")
    context.load_verify_locations(certificates / "own")
    context.verify_mode = ssl.CERT_REQUIRED
    with Archive(ssl_context=context) as archive:
        sent = ["--destination", f"ARCHIVE@127.0.0.1:{archive.port}", "--destination-tls"]
        with Node(tmp_path / "node", "--weights", weights, "--liver", "none", *own, *sent) as node:
            assert send(node.port, paths, tls_args=client(certificates, "own-client")) == [0] * 5
            node.wait_for("sent")
            assert not connect(node.port).is_established  # no TLS
            assert not connect(node.port, tls_args=client(certificates)).is_established
            assert not connect(node.port, tls_args=client(certificates, "foreign-client")).is_established
            assert len(node.wait_for("connection refused", times=3)) == 3
            words = ["--port", str(node.port), *map(str, own)]
            assert main(["listen", str(node.folder), "--check", *words]) == 0
    assert len(archive.objects) == 2


def test_old_versions_of_tls_are_refused_and_idle_peers_keep_nobody_out(tmp_path, weights, certificates):
    own = ["--tls-cert", certificates / "own-server.pem", "--tls-key", certificates / "own-server.key"]
    with Node(tmp_path / "node", "--weights", weights, *own) as node:
        with pytest.warns(DeprecationWarning):
            old = client(certificates, minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1)
        assert not connect(node.port, tls_args=old).is_established
        idle = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(5)]
        start = time.monotonic()
        association = connect(node.port, tls_args=client(certificates))
        assert association.send_c_echo().Status == 0
        assert time.monotonic() - start < 5
        association.release()
        for connection in idle:
            connection.close()


def test_destination_with_a_foreign_certificate_gets_nothing(tmp_path, weights, certificates):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "foreign-server.pem", certificates / "foreign-server.key")
    paths = write_ct_study(tmp_path / "ct")
    with Archive(ssl_context=context) as archive:
        sent = ["--destination", f"ARCHIVE@127.0.0.1:{archive.port}", "--destination-tls"]
        sent += ["--tls-ca", certificates / "own"]
        with Node(tmp_path / "node", "--weights", weights, "--liver", "none", *sent) as node:
            send(node.port, paths)
            (line,) = node.wait_for("destination unreachable")
            assert line["reason"].startswith("its certificate is not valid: ")
        assert archive.objects == []


def test_key_of_another_certificate_is_a_mistake_in_one_line(tmp_path, weights, certificates, capsys):
    words = ["--tls-cert", certificates / "own-server.pem", "--tls-key", certificates / "own-client.key"]
    assert main(["listen", str(tmp_path / "node"), "--weights", str(weights), *map(str, words)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "own-server.pem" in line and "own-client.key" in line and "KEY_VALUES_MISMATCH" in line
    words[1] = tmp_path / "missing.pem"
    assert main(["listen", str(tmp_path / "node"), "--weights", str(weights), *map(str, words)]) == 1
    assert f"{tmp_path / 'missing.pem'}: no such file" in capsys.readouterr().err
