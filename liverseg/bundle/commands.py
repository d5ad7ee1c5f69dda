"""Bundle commands from Python: `python -m monai.bundle run` in a separate process, as on the command line."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from liverseg.errors import LiversegError

__all__ = ["OWN_CONFIGS", "RunningCommands", "bundle_arguments", "bundle_command", "run_logged"]

OWN_CONFIGS = "ignore:parsing config_file"
"""Filter of MONAI's warning that a config is code and must be trusted. These configs are the project's own."""


def bundle_command(run_id: str, configs: Sequence[str], overrides: Mapping[str, Any]) -> list[str]:
    """Return the words of a bundle command, to be run in the bundle's folder.

    Args:
        run_id: run id of the bundle, such as "training".
        configs: names of its config files, without folder and ending.
        overrides: values by key; None becomes the word null.
    """
    command = [sys.executable, *bundle_arguments(run_id, configs)]
    for key, value in overrides.items():
        command += [f"--{key}", "null" if value is None else str(value)]
    return command


def bundle_arguments(run_id: str, configs: Sequence[str], folder: Path = Path()) -> list[str]:
    """Return the arguments of Python for a bundle command, without overrides.

    Args:
        run_id: run id of the bundle, such as "training".
        configs: names of its config files, without folder and ending.
        folder: folder of the bundle; by default the current one.
    """
    files = "[" + ",".join(repr(str(folder / "configs" / f"{name}.yaml")) for name in configs) + "]"
    return ["-m", "monai.bundle", "run", run_id, "--config_file", files]


class RunningCommands:
    """Commands that run in parallel and are stopped together.

    Attributes:
        stopped: True once `stop` has been called.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._processes: set[subprocess.Popen] = set()
        self._lock = threading.Lock()

    def add(self, process: subprocess.Popen) -> None:
        """Add a started process, from any thread. After `stop` it is terminated at once."""
        with self._lock:
            self._processes = {other for other in self._processes if other.poll() is None} | {process}
        if self.stopped:
            process.terminate()

    def stop(self) -> None:
        """Terminate all running processes and those that are added later. Safe in a signal handler."""
        self.stopped = True
        for process in tuple(self._processes):
            process.terminate()


def run_logged(
    command: Sequence[str],
    folder: Path,
    log: Path,
    environment: Mapping[str, str] | None = None,
    errors_too: bool = False,
    started: Callable[[subprocess.Popen], None] | None = None,
    kept_open: Sequence[int] = (),
) -> int:
    """Run a command and append its output to a file, below a line with the same command for a shell.

    Args:
        command: words of the command.
        folder: folder to run it in.
        log: file for its output; earlier content stays.
        environment: variables set for this command.
        errors_too: also write stderr to the file; otherwise it goes to this terminal, with progress bars.
        started: called with the process once it runs, so that it can be terminated.
        kept_open: file descriptors that the command keeps open while it runs.

    Returns:
        The exit code.

    Raises:
        LiversegError: if the file cannot be written or the command cannot be started.
    """
    variables = {**os.environ, "PYTHONWARNINGS": OWN_CONFIGS, **(environment or {})}
    settings = [f"{name}={shlex.quote(value)}" for name, value in (environment or {}).items()]
    errors = subprocess.STDOUT if errors_too else None
    try:
        with log.open("a", encoding="utf-8") as out:
            out.write(f"cd {shlex.quote(str(folder))} && {' '.join([*settings, shlex.join(command)])}\n")
            out.flush()
            process = subprocess.Popen(
                command, cwd=folder, stdout=out, stderr=errors, env=variables, pass_fds=kept_open
            )
    except OSError as error:
        raise LiversegError(f"{log}: the command cannot be started ({error.strerror or error})") from error
    try:
        if started is not None:
            started(process)
        return process.wait()
    except BaseException:  # this process is being interrupted, and the command with it
        process.terminate()
        process.wait()
        raise
