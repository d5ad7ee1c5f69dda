"""Stages of the demo: timing, logs and bundle commands."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from liverseg.bundle.commands import RunningCommands, bundle_command, run_logged
from liverseg.bundle.paths import find_bundle
from liverseg.errors import LiversegError, OutputError
from liverseg.utils.files import write_text

__all__ = ["StageSeconds", "run_bundle", "run_side_by_side"]


class StageSeconds:
    """Measures seconds by stage, and keeps them over an interruption of the demo.

    Args:
        output: the demo's folder, created if needed.
        reset: ignore the seconds of an earlier demo.

    Attributes:
        logs: folder for the output of commands.
        commands: the running commands.
        seconds: seconds by stage.
    """

    def __init__(self, output: Path, reset: bool = False) -> None:
        self.logs = output / "logs"
        self.commands = RunningCommands()
        self._path = output / "stages.json"
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{output}: the demo cannot write there ({error.strerror})") from error
        resumed = self._path.exists() and not reset
        self.seconds: dict[str, float] = json.loads(self._path.read_text(encoding="utf-8")) if resumed else {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Print the name of a stage and add the seconds of the block, even if it fails."""
        print(f"== {name}", file=sys.stderr, flush=True)
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - start, 1)
            write_text(self._path, json.dumps(self.seconds, indent=1) + "\n")


def run_bundle(
    stages: StageSeconds,
    bundle: str,
    run_id: str,
    configs: Sequence[str],
    overrides: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run `python -m monai.bundle run RUN_ID` in a bundle's folder, as a user would.

    Progress bars go to this terminal, all other output to a file in `logs/`.

    Args:
        stages: has the folder `logs/` and the running commands.
        bundle: the bundle's folder name.
        run_id: id of the run in the configs.
        configs: names of the bundle's config files.
        overrides: values of config keys, including `output_dir`.
        environment: environment variables for this command.

    Raises:
        LiversegError: if the command fails; the message names the file with its output.
    """
    name = Path(overrides.get("ckpt_dir", overrides["output_dir"])).name
    log = stages.logs / f"{name}-{run_id}.log"
    command = bundle_command(run_id, configs, overrides)
    code = run_logged(command, find_bundle(bundle), log, environment, started=stages.commands.add)
    if code:
        raise LiversegError(f"{bundle}: {run_id} ended with exit code {code}; its output is in {log}")


def run_side_by_side(
    stages: StageSeconds, bundle: str, run_id: str, configs: Sequence[str], overrides: Mapping[str, Mapping[str, Any]]
) -> None:
    """Run `run_bundle` for several sets of overrides at the same time, with an equal share of the processors each.

    Small networks gain little from a second thread, so two trainings in parallel are faster than one after the other.
    Both have the same number of threads, as a fair comparison needs.

    Args:
        stages: has the folder `logs/` and the running commands.
        bundle: the bundle's folder name.
        run_id: id of the run in the configs.
        configs: names of the bundle's config files.
        overrides: values of config keys for each run, by any name.

    Raises:
        LiversegError: if a command fails, after all have ended.
    """
    threads = str(max(1, (os.cpu_count() or 1) // len(overrides)))
    with ThreadPoolExecutor(len(overrides)) as pool:
        futures = []
        try:
            for line, run_overrides in enumerate(overrides.values()):
                # each command has its own line of the terminal for progress bars
                environment = {"OMP_NUM_THREADS": threads, "TQDM_POSITION": str(line)}
                futures.append(pool.submit(run_bundle, stages, bundle, run_id, configs, run_overrides, environment))
            wait(futures)
        except BaseException:  # a signal ends the commands too
            stages.commands.stop()
            raise
    for future in futures:
        future.result()
