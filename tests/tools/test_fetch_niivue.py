"""The viewer's library is fetched from npm, and no other file is accepted."""

import io
import tarfile

import pytest

from liverseg.errors import LiversegError
from liverseg.inference.output.report.niivue import NIIVUE
from liverseg.utils.files import sha256_file
from tools.fetch_niivue import SHA256, fetch_niivue


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Return a function that puts an `npm` on the PATH that packs the given bytes."""

    def make(content, fails=False):
        folder = tmp_path / "bin"
        folder.mkdir()
        with tarfile.open(folder / "packed.tgz", "w:gz") as archive:
            member = tarfile.TarInfo("package/dist/index.js")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        script = 'echo "no network" >&2; exit 1' if fails else f'cp {folder}/packed.tgz "$4/niivue.tgz"'
        (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "npm").chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=":")
        return folder

    return make


def test_published_file_is_written(npm, tmp_path):
    npm((NIIVUE / "index.js").read_bytes())
    assert fetch_niivue(tmp_path) == tmp_path / "index.js"
    assert sha256_file(tmp_path / "index.js") == SHA256


def test_file_with_another_hash_is_refused(npm, tmp_path):
    npm(b"export const Niivue = 1;\n")
    with pytest.raises(LiversegError, match=r"has SHA-256 .* it was not written"):
        fetch_niivue(tmp_path)
    assert not list(tmp_path.glob("*index.js"))


def test_failure_of_npm_is_reported(npm, tmp_path):
    npm(b"", fails=True)
    with pytest.raises(LiversegError, match="no network"):
        fetch_niivue(tmp_path)


def test_missing_npm_is_reported(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LiversegError, match="npm: not found"):
        fetch_niivue(tmp_path)
