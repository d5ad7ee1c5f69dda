"""Complete and validate the image's bill of materials: add what `cyclonedx-py environment` does not see.

    python docker/sbom.py PYTHON_BOM REPORT_VIEWER OUTPUT

PYTHON_BOM is CycloneDX JSON of the Python packages. liverseg becomes the subject of the bill. NiiVue and the packages
in it, which REPORT_VIEWER (`liverseg/inference/output/report/niivue`) names, are added as parts of liverseg, the
interpreter and the base image's Debian packages as parts of the image. Needs cyclonedx-python-lib and dpkg.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

Component = dict[str, Any]
_VERSIONED = re.compile(r"(@?[A-Za-z][\w./-]*) (\d+(?:\.\d+)+)")


def component(kind: str, name: str, version: str, purl: str, licence: str | None = None) -> Component:
    """One entry; its purl is also the name by which others point to it."""
    entry = {"type": kind, "name": name, "version": version, "purl": purl, "bom-ref": purl}
    return {**entry, "licenses": [{"license": {"id": licence}}]} if licence else entry


def npm(name: str, version: str, licence: str | None = None) -> Component:
    """A package of the npm registry."""
    return component("library", name, version, f"pkg:npm/{quote(name, safe='/')}@{version}", licence)


def viewer(folder: Path) -> list[Component]:
    """NiiVue, first, and the packages that its one file contains, as its README.txt and THIRD_PARTY.txt name them."""
    facts = dict(
        line.split(maxsplit=1)
        for line in (folder / "README.txt").read_text(encoding="utf-8").splitlines()
        if re.match(r"(name|version|licence) {2,}", line)
    )
    lines = (folder / "THIRD_PARTY.txt").read_text(encoding="utf-8").splitlines()
    ruled = [line for above, line in pairwise(lines) if above.startswith("-----")]
    contained = [npm(*found) for line in ruled for found in _VERSIONED.findall(line)]
    if not contained:
        raise SystemExit(f"sbom.py: {folder / 'THIRD_PARTY.txt'} names no package with its version")
    return [npm(facts["name"], facts["version"], facts["licence"].split(",")[0]), *contained]


def debian(listing: str) -> list[Component]:
    """The packages of a `dpkg-query -W -f '${Package} ${Version} ${Architecture}\\n'`."""
    return [
        component("library", name, version, f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={architecture}")
        for name, version, architecture in (line.split() for line in listing.splitlines() if line)
    ]


def complete(bom: dict[str, Any], bundled: list[Component], system: Iterable[Component]) -> dict[str, Any]:
    """The bill with liverseg as its subject, the viewer in it, and the system under it."""
    (ours,) = (entry for entry in bom["components"] if entry["name"] == "liverseg")
    others = [entry for entry in bom["components"] if entry is not ours]
    # the place the wheel was built in says nothing to who reads the bill
    ours = {key: value for key, value in ours.items() if key != "externalReferences"} | {"type": "application"}
    niivue, *contained = bundled
    added = [{"ref": niivue["bom-ref"], "dependsOn": sorted(part["bom-ref"] for part in contained)}]
    edges = [
        {**edge, "dependsOn": sorted([*edge.get("dependsOn", []), niivue["bom-ref"]])}
        if edge["ref"] == ours["bom-ref"]
        else edge
        for edge in bom["dependencies"]
    ]
    return {
        **bom,
        "metadata": {**bom.get("metadata", {}), "component": ours},
        "components": [*others, *bundled, *system],
        "dependencies": [*edges, *added],
    }


def validate(text: str) -> None:
    """Refuses a bill that is not CycloneDX 1.6."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if error:
        raise SystemExit(f"sbom.py: the bill of materials is not valid CycloneDX 1.6: {error}")


def main() -> None:
    python_bom, report_viewer, output = map(Path, sys.argv[1:])
    listing = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${Version} ${Architecture}\n"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    version = platform.python_version()
    interpreter = component("platform", "python", version, f"pkg:generic/python@{version}", "PSF-2.0")
    bom = json.loads(python_bom.read_text(encoding="utf-8"))
    text = json.dumps(complete(bom, viewer(report_viewer), [interpreter, *debian(listing)]), indent=1)
    validate(text)
    output.write_text(text + "\n", encoding="utf-8")
    print(f"{output}: {len(json.loads(text)['components'])} components, valid CycloneDX 1.6")


if __name__ == "__main__":
    main()
