"""The viewer's library in the package is as published, with its licences."""

from liverseg.inference.output.report import niivue
from liverseg.utils.files import sha256_file
from tools.fetch_niivue import SHA256


def test_library_is_the_published_file():
    assert sha256_file(niivue.NIIVUE / "index.js") == SHA256
    readme = (niivue.NIIVUE / "README.txt").read_text(encoding="utf-8")
    assert SHA256 in readme
    assert f"version   {niivue.VERSION}\n" in readme


def test_source_lacks_only_the_link_to_its_map():
    source, file = niivue.library_source(), (niivue.NIIVUE / "index.js").read_text(encoding="utf-8")
    assert file.startswith(source)
    assert len(file) - len(source) < 60
    assert "sourceMappingURL" not in source


def test_licences_name_the_library_and_the_packages_in_it():
    licences = niivue.licences()
    for name in ("Copyright (c) 2021, Niivue", "fflate", "gl-matrix", "nifti-reader-js", "zarrita", "numcodecs"):
        assert name in licences
