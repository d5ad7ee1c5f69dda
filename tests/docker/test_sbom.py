"""Additions of docker/sbom.py to the bill of materials."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VIEWER = ROOT / "liverseg" / "inference" / "output" / "report" / "niivue"


@pytest.fixture(scope="module")
def sbom():
    """The module docker/sbom.py."""
    spec = importlib.util.spec_from_file_location("sbom", ROOT / "docker" / "sbom.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bill():
    """Bill of cyclonedx-py for an environment of liverseg and torch."""
    place = {"type": "distribution", "url": "file:///tmp/wheel/liverseg.whl"}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "metadata": {"tools": {}},
        "components": [
            {"type": "library", "name": "liverseg", "bom-ref": "liverseg==0.1.0", "externalReferences": [place]},
            {"type": "library", "name": "torch", "bom-ref": "torch==2.13.0"},
        ],
        "dependencies": [{"ref": "liverseg==0.1.0", "dependsOn": ["torch==2.13.0"]}, {"ref": "torch==2.13.0"}],
    }


def test_the_viewer_and_what_is_in_it_are_named(sbom):
    niivue, *contained = sbom.viewer(VIEWER)
    assert re.fullmatch(r"pkg:npm/@?(%40)?niivue/niivue@\d+\.\d+\.\d+", niivue["purl"])
    assert niivue["licenses"] == [{"license": {"id": "BSD-2-Clause"}}]
    text = (VIEWER / "THIRD_PARTY.txt").read_text(encoding="utf-8")
    assert len(contained) >= text.count("\n" + "-" * 80 + "\n") // 2
    assert {"zarrita", "@zarrita/storage", "fflate"} <= {part["name"] for part in contained}
    assert all(f"{part['name']} {part['version']}" in text for part in contained)


def test_a_viewer_without_named_packages_is_refused(sbom, tmp_path):
    for name, text in (("README.txt", "name      x\nversion   1.0\nlicence   MIT\n"), ("THIRD_PARTY.txt", "nothing\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match=r"THIRD_PARTY\.txt names no package"):
        sbom.viewer(tmp_path)


def test_debian_packages_have_their_version_and_architecture(sbom):
    first, second = sbom.debian("libc6 2.36-9+deb12u14 amd64\nbase-passwd 1:3.6 all\n")
    assert first["purl"] == "pkg:deb/debian/libc6@2.36-9%2Bdeb12u14?arch=amd64"
    assert second["version"] == "1:3.6" and second["purl"].endswith("base-passwd@1%3A3.6?arch=all")


def test_liverseg_is_the_subject_and_every_edge_ends_at_a_component(sbom, bill):
    complete_bill = sbom.complete(bill, sbom.viewer(VIEWER), sbom.debian("libc6 2.36 amd64\n"))
    subject = complete_bill["metadata"]["component"]
    assert subject["type"] == "application" and "externalReferences" not in subject
    names = [entry["name"] for entry in complete_bill["components"]]
    assert "liverseg" not in names and {"torch", "@niivue/niivue", "libc6"} <= set(names)
    known = {entry["bom-ref"] for entry in complete_bill["components"]} | {subject["bom-ref"]}
    edges = {edge["ref"]: set(edge.get("dependsOn", [])) for edge in complete_bill["dependencies"]}
    assert set(edges) | set().union(*edges.values()) <= known
    assert edges["liverseg==0.1.0"] > {"torch==2.13.0"}
