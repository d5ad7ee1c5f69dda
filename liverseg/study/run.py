"""Run the cells of a study: in parallel, resumable, and shared between machines."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch
from monai.bundle import ConfigParser
from tqdm import tqdm

from liverseg.bundle.commands import RunningCommands, bundle_command, run_logged
from liverseg.bundle.validation import check_values
from liverseg.datalists import DataList
from liverseg.errors import LiversegError, UsageError
from liverseg.inference import SomeCasesFailed, find_bundle
from liverseg.labels import PRETRAIN_LABELS, label_names
from liverseg.networks import package_versions, read_record
from liverseg.study.cells import Cell, study_cells
from liverseg.study.config import StudyConfig
from liverseg.study.fingerprint import StudyFingerprint, code_state, hash_configs
from liverseg.study.folds import VALIDATION_FOLD, check_fold_lists, fold_list_path, fold_lists, write_fold_lists
from liverseg.utils.files import is_file
from liverseg.utils.precision import get_device
from liverseg.utils.shutdown import GracefulShutdown

__all__ = ["cell_commands", "check_lits_weights", "run_study"]


_POLL_SECONDS = 2.0
"""Between two attempts to lock a cell that another run has locked."""


class _LockedElsewhere(Exception):
    """Another run has locked the cell."""


class _Stopped(Exception):
    """The study was stopped; the next run resumes the cell."""


def run_study(
    study: StudyConfig,
    *,
    shard: tuple[int, int] = (1, 1),
    workers: int | None = None,
    devices: Sequence[str] = (),
    dry_run: bool = False,
) -> None:
    """Run every cell that is not complete.

    Several runs may share one folder: each cell is locked by the run that works on it, and the others wait for it last.

    Args:
        study: the study.
        shard: (i, n): run only the i-th of n parts, counted from 1. The parts share one folder.
        workers: cells at a time, spread over the devices; by default one per device, or on the CPU one per core, since
            small networks gain little from a second thread.
        devices: for example cuda:0; by default the device of the study's overrides, or every GPU, or the CPU.
        dry_run: only print the cells that would be run.

    Raises:
        UsageError: if shard or workers are out of range.
        LiversegError: if the data list or the weights cannot be used, or the study's folder cannot be written.
        SomeCasesFailed: if some cells failed; all others were run.
    """
    check_values(workers=workers)
    part, parts = shard
    if not 1 <= part <= parts:
        raise UsageError(f"shard {part}/{parts}; it must be i/n with i from 1 to n")
    lists = fold_lists(study)
    check_fold_lists(study, lists)
    check_lits_weights(study)
    fingerprint = StudyFingerprint(study, lists)
    cells = study_cells(study, tuple(lists))[part - 1 :: parts]
    complete = {cell: record for cell in cells if (record := fingerprint.find_record(cell)) is not None}
    waiting = [cell for cell in cells if cell not in complete]
    summary = f"{study.name}: {len(cells)} cells, {len(complete)} complete, {len(waiting)} to run"
    print(summary, file=sys.stderr, flush=True)
    code = code_state()
    others = sum(record.get("code") != [code] for record in complete.values())
    if others:
        print(
            f"{study.name}: {others} of the complete cells were made by other code than this ({code}); if that "
            f"matters, remove {study.output_dir / 'cells'} to make them again",
            file=sys.stderr,
        )
    if dry_run:
        for cell in waiting:
            print(cell.name)
        return
    write_fold_lists(study, lists)
    devices = devices or _default_devices(study)
    slots = workers if workers is not None else len(devices) or os.cpu_count() or 1
    runner = _Runner(fingerprint, lists, slots, devices)
    failed: dict[str, str] = {}
    with (
        GracefulShutdown() as shutdown,
        shutdown.on_signal(runner.commands.stop),  # cells continue from their checkpoints next time
        tqdm(total=len(waiting), desc=study.name, unit="cell", file=sys.stderr) as bar,
    ):
        elsewhere = _run_all(runner, waiting, False, bar, failed)
        if elsewhere and not runner.commands.stopped:
            tqdm.write(f"waiting for another run, which works on {len(elsewhere)} cells", file=sys.stderr)
            _run_all(runner, elsewhere, True, bar, failed)
    if shutdown.signal:
        raise SystemExit(128 + shutdown.signal)
    if failed:
        rows = ", ".join(failed)
        raise SomeCasesFailed(f"{study.name}: {len(failed)} of {len(study.rows)} rows have cells that failed: {rows}")


def check_lits_weights(study: StudyConfig) -> None:
    """Refuse weights that are not those of a pre-training, such as a joint network's, which has seen typed patients.

    Weights do not show whether a patient of the study was in the pre-training. `liverseg datalist check --against`
    compares the two lists.

    Raises:
        LiversegError: if a row starts from `lits` and the weights are missing, have no record, or have lesion types.
    """
    if not any(row.initialisation == "lits" for row in study.rows):
        return
    weights = study.lits_weights
    if weights is None or not is_file(weights):
        found = f"{weights}: no such file" if weights else "lits_weights is missing"
        raise LiversegError(
            f"{found}, and rows start from it; export it with the pretrain bundle and give its path as lits_weights, "
            "or remove the rows with initialisation lits"
        )
    record = read_record(weights)
    if record is None:
        raise LiversegError(f"{weights}: it has no record beside it; run the pretrain bundle's export")
    expected = label_names(PRETRAIN_LABELS)
    if record.labels != expected:
        raise LiversegError(
            f"{weights}: its labels are {', '.join(record.labels) or 'none'}; weights of pre-training have "
            f"{', '.join(expected)}: export them with the pretrain bundle"
        )


def cell_commands(
    study: StudyConfig, lists: Mapping[int, DataList], cell: Cell, device: str | None = None
) -> dict[str, list[str]]:
    """Return the bundle commands that train and score a cell, by run id, to be run in the bundle's folder.

    Args:
        study: the study.
        lists: fold to its data list.
        cell: of the study.
        device: to compute on; by default that of the overrides.
    """
    row = cell.row
    common: dict[str, Any] = {
        "dataset_dir": study.dataset_dir,
        "datalist": fold_list_path(study, cell.fold, lists[cell.fold]),
        "output_dir": cell.folder,
        "ckpt_dir": cell.folder,
        "cache_dir": study.output_dir / "cache",
        "fold": VALIDATION_FOLD,
        "progress": False,
    }
    training = {
        **common,
        "seed": cell.seed,
        "initialisation": row.initialisation,
        "pretrain_weights": study.lits_weights if row.initialisation == "lits" else "null",
        "fine_tuning": row.plan,
    }
    if row.initialisation == "imagenet" and study.imagenet_weights is not None:
        training["imagenet_weights"] = study.imagenet_weights
    configs, overrides = study.configs_of(row), study.overrides_of(row)
    if device is not None:
        overrides["device"] = device
    # the evaluation gets the same overrides, but for the keys that it reads from the weights' record
    evaluate = ConfigParser.load_config_file(find_bundle(study.bundle) / "configs" / "evaluate.yaml")
    scoring = {key: value for key, value in overrides.items() if key not in evaluate}
    return {
        "training": bundle_command("training", configs, {**training, **overrides}),
        "evaluating": bundle_command("evaluating", [*configs, "evaluate"], {**common, **scoring}),
    }


def _run_all(runner: _Runner, cells: Sequence[Cell], wait: bool, bar: tqdm, failed: dict[str, str]) -> list[Cell]:
    """Run cells and add the reasons of failed rows to `failed`. Returns the cells that another run has locked."""
    elsewhere = []
    with ThreadPoolExecutor(runner.slots) as pool:
        running = {pool.submit(runner.run, cell, wait): cell for cell in cells}
        for done in as_completed(running):
            cell = running[done]
            if isinstance(done.exception(), _LockedElsewhere):
                elsewhere.append(cell)
                continue
            if done.exception() is not None:
                runner.commands.stop()  # other cells would fail as well, for example on a full disk
            reason = done.result()
            if reason is not None:
                if cell.row.name not in failed:
                    tqdm.write(f"{cell.name}: {reason}", file=sys.stderr)
                failed[cell.row.name] = reason
            if not runner.commands.stopped:
                bar.update()
    return elsewhere


def _default_devices(study: StudyConfig) -> list[str]:
    """Return every GPU; nothing without GPUs or if the study's overrides set the device."""
    is_set = any("device" in dict(overrides) for overrides in (study.overrides, *(row.overrides for row in study.rows)))
    return [] if is_set else [f"cuda:{number}" for number in range(torch.cuda.device_count())]


class _Runner:
    """Runs cells, each as two bundle commands, on a fixed number of slots.

    Attributes:
        commands: the running commands, which can be stopped together.
        slots: cells at a time.
    """

    def __init__(
        self, fingerprint: StudyFingerprint, lists: Mapping[int, DataList], slots: int, devices: Sequence[str]
    ) -> None:
        self.commands = RunningCommands()
        self.slots = slots
        self._fingerprint = fingerprint
        self._study = fingerprint.study
        self._lists = lists
        self._threads = str(max(1, (os.cpu_count() or 1) // slots))
        self._unavailable: dict[str, str] = {}
        self._devices: SimpleQueue[str | None] = SimpleQueue()
        for slot in range(slots):
            self._devices.put(devices[slot % len(devices)] if devices else None)

    def run(self, cell: Cell, wait: bool) -> str | None:
        """Run a cell. Returns the reason of a failure, or None.

        Args:
            cell: the cell.
            wait: for another run that has locked it.

        Raises:
            _LockedElsewhere: if another run has locked it and `wait` is false.
        """
        while not self.commands.stopped:
            with cell.lock() as lock:
                if lock is not None:
                    return self._run_locked(cell, lock)
            if not wait:
                raise _LockedElsewhere
            time.sleep(_POLL_SECONDS)
        return None

    def _run_locked(self, cell: Cell, lock: int) -> str | None:
        if self._fingerprint.find_record(cell) is not None:  # completed by another run since this one started
            return None
        fingerprint = self._fingerprint.of(cell)
        self._fingerprint.adopt(cell)
        codes = cell.prepare(fingerprint, code_state())
        reason = self._unavailable.get(cell.row.name)
        if reason is None:
            device = self._devices.get()
            try:
                reason = self._run_commands(cell, fingerprint, codes, device, lock)
            except _Stopped:
                return None
            finally:
                self._devices.put(device)
        if reason is not None:
            cell.write("failed.json", {"reason": reason})
        return reason

    def _run_commands(
        self, cell: Cell, fingerprint: dict[str, Any], codes: list[str], device: str | None, lock: int
    ) -> str | None:
        seconds = {}
        for run_id, command in cell_commands(self._study, self._lists, cell, device).items():
            start = time.monotonic()
            log = cell.folder / f"{run_id}.log"
            environment = {"OMP_NUM_THREADS": self._threads, "LIVERSEG_DEBUG": ""}
            code = run_logged(
                command,
                find_bundle(self._study.bundle),
                log,
                environment,
                errors_too=True,
                started=self.commands.add,
                kept_open=[lock],
            )
            if self.commands.stopped:
                raise _Stopped
            if code:
                refusal = _last_error(log)
                if refusal and cell.row.initialisation == "imagenet":  # do not try again to download the weights
                    self._unavailable[cell.row.name] = refusal
                return refusal or f"exit code {code}; its output is in {log}"
            seconds[run_id] = round(time.monotonic() - start, 1)
        if hash_configs(self._study, cell.row) != fingerprint["configs_sha256"]:
            return "its configs were changed while it ran; run the study again"
        state = code_state()
        record = {
            "ingredients": fingerprint,
            "code": codes if state == codes[-1] else [*codes, state],
            "versions": package_versions(),
            "best_epoch": (cell.read("model.json") or {}).get("epoch"),
            "seconds": seconds,
            "device": str(get_device(device or fingerprint["overrides"].get("device"))),
            "threads": int(self._threads),
        }
        cell.write("cell.json", record)
        return None


def _last_error(log: Path) -> str | None:
    """Return the error line with which liverseg ended a command; None if it ended in another way."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line.removeprefix("liverseg: ") for line in lines if line.startswith("liverseg: ")]
    return errors[-1] if errors else None
