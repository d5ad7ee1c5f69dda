"""Writes the files of pinned and hashed dependencies that the image is installed from; needs `uv` and PyPI.

    python docker/lock.py                      # after a change of constraints.txt or setup.cfg: `make lock`
    python docker/lock.py --torch URL FILE     # torch alone, from another index, such as PyTorch's own for one CUDA

Versions come from constraints.txt, names from setup.cfg; what is written holds the hash of every wheel that PyPI has of
a version, so that one lock serves x86_64 and aarch64. Four files:

- requirements.lock: what liverseg and its DICOM node need, without torch;
- torch-cpu.lock: torch's CPU build, which is not on PyPI but on PyTorch's index, with that index's hashes;
- torch-cuda.lock: torch as PyPI has it, which on Linux is a CUDA build, and the CUDA packages it pins;
- build.lock: what builds the wheel and the bill of materials and does not stay in the image.
"""

from __future__ import annotations

import argparse
import configparser
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).resolve().parent
CONSTRAINTS = ROOT / "constraints.txt"
PYTHON = "3.11"
PLATFORMS = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
BUILD = "setuptools\ncyclonedx-bom\n"
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)")


def canonical(name: str) -> str:
    """A package's name as PyPI compares it: lower case, one hyphen for every run of `-`, `_` and `.`."""
    return re.sub(r"[-_.]+", "-", name).lower()


def entries(lock: str) -> dict[str, str]:
    """A lock's text as package name to its lines: the pin and, indented, its hashes."""
    blocks: dict[str, str] = {}
    name = ""
    for line in lock.splitlines():
        pin = _PIN.match(line)
        if pin:
            name = canonical(pin[1])
            blocks[name] = ""
        if name and line.strip() and not line.lstrip().startswith("#"):
            blocks[name] += line + "\n"
    return blocks


def constrained() -> set[str]:
    """The names that constraints.txt pins."""
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    return {canonical(pin[1]) for line in lines if (pin := _PIN.match(line))}


def resolve(requirements: str, platform: str, *options: str) -> dict[str, str]:
    """Every package that the requirements need on one platform, hashed; versions are those of constraints.txt."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text(requirements, encoding="utf-8")
        command = [
            "uv",
            "pip",
            "compile",
            "--quiet",
            "--no-config",
            "--no-header",
            "--no-annotate",
            "--generate-hashes",
        ]
        command += ["--only-binary", ":all:", "--python-version", PYTHON, "--python-platform", platform]
        command += ["--constraints", str(CONSTRAINTS), *options, str(wanted)]
        compiled = subprocess.run(command, capture_output=True, text=True)
    if compiled.returncode:
        sys.exit(f"lock.py: uv found no set of versions for {platform}: {compiled.stderr.strip()}")
    return entries(compiled.stdout)


def resolve_everywhere(requirements: str) -> dict[str, str]:
    """What `resolve` gives, if every platform needs the same."""
    first, *others = (resolve(requirements, platform) for platform in PLATFORMS)
    for platform, other in zip(PLATFORMS[1:], others, strict=True):
        if other != first:
            odd = sorted(set(first).symmetric_difference(other)) or "other versions"
            sys.exit(
                f"lock.py: {PLATFORMS[0]} and {platform} need different packages, in one lock they cannot be: {odd}"
            )
    return first


def write(path: Path, about: str, packages: dict[str, str]) -> None:
    """A lock file: what it holds, then the packages by name."""
    text = f"# {about}\n# Written by docker/lock.py; do not edit. Versions: constraints.txt.\n"
    path.write_text(text + "".join(packages[name] for name in sorted(packages)), encoding="utf-8")
    print(f"{path}: {len(packages)} packages")


def lock_torch(index: str, path: Path) -> None:
    """torch alone, as an index has it, with that index's hashes."""
    torch = resolve("torch\n", PLATFORMS[0], "--no-deps", "--default-index", index)
    write(path, f"torch as {index} has it.", torch)


def lock_all() -> None:
    """The three locks that PyPI serves."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    every = resolve_everywhere(setup["options"]["install_requires"] + setup["options.extras_require"]["pacs"])
    ours = constrained()
    # torch's CUDA build pins CUDA's packages itself; all else has its version from constraints.txt
    cuda = {name for name in every if name not in ours}
    strange = sorted(name for name in cuda if not re.match(r"nvidia-|cuda-|triton$", name))
    if strange:
        sys.exit(f"lock.py: constraints.txt has no version of {', '.join(strange)}; add it there")
    rest = {name: lines for name, lines in every.items() if name in ours and name != "torch"}
    write(HERE / "requirements.lock", "What liverseg and its DICOM node need, without torch.", rest)
    with_torch = {name: every[name] for name in cuda | {"torch"}}
    write(HERE / "torch-cuda.lock", "torch as PyPI has it, a CUDA build, and CUDA's packages.", with_torch)
    write(HERE / "build.lock", "What builds the image and does not stay in it.", resolve_everywhere(BUILD))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", nargs=2, metavar=("URL", "FILE"), help="lock torch alone from another index")
    chosen = parser.parse_args()
    if chosen.torch:
        lock_torch(chosen.torch[0], Path(chosen.torch[1]))
    else:
        lock_all()


if __name__ == "__main__":
    main()
