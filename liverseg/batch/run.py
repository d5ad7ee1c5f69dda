"""A batch from its beginning to its end."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from liverseg import __version__
from liverseg.batch.completeness import wanted
from liverseg.batch.dispatch import Dispatcher
from liverseg.batch.job import Job
from liverseg.batch.reporter import BatchReporter, write_line
from liverseg.batch.state import BatchState, find_failure
from liverseg.batch.summary import write_tables
from liverseg.batch.workers import Limits, LocalWorker, Start
from liverseg.bundle.paths import inference_config, weights_path
from liverseg.cases.case import BatchCase
from liverseg.cases.sources import find_batch, shard_of
from liverseg.errors import LiversegError, SomeCasesFailed, UsageError
from liverseg.imageio.liver_mask import liver_source
from liverseg.utils.files import is_file
from liverseg.utils.shutdown import GracefulShutdown, preserve_signal_handlers

__all__ = ["ENGINES", "run_batch"]

ENGINES = ("local", "ray")


def run_batch(
    source: Path,
    output: Path,
    *,
    weights: Path | None = None,
    bundle: Path | None = None,
    dataset_dir: Path | None = None,
    shard: tuple[int, int] = (1, 1),
    retry_failed: bool = False,
    engine: str = "local",
    workers: int | None = None,
    cpus: float | None = None,
    gpus: float = 0.0,
    limits: Limits | None = None,
    **overrides: Any,
) -> None:
    """Compute every CT of a source that is not complete, and tell of all of them.

    Several runs may work on one output folder: each case is in the hands of one, the others wait for it last.

    Args:
        source: what `find_batch` takes.
        output: folder of results, made if missing: a folder a case, tables, a page, and the run's log.
        weights: trained weights; by default as for `run_inference`.
        bundle: the bundle's folder; by default the joint bundle.
        dataset_dir: folder for the relative paths of a manifest or data list.
        shard: (i, n): only the i-th of n parts of the cases, counted from 1.
        retry_failed: try again what failed before with the same input, weights and settings.
        engine: one of `ENGINES`.
        workers: at a time; by default one, or with Ray as many as the cluster is enough for.
        cpus: processors of each; by default all, or with Ray one.
        gpus: GPUs of each of Ray's.
        limits: how long things may take.
        overrides: of the keys of the bundle's `configs/inference.yaml`; those that are None keep its values.

    Raises:
        UsageError: if an argument is wrong.
        LiversegError: if there is nothing to be done, the weights cannot be used, the output folder cannot be written,
            or every case failed.
        SomeCasesFailed: if part of them failed.
        SystemExit: with 128 and the signal's number, if it was told to end.
    """
    if engine not in ENGINES:
        raise UsageError(f"engine {engine!r}; there are {', '.join(ENGINES)}")
    for name, number, least in (("workers", workers, 1), ("cpus", cpus, 0.1), ("gpus", gpus, 0)):
        if number is not None and not least <= number < math.inf:
            raise UsageError(f"{name} is {number}; at least {least} is needed")
    config = inference_config(bundle)
    weights = weights_path(config, weights)
    if not is_file(weights):
        raise LiversegError(f"{weights}: no such weights file; give --weights")
    output = output.absolute()
    state = BatchState(output, shard)
    with GracefulShutdown() as told:
        with state.kept_alive(make=True):
            everything = find_batch(source, output, dataset_dir)
            liver_source(overrides.get("liver") or "auto", len(everything))  # what is wrong with it is said at once
            cases = shard_of(everything, *shard)
            given = {name: value for name, value in overrides.items() if value is not None}
            job = Job(output, config.parent.parent, weights, given, wanted(config, weights, given), retry_failed)
        about = {"version": __version__, "source": source, "cases": len(cases), "shard": f"{shard[0]}/{shard[1]}"}
        teller = BatchReporter(source.name, len(cases), state, job.wanted, overrides.get("liver"))
        how = "failed"
        state.begin()
        try:
            state.log("run begun", **about, weights_sha256=job.wanted.weights_sha256, settings=given, engine=engine)
            with state.kept_alive():
                told.then(_nothing)  # what is raised while Ray begins its processes may be lost
                how_to_begin = _engine(engine, job, workers, cpus, gpus)
            dispatcher = Dispatcher(*how_to_begin, limits or Limits(), teller)
            told.then(dispatcher.stop)
            if told.by:
                dispatcher.stop()
            threading.Thread(target=_plan, args=(cases, dispatcher, job, state), name="plan", daemon=True).start()
            dispatcher.run()
            told.then(None)
            if not told.by:
                with state.kept_alive():
                    write_tables(everything, state, job.wanted)
            how = "done"
        finally:
            told.then(_nothing)  # what is left to do takes a moment
            teller.close()
            counts = {"made": len(teller.made), "failed": len(teller.failures), "unfinished": teller.unfinished}
            state.log("run ended", how=f"ended by {told.by.name}" if told.by else how, **counts)
            state.ended()
    left = len(cases) - len(teller.made) - len(teller.failures)
    write_line(f"{output}: {len(teller.made)} done, {len(teller.failures)} failed, {left} left")
    if told.by:
        raise SystemExit(128 + told.by)
    if teller.failures:
        kind = LiversegError if len(teller.failures) == len(cases) else SomeCasesFailed
        which = f"{len(teller.failures)} of {len(cases)} cases failed"
        raise kind(f"{which}; {output / 'failed.csv'} says why, --retry-failed tries them again")


def _nothing() -> None:
    """What a signal does while it must not break anything off."""


def _plan(cases: Sequence[BatchCase], dispatcher: Dispatcher, job: Job, state: BatchState) -> None:
    """Say of every case what is to be done; runs in a thread, since it reads what is complete again."""
    try:
        made = []
        for case in cases:
            if job.wanted.was_made(case, job.output):
                made.append(case)  # reading them again takes long, and workers need not wait for it
            else:
                dispatcher.events.put((None, _to_do(case, job, state)))
        for case in made:
            complete = job.wanted.is_complete(case, job.output)
            event = {"event": "complete", "case": case} if complete else _to_do(case, job, state)
            dispatcher.events.put((None, event))
        dispatcher.events.put((None, {"event": "planned"}))
    except Exception as error:  # whoever waits for the rest would wait for ever
        dispatcher.events.put((None, {"event": "unplanned", "error": error}))


def _to_do(case: BatchCase, job: Job, state: BatchState) -> dict[str, Any]:
    known = find_failure(case, job, state)
    if known is None:
        return {"event": "todo", "case": case}
    return {"event": "failed before", "case": case, "known": known}


def _engine(engine: str, job: Job, workers: int | None, cpus: float | None, gpus: float) -> tuple[Start, int]:
    """What begins a worker, and how many there are to be."""
    if engine == "ray":
        from liverseg.batch.ray_engine import ray_engine  # an extra

        with preserve_signal_handlers():  # Ray sets one of its own for SIGTERM
            return ray_engine(job, workers, 1.0 if cpus is None else cpus, gpus)
    if gpus:
        raise UsageError("--gpus is for --engine ray; here --device says which GPU")
    workers = workers or 1
    return partial(LocalWorker, job, environment=_environment(workers, cpus)), workers


def _environment(workers: int, cpus: float | None) -> Mapping[str, str]:
    """Processors shared out between workers, where whoever runs the batch has not done so."""
    if cpus is None and (workers == 1 or "OMP_NUM_THREADS" in os.environ):
        return {}
    threads = len(os.sched_getaffinity(0)) // workers if cpus is None else int(cpus)
    return {"OMP_NUM_THREADS": str(max(1, threads))}
