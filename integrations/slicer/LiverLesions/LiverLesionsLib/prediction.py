"""Run `liverseg predict` as a process and find its results.

Nothing here imports 3D Slicer, Qt or liverseg: Slicer's Python has none of liverseg's dependencies. Python 3.9, that of
Slicer 5.6, is enough.
"""

from __future__ import annotations

import csv
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Prediction", "PredictionError", "Results", "Settings", "check_settings", "prediction_command"]

OUTPUT_TYPES = "labels,seg-nrrd"
CASE = "ct"
DEVICES = ("auto", "cpu", "cuda")
GRACE_SECONDS = 10.0
"""A cancelled process removes its unfinished files. After this time it is killed."""


class PredictionError(Exception):
    """Something a user can correct, in one line."""


@dataclass(frozen=True)
class Settings:
    """The module's settings.

    Attributes:
        command: `liverseg`, found on the PATH, or the path of the command in its environment.
        device: one of `DEVICES`, or `cuda:1` and so on.
        weights: path of a weights file; empty for those that come with liverseg.
    """

    command: str = "liverseg"
    device: str = "auto"
    weights: str = ""


@dataclass(frozen=True)
class Results:
    """What a prediction wrote.

    Attributes:
        segmentation: `segmentation.seg.nrrd`; None if no liver was found.
        table: `lesions.csv`.
        lesions: its rows by column, as text.
        warnings: sentences of `record.json` that a reader of the result should see.
    """

    segmentation: Path | None
    table: Path
    lesions: list[dict[str, str]]
    warnings: list[str]


def check_settings(settings: Settings, environment: Mapping[str, str]) -> str:
    """Return the path of the command.

    Args:
        settings: the module's settings.
        environment: that the process will have; its PATH is searched.

    Raises:
        PredictionError: if the command or the weights are missing.
    """
    command = settings.command.strip()
    found = shutil.which(os.path.expanduser(command), path=environment.get("PATH")) if command else None
    if found is None:
        raise PredictionError(
            f"The command {command or 'of liverseg'} is not there or cannot be run. Enter the path of liverseg in its "
            "environment, such as /home/me/liverseg/.venv/bin/liverseg."
        )
    weights = settings.weights.strip()
    if weights and not Path(weights).expanduser().is_file():
        raise PredictionError(f"There is no weights file {weights}. Leave it empty for the weights of liverseg.")
    return found


def prediction_command(settings: Settings, command: str, ct: Path, output: Path) -> list[str]:
    """Return the words of the process: `command` for a CT and a folder of results."""
    words = [command, "predict", str(ct), str(output), "--output-types", OUTPUT_TYPES, "--no-preview"]
    words += ["--device", settings.device.strip() or "auto"]
    weights = settings.weights.strip()
    return words + (["--weights", str(Path(weights).expanduser())] if weights else [])


class Prediction:
    """A running `liverseg predict`, with its files in a temporary folder that `close` removes.

    `poll` does not block, so that a timer of a user interface can call it.

    Args:
        settings: the module's settings.
        environment: of the process. In Slicer `slicer.util.startupEnvironment()`, since liverseg's Python must not find
            Slicer's libraries.

    Attributes:
        ct: path to which the caller writes the CT before `start`, NIfTI.

    Raises:
        PredictionError: if the command or the weights are missing.
    """

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._environment = {**environment, "PYTHONUNBUFFERED": "1"}
        self._command = check_settings(settings, environment)
        self._folder = Path(tempfile.mkdtemp(prefix="LiverLesions-"))  # only its owner can read it
        self.ct = self._folder / f"{CASE}.nii.gz"
        self._lines: queue.Queue[str] = queue.Queue()
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._last = ""
        self._cancelled_at: float | None = None

    def start(self) -> list[str]:
        """Start the process and return its words.

        Raises:
            PredictionError: if there is no CT, or the process cannot start.
        """
        if not self.ct.is_file():
            raise PredictionError("The volume could not be exported.")
        words = prediction_command(self._settings, self._command, self.ct, self._folder / "results")
        try:
            self._process = subprocess.Popen(
                words,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            raise PredictionError(f"{self._command} cannot be started: {error.strerror or error}.") from error
        self._reader = threading.Thread(target=self._read, name="liverseg output", daemon=True)
        self._reader.start()
        return words

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip())

    def poll(self) -> tuple[list[str], bool]:
        """Return the lines that the process printed since the last call, and whether it is still running."""
        if self._process is None:
            return [], False
        code = self._process.poll()
        if code is None and self._cancelled_at is not None and time.monotonic() - self._cancelled_at > GRACE_SECONDS:
            self._process.kill()
        running = code is None or (self._reader is not None and self._reader.is_alive())
        lines = []
        while not self._lines.empty():
            lines.append(self._lines.get())
        self._last = next((line for line in reversed(lines) if line.strip()), self._last)
        return lines, running

    def cancel(self) -> None:
        """Ask the process to end; `poll` kills it if it does not."""
        if self._process is not None and self._process.poll() is None:
            self._cancelled_at = time.monotonic()
            self._process.terminate()

    @property
    def cancelled(self) -> bool:
        """Whether the process ended because of `cancel`."""
        return self._cancelled_at is not None and self._process is not None and self._process.returncode != 0

    def results(self) -> Results:
        """Return the results once `poll` says that the process has ended.

        Raises:
            PredictionError: if it was cancelled or failed, with the last line it printed.
        """
        code = None if self._process is None else self._process.poll()
        if self.cancelled:
            raise PredictionError("Cancelled.")
        if code != 0:
            reason = self._last.removeprefix("liverseg: ") or "it printed nothing"
            raise PredictionError(f"liverseg ended with exit code {code}: {reason}")
        folder = self._folder / "results" / CASE
        try:
            record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
            with (folder / "lesions.csv").open(newline="", encoding="utf-8") as file:
                lesions = list(csv.DictReader(file))
        except (OSError, ValueError) as error:
            raise PredictionError(f"The results cannot be read: {error}") from error
        segmentation = folder / "segmentation.seg.nrrd"
        return Results(
            segmentation=segmentation if segmentation.is_file() else None,
            table=folder / "lesions.csv",
            lesions=lesions,
            warnings=list(record["warnings"]),
        )

    def close(self) -> None:
        """End the process, if it is running, and remove the temporary folder."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._process is not None and self._process.stdout is not None:
            if self._reader is not None:
                self._reader.join(GRACE_SECONDS)
            self._process.stdout.close()
        shutil.rmtree(self._folder, ignore_errors=True)
