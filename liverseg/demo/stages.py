"""One stage after the other: timed, logged, told about."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from liverseg.errors import LiversegError
from liverseg.inference import find_bundle

__all__ = ["Stages", "run_bundle"]


class Stages:
    """Counts seconds by stage; the count survives an interruption.

    Args:
        output: the demo's folder, made if missing.
    """

    def __init__(self, output: Path) -> None:
        self.logs = output / "logs"
        self._path = output / "stages.json"
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LiversegError(f"{output}: the demo cannot write there ({error.strerror})") from error
        self.seconds: dict[str, float] = json.loads(self._path.read_text()) if self._path.exists() else {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announce a stage, and add its seconds whether it ends well or not."""
        print(f"== {name}", file=sys.stderr, flush=True)
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - start, 1)
            self._path.write_text(json.dumps(self.seconds, indent=1) + "\n", encoding="utf-8")


def run_bundle(stages: Stages, bundle: str, run_id: str, configs: Sequence[str], overrides: Mapping[str, Any]) -> None:
    """Run `python -m monai.bundle run RUN_ID` in a bundle's folder, as a user would.

    Progress bars go to this terminal, everything else to a file in `logs/`.

    Raises:
        LiversegError: if the command fails, with its last line.
    """
    folder = find_bundle(bundle)
    files = "[" + ",".join(f"'configs/{name}.yaml'" for name in configs) + "]"
    command = [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", files]
    for key, value in overrides.items():
        command += [f"--{key}", str(value)]
    log = stages.logs / f"{bundle}-{run_id}-{time.strftime('%H%M%S')}.log"
    with log.open("w", encoding="utf-8") as out:
        out.write(" ".join(command) + "\n")
        out.flush()
        code = subprocess.run(command, cwd=folder, stdout=out, check=False).returncode
    if code:
        raise LiversegError(f"{bundle}: {run_id} ended with exit code {code}; its output is in {log}")
