"""Bundle commands from Python: `python -m monai.bundle run` in a process of its own, as a user would type it."""

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
"""MONAI warns that a config is code and must be trusted; these are the project's own."""


def bundle_command(run_id: str, configs: Sequence[str], overrides: Mapping[str, Any]) -> list[str]:
    """The words of a bundle command, to be run in the bundle's folder.

    Args:
        run_id: what of the bundle to run.
        configs: names of its config files, without folder and ending.
        overrides: of the configs' keys; None is told as null, which the bundles take for nothing.
    """
    command = [sys.executable, *bundle_arguments(run_id, configs)]
    for key, value in overrides.items():
        command += [f"--{key}", "null" if value is None else str(value)]
    return command


def bundle_arguments(run_id: str, configs: Sequence[str], folder: Path = Path()) -> list[str]:
    """What follows Python in a bundle command, without overrides.

    Args:
        run_id: what of the bundle to run.
        configs: names of its config files, without folder and ending.
        folder: the bundle's; by default the one the command is run in.
    """
    files = "[" + ",".join(repr(str(folder / "configs" / f"{name}.yaml")) for name in configs) + "]"
    return ["-m", "monai.bundle", "run", run_id, "--config_file", files]


class RunningCommands:
    """Commands that run side by side, to be ended together.

    Attributes:
        stopped: they are to end.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._processes: set[subprocess.Popen] = set()
        self._lock = threading.Lock()

    def add(self, process: subprocess.Popen) -> None:
        """Remember one, in any thread; one that begins after `stop` ends at once."""
        with self._lock:
            self._processes = {one for one in self._processes if one.poll() is None} | {process}
        if self.stopped:
            process.terminate()

    def stop(self) -> None:
        """End those that run and those that begin. Safe in a signal's handler."""
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
    """Run a command with its output in a file; returns its exit code.

    Its output comes below a line that does the same in a shell.

    Args:
        command: the words.
        folder: to run it in.
        log: file for its output; what an earlier one has written there stays.
        environment: variables set for this command.
        errors_too: also write what it says on stderr to the file; otherwise that goes to this terminal, bars and all.
        started: told the process once it runs, so that it can be ended.
        kept_open: descriptors of files the command holds open as long as it runs.

    Raises:
        LiversegError: if the file cannot be written or the command not be started.
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
    except BaseException:  # told to end: so is the command
        process.terminate()
        process.wait()
        raise
