"""The library of the viewer: the published file, and no other is taken."""

import io
import tarfile

import pytest

from liverseg.errors import LiversegError
from liverseg.inference.output.report import vendor
from liverseg.utils.files import sha256_file


def test_the_file_in_the_package_is_the_published_one():
    assert sha256_file(vendor.NIIVUE / "index.js") == vendor.SHA256
    told = (vendor.NIIVUE / "README.txt").read_text(encoding="utf-8")
    assert vendor.SHA256 in told
    assert f"version   {vendor.VERSION}\n" in told


def test_the_source_is_all_but_the_name_of_its_map():
    source, file = vendor.library_source(), (vendor.NIIVUE / "index.js").read_text(encoding="utf-8")
    assert file.startswith(source)
    assert len(file) - len(source) < 60
    assert "sourceMappingURL" not in source


def test_licences_of_the_library_and_what_is_in_it_are_told():
    told = vendor.licences()
    for name in ("Copyright (c) 2021, Niivue", "fflate", "gl-matrix", "nifti-reader-js", "zarrita", "numcodecs"):
        assert name in told


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A function that makes an `npm` which packs the given text, and names a folder for it."""

    def make(text, fails=False):
        folder = tmp_path / "bin"
        folder.mkdir()
        with tarfile.open(folder / "packed.tgz", "w:gz") as archive:
            member = tarfile.TarInfo("package/dist/index.js")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
        script = 'echo "no network" >&2; exit 1' if fails else f'cp {folder}/packed.tgz "$4/niivue.tgz"'
        (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "npm").chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=":")
        return folder

    return make


def test_the_file_is_fetched(npm, tmp_path):
    npm((vendor.NIIVUE / "index.js").read_bytes())
    assert vendor.fetch_niivue(tmp_path) == tmp_path / "index.js"
    assert sha256_file(tmp_path / "index.js") == vendor.SHA256


def test_another_file_is_refused(npm, tmp_path):
    npm(b"export const Niivue = 1;\n")
    with pytest.raises(LiversegError, match=r"has SHA-256 .* it was not taken"):
        vendor.fetch_niivue(tmp_path)
    assert not list(tmp_path.glob("*index.js"))


def test_npm_that_fails_is_told(npm, tmp_path):
    npm(b"", fails=True)
    with pytest.raises(LiversegError, match="no network"):
        vendor.fetch_niivue(tmp_path)


def test_a_missing_npm_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LiversegError, match="npm: not found"):
        vendor.fetch_niivue(tmp_path)
