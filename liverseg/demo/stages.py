"""One stage after the other: timed, logged, told about."""

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
from liverseg.errors import LiversegError
from liverseg.inference import find_bundle
from liverseg.utils.files import write_text

__all__ = ["Stages", "run_bundle", "run_side_by_side"]


class Stages:
    """Counts seconds by stage; the count survives an interruption.

    Args:
        output: the demo's folder, made if missing.
        anew: count from zero, whatever an earlier demo left.

    Attributes:
        logs: folder for the output of commands.
        commands: those that run.
    """

    def __init__(self, output: Path, anew: bool = False) -> None:
        self.logs = output / "logs"
        self.commands = RunningCommands()
        self._path = output / "stages.json"
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LiversegError(f"{output}: the demo cannot write there ({error.strerror})") from error
        going_on = self._path.exists() and not anew
        self.seconds: dict[str, float] = json.loads(self._path.read_text()) if going_on else {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announce a stage, and add its seconds whether it ends well or not."""
        print(f"== {name}", file=sys.stderr, flush=True)
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - start, 1)
            write_text(self._path, json.dumps(self.seconds, indent=1) + "\n")


def run_bundle(
    stages: Stages,
    bundle: str,
    run_id: str,
    configs: Sequence[str],
    overrides: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run `python -m monai.bundle run RUN_ID` in a bundle's folder, as a user would.

    Progress bars go to this terminal, everything else to a file in `logs/`.

    Args:
        stages: whose `logs/` it is.
        bundle: the bundle's folder name.
        run_id: what of it to run.
        configs: names of its config files.
        overrides: of the configs' keys, `output_dir` among them.
        environment: variables set for this command.

    Raises:
        LiversegError: if the command fails, naming the file its output is in.
    """
    what = Path(overrides.get("ckpt_dir", overrides["output_dir"])).name
    log = stages.logs / f"{what}-{run_id}.log"
    command = bundle_command(run_id, configs, overrides)
    code = run_logged(command, find_bundle(bundle), log, environment, started=stages.commands.add)
    if code:
        raise LiversegError(f"{bundle}: {run_id} ended with exit code {code}; its output is in {log}")


def run_side_by_side(
    stages: Stages, bundle: str, run_id: str, configs: Sequence[str], overrides: Mapping[str, Mapping[str, Any]]
) -> None:
    """`run_bundle` for several sets of overrides at once, the processors shared out between them.

    Small networks gain little from a second thread, so two trainings beside each other end sooner than one after the
    other; and both have the same number of threads, as a fair comparison needs.

    Args:
        stages: whose `logs/` it is.
        bundle: the bundle's folder name.
        run_id: what of it to run.
        configs: names of its config files.
        overrides: for each run, by any name.

    Raises:
        LiversegError: if one of the commands fails, when all have ended.
    """
    threads = str(max(1, (os.cpu_count() or 1) // len(overrides)))
    with ThreadPoolExecutor(len(overrides)) as pool:
        waiting = []
        try:
            for line, of_run in enumerate(overrides.values()):
                # the bars of each command have a line of the terminal to themselves
                environment = {"OMP_NUM_THREADS": threads, "TQDM_POSITION": str(line)}
                waiting.append(pool.submit(run_bundle, stages, bundle, run_id, configs, of_run, environment))
            wait(waiting)
        except BaseException:  # told to end: so are the commands
            stages.commands.stop()
            raise
    for run in waiting:
        run.result()
