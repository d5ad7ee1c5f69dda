"""Fetch NiiVue, the viewer of the report pages, from npm into the package.

    python tools/fetch_niivue.py

Downloads the version that `liverseg/inference/output/report/niivue.py` names and verifies its SHA-256.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from liverseg.errors import LiversegError
from liverseg.inference.output.report.niivue import NIIVUE, VERSION
from liverseg.utils.files import atomic_write, sha256_file

SHA256 = "d6c2be4feb1ad53b2ac76b4196da8d8fd2263b662b511c55ca0fd127eb6a6532"
PACKAGE = f"@niivue/niivue@{VERSION}"
MEMBER = "package/dist/index.js"


def fetch_niivue(folder: Path = NIIVUE) -> Path:
    """Fetch the library with `npm pack` into an existing folder.

    Returns:
        The file's path.

    Raises:
        LiversegError: if npm is missing or fails, or the file's hash is not `SHA256`.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise LiversegError("npm: not found; install Node.js, which includes it, and run this again")
    with tempfile.TemporaryDirectory() as name:
        command = [npm, "pack", PACKAGE, "--pack-destination", name, "--silent"]
        done = subprocess.run(command, capture_output=True, text=True)
        packed = sorted(Path(name).glob("*.tgz"))
        if done.returncode or not packed:
            reason = " ".join(done.stderr.split())[-300:]
            raise LiversegError(f"npm pack {PACKAGE} failed ({reason or done.returncode}); is there a network?")
        with tarfile.open(packed[0]) as archive:
            member = archive.extractfile(MEMBER)
            if member is None:
                raise LiversegError(f"{PACKAGE}: no file {MEMBER} in it")
            content = member.read()
    path = folder / "index.js"
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
        found = sha256_file(temporary)
        if found != SHA256:
            raise LiversegError(f"{PACKAGE}: {MEMBER} has SHA-256 {found}, not {SHA256}; it was not written")
    return path


if __name__ == "__main__":
    try:
        print(fetch_niivue())
    except LiversegError as error:
        sys.exit(str(error))
