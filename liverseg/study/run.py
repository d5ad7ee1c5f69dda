"""Run the cells of a study: side by side, resumable one by one, shared out over machines."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch
from tqdm import tqdm

from liverseg.bundle.commands import RunningCommands, run_logged
from liverseg.bundle.setup import get_device
from liverseg.errors import UsageError
from liverseg.inference import SomeCasesFailed
from liverseg.networks import package_versions
from liverseg.study.cells import Cell, study_cells
from liverseg.study.config import StudyDefinition
from liverseg.study.fingerprint import Ingredients, code_state
from liverseg.study.folds import check_fold_lists, fold_lists, write_fold_lists
from liverseg.study.weights import check_lits_weights
from liverseg.utils.shutdown import GracefulShutdown

__all__ = ["run_study"]


_POLL_SECONDS = 2.0
"""Between two looks at a cell that another run has in hand."""


class _InOtherHands(Exception):
    """Another run is at the cell."""


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

    Several runs may work on one folder: each cell is in the hands of one, and the others wait for it last.

    Args:
        study: the study.
        shard: (i, n): only the i-th of n parts, counted from 1; the parts share one folder.
        workers: cells at a time, spread over the devices; by default one for each device, or on the CPU one for each
            core, since small networks gain little from a second thread.
        devices: e.g. cuda:0; by default what the study's overrides say, or every GPU, or the CPU where there is none.
        dry_run: only tell what would be run.

    Raises:
        UsageError: if shard or workers are no such numbers.
        LiversegError: if the data list or the weights cannot be used, or the study's folder cannot be written.
        SomeCasesFailed: if some cells could not be run; the others are.
    """
    part, parts = shard
    if not 1 <= part <= parts:
        raise UsageError(f"shard {part}/{parts}; it must be i/n with i from 1 to n")
    lists = fold_lists(study)
    check_fold_lists(study, lists)
    check_lits_weights(study)
    ingredients = Ingredients(study, lists)
    cells = study_cells(study, tuple(lists))[part - 1 :: parts]
    made = {cell: record for cell in cells if (record := ingredients.made(cell)) is not None}
    waiting = [cell for cell in cells if cell not in made]
    told = f"{study.name}: {len(cells)} cells, {len(made)} complete, {len(waiting)} to run"
    print(told, file=sys.stderr, flush=True)
    code = code_state()
    others = sum(record.get("code") != [code] for record in made.values())
    if others:
        print(
            f"{study.name}: {others} of the complete cells were made by other code than this ({code}); where that "
            f"matters, remove {study.output_dir / 'cells'} to make them again",
            file=sys.stderr,
        )
    if dry_run:
        for cell in waiting:
            print(cell.name)
        return
    write_fold_lists(study, lists)
    devices = devices or _usual_devices(study)
    slots = workers if workers is not None else len(devices) or os.cpu_count() or 1
    if slots < 1:
        raise UsageError(f"{slots} workers; at least 1 is needed")
    runner = _Runner(ingredients, slots, devices)
    failed: dict[str, str] = {}
    with (
        GracefulShutdown() as shutdown,
        shutdown.on_signal(runner.commands.stop),  # cells continue from their checkpoints next time
        tqdm(total=len(waiting), desc=study.name, unit="cell", file=sys.stderr) as bar,
    ):
        elsewhere = _run_all(runner, waiting, False, bar, failed)
        if elsewhere and not runner.commands.stopped:
            tqdm.write(f"{len(elsewhere)} cells are in the hands of another run: waiting for it", file=sys.stderr)
            _run_all(runner, elsewhere, True, bar, failed)
    if shutdown.signal:
        raise SystemExit(128 + shutdown.signal)
    if failed:
        rows = ", ".join(failed)
        raise SomeCasesFailed(f"{study.name}: {len(failed)} of {len(study.rows)} rows have cells that failed: {rows}")


def _run_all(runner: _Runner, cells: Sequence[Cell], wait: bool, bar: tqdm, failed: dict[str, str]) -> list[Cell]:
    """Run cells, with the rows that fail and why in `failed`; returns those that another run has in hand."""
    elsewhere = []
    with ThreadPoolExecutor(runner.slots) as pool:
        running = {pool.submit(runner.run, cell, wait): cell for cell in cells}
        for done in as_completed(running):
            cell = running[done]
            if isinstance(done.exception(), _InOtherHands):
                elsewhere.append(cell)
                continue
            if done.exception() is not None:
                runner.commands.stop()  # what one cell meets, such as a full disk, the others would meet as well
            reason = done.result()
            if reason is not None:
                if cell.row.name not in failed:
                    tqdm.write(f"{cell.name}: {reason}", file=sys.stderr)
                failed[cell.row.name] = reason
            if not runner.commands.stopped:
                bar.update()
    return elsewhere


def _usual_devices(study: StudyDefinition) -> list[str]:
    """Every GPU, where the study does not say what to compute on; empty for the CPU or what it says."""
    said = any("device" in dict(overrides) for overrides in (study.overrides, *(row.overrides for row in study.rows)))
    return [] if said else [f"cuda:{number}" for number in range(torch.cuda.device_count())]


class _Runner:
    """Runs cells, each as two bundle commands, and remembers what to end when it is told to stop."""

    def __init__(self, ingredients: Ingredients, slots: int, devices: Sequence[str]) -> None:
        self.ingredients = ingredients
        self.commands = RunningCommands()
        self.slots = slots
        self._threads = str(max(1, (os.cpu_count() or 1) // slots))
        self._unavailable: dict[str, str] = {}
        self._devices: SimpleQueue[str | None] = SimpleQueue()
        for slot in range(slots):
            self._devices.put(devices[slot % len(devices)] if devices else None)

    def run(self, cell: Cell, wait: bool) -> str | None:
        """Run one cell; returns why it could not be, or None.

        Args:
            cell: the cell.
            wait: for another run that has it in hand.

        Raises:
            _InOtherHands: if another run has it in hand and is not waited for.
        """
        while not self.commands.stopped:
            with cell.held() as lock:
                if lock is not None:
                    return self._run_held(cell, lock)
            if not wait:
                raise _InOtherHands
            time.sleep(_POLL_SECONDS)
        return None

    def _run_held(self, cell: Cell, lock: int) -> str | None:
        if self.ingredients.made(cell) is not None:  # by another run, since this one began
            return None
        made_of = self.ingredients.of(cell)
        codes = cell.make_ready(made_of, code_state())
        reason = self._unavailable.get(cell.row.name)
        if reason is None:
            device = self._devices.get()
            try:
                reason = self._run_commands(cell, made_of, codes, device, lock)
            except _Stopped:
                return None
            finally:
                self._devices.put(device)
        if reason is not None:
            cell.write("failed.json", {"reason": reason})
        return reason

    def _run_commands(
        self, cell: Cell, made_of: dict[str, Any], codes: list[str], device: str | None, lock: int
    ) -> str | None:
        seconds = {}
        for run_id, command in self.ingredients.commands(cell, device).items():
            begun = time.monotonic()
            log = cell.folder / f"{run_id}.log"
            environment = {"OMP_NUM_THREADS": self._threads, "LIVERSEG_DEBUG": ""}
            code = run_logged(
                command,
                self.ingredients.bundle,
                log,
                environment,
                errors_too=True,
                started=self.commands.add,
                kept_open=[lock],
            )
            if self.commands.stopped:
                raise _Stopped
            if code:
                refusal = _refusal(log)
                if refusal and cell.row.initialisation == "imagenet":  # what cannot be had once is not asked for again
                    self._unavailable[cell.row.name] = refusal
                return refusal or f"exit code {code}; its output is in {log}"
            seconds[run_id] = round(time.monotonic() - begun, 1)
        if self.ingredients.hash_of_configs(cell.row) != made_of["configs_sha256"]:
            return "its configs were changed while it ran; run the study again"
        state = code_state()
        record = {
            "ingredients": made_of,
            "code": codes if state == codes[-1] else [*codes, state],
            "versions": package_versions(),
            "best_epoch": (cell.read("model.json") or {}).get("epoch"),
            "seconds": seconds,
            "device": str(get_device(device or made_of["overrides"].get("device"))),
            "threads": int(self._threads),
        }
        cell.write("cell.json", record)
        return None


def _refusal(log: Path) -> str | None:
    """The one line with which liverseg ended a command; None where something else ended it."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    own = [line.removeprefix("liverseg: ") for line in lines if line.startswith("liverseg: ")]
    return own[-1] if own else None
