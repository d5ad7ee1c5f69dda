"""Run the cells of a study: side by side, resumable one by one, shared out over machines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch
from tqdm import tqdm

from liverseg.bundle_commands import run_logged
from liverseg.errors import UsageError
from liverseg.files import write_text
from liverseg.inference import SomeCasesFailed
from liverseg.study.cells import Cell, Ingredients, commit, study_cells
from liverseg.study.definition import StudyDefinition
from liverseg.study.folds import write_fold_lists

__all__ = ["read_shard", "run_study"]


class _Stopped(Exception):
    """The study was told to end; what is unfinished goes on with the next run."""


def run_study(
    study: StudyDefinition,
    *,
    shard: tuple[int, int] = (1, 1),
    workers: int | None = None,
    devices: Sequence[str] = (),
    dry_run: bool = False,
) -> None:
    """Run every cell that is not complete.

    Args:
        study: the study.
        shard: (i, n): only the i-th of n parts, counted from 1; the parts share one folder.
        workers: cells at a time, spread over the devices; by default one for each device, or on the CPU one for each
            core, since small networks gain little from a second thread.
        devices: e.g. cuda:0; by default what the study's overrides say, or every GPU, or the CPU where there is none.
        dry_run: only tell what would be run.

    Raises:
        UsageError: if shard or workers are no such numbers.
        LiversegError: if the study's folder cannot be written.
        SomeCasesFailed: if some cells could not be run; the others are.
    """
    part, parts = shard
    if not 1 <= part <= parts:
        raise UsageError(f"shard {part}/{parts}; it must be i/n with i from 1 to n")
    lists = write_fold_lists(study)
    ingredients = Ingredients(study, lists)
    cells = study_cells(study, tuple(lists))[part - 1 :: parts]
    waiting = [cell for cell in cells if not cell.is_complete(ingredients.of(cell))]
    told = f"{study.name}: {len(cells)} cells, {len(cells) - len(waiting)} complete, {len(waiting)} to run"
    print(told, file=sys.stderr, flush=True)
    if dry_run:
        for cell in waiting:
            print(cell.name)
        return
    devices = devices or _usual_devices(study)
    slots = workers if workers is not None else len(devices) or os.cpu_count() or 1
    if slots < 1:
        raise UsageError(f"{slots} workers; at least 1 is needed")
    runner = _Runner(ingredients, slots, devices)
    failed: dict[str, str] = {}
    with runner.ended_by_signals(), ThreadPoolExecutor(slots) as pool:
        bar = tqdm(total=len(waiting), desc=study.name, unit="cell", file=sys.stderr)
        running = {pool.submit(runner.run, cell): cell for cell in waiting}
        for done in as_completed(running):
            if done.exception() is not None:
                runner.stop()  # what one cell meets, such as a full disk, the others would meet as well
            reason = done.result()
            if reason is not None:
                if running[done].row.name not in failed:
                    tqdm.write(f"{running[done].name}: {reason}", file=sys.stderr)
                failed[running[done].row.name] = reason
            if not runner.stopped:
                bar.update()
        bar.close()
    if runner.signal:
        raise KeyboardInterrupt if runner.signal == signal.SIGINT else SystemExit(128 + runner.signal)
    if failed:
        rows = ", ".join(failed)
        raise SomeCasesFailed(f"{study.name}: {len(failed)} of {len(study.rows)} rows have cells that failed: {rows}")


def _usual_devices(study: StudyDefinition) -> list[str]:
    """Every GPU, where the study does not say what to compute on; empty for the CPU or what it says."""
    said = any("device" in dict(overrides) for overrides in (study.overrides, *(row.overrides for row in study.rows)))
    return [] if said else [f"cuda:{number}" for number in range(torch.cuda.device_count())]


class _Runner:
    """Runs cells, each as two bundle commands, and remembers what to end when it is told to stop."""

    def __init__(self, ingredients: Ingredients, slots: int, devices: Sequence[str]) -> None:
        self.ingredients = ingredients
        self.stopped = False
        self.signal = 0
        self._threads = str(max(1, (os.cpu_count() or 1) // slots))
        self._processes: set[subprocess.Popen] = set()
        self._lock = threading.Lock()
        self._unavailable: dict[str, str] = {}
        self._devices: SimpleQueue[str | None] = SimpleQueue()
        for slot in range(slots):
            self._devices.put(devices[slot % len(devices)] if devices else None)

    def run(self, cell: Cell) -> str | None:
        """Run one cell; returns why it could not be, or None."""
        if self.stopped:
            return None
        made_of = self.ingredients.of(cell)
        cell.make_ready(made_of)
        reason = self._unavailable.get(cell.row.name)
        if reason is None:
            device = self._devices.get()
            try:
                reason = self._run_commands(cell, made_of, device)
            except _Stopped:
                return None
            finally:
                self._devices.put(device)
        if reason is not None:
            write_text(cell.folder / "failed.json", json.dumps({"reason": reason}, indent=1) + "\n")
        return reason

    def _run_commands(self, cell: Cell, made_of: dict[str, Any], device: str | None) -> str | None:
        seconds = {}
        for run_id, command in self.ingredients.commands(cell, device).items():
            begun = time.monotonic()
            log = cell.folder / f"{run_id}.log"
            environment = {"OMP_NUM_THREADS": self._threads, "LIVERSEG_DEBUG": ""}
            code = run_logged(
                command, self.ingredients.bundle, log, environment, errors_too=True, started=self._remember
            )
            if self.stopped:
                raise _Stopped
            if code:
                refusal = _refusal(log)
                if refusal and cell.row.initialisation == "imagenet":  # what cannot be had once is not asked for again
                    self._unavailable[cell.row.name] = refusal
                return refusal or f"exit code {code}; its output is in {log}"
            seconds[run_id] = round(time.monotonic() - begun, 1)
        record = {
            "ingredients": made_of,
            "commit": commit(),
            "seconds": seconds,
            "device": device or made_of["overrides"].get("device", "cpu"),
        }
        write_text(cell.folder / "cell.json", json.dumps(record, indent=1) + "\n")
        return None

    def _remember(self, process: subprocess.Popen) -> None:
        with self._lock:
            self._processes = {one for one in self._processes if one.poll() is None} | {process}
            if self.stopped:
                process.terminate()

    def stop(self) -> None:
        """End the commands that run and begin no others."""
        self.stopped = True
        for process in tuple(self._processes):
            process.terminate()

    @contextmanager
    def ended_by_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM end the commands that run; cells go on from their checkpoints next time."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stopped_by(number: int, _: Any) -> None:
            self.signal = number
            self.stop()

        before = {number: signal.signal(number, stopped_by) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _refusal(log: Path) -> str | None:
    """The one line with which liverseg ended a command; None where something else ended it."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    own = [line.removeprefix("liverseg: ") for line in lines if line.startswith("liverseg: ")]
    return own[-1] if own else None


def read_shard(text: str) -> tuple[int, int]:
    """i/n as two numbers.

    Raises:
        UsageError: if it is something else.
    """
    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise UsageError(f"shard {text!r}; it must be i/n with i from 1 to n, such as 2/8")
    return int(part), int(parts)
