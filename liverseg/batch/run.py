"""Run a batch: find its cases, start the workers, dispatch the cases, write the tables."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from liverseg import __version__
from liverseg.batch.dispatcher import Dispatcher
from liverseg.batch.events import CaseAlreadyDone, CaseFailedBefore, CasePlanned, PlanningDone, PlanningFailed
from liverseg.batch.job import Job, run_spec
from liverseg.batch.reporter import BatchReporter, write_line
from liverseg.batch.state import BatchState
from liverseg.batch.summary import write_skipped, write_tables
from liverseg.batch.workers import LocalWorker, StartWorker, TimeLimits, worker_environment
from liverseg.bundle.outputs import check_output_types
from liverseg.bundle.paths import inference_config, weights_path
from liverseg.bundle.validation import RULES, check_values
from liverseg.bundle.weights_files import check_weights_path
from liverseg.cases.case import BatchCase
from liverseg.cases.discover import Skipped, check_series, find_batch, shard_of
from liverseg.cases.events import Event
from liverseg.errors import LiversegError, SomeCasesFailed, UsageError
from liverseg.imageio.liver_mask import LiverSource
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
    limits: TimeLimits | None = None,
    **overrides: Any,
) -> None:
    """Compute every CT of a source that is not complete, and report all of them.

    Several runs may share an output folder. Each case is computed by one of them; the others check it again at the end.

    Args:
        source: input for `find_batch`.
        output: folder of results, made if missing: one folder per case, tables, a page and the run log.
        weights: trained weights; by default as for `run_inference`.
        bundle: folder of the bundle; by default the joint bundle.
        dataset_dir: folder for the relative paths of a manifest or data list.
        shard: (i, n): only the i-th of n parts of the cases, counted from 1.
        retry_failed: also compute cases that failed before with the same input, weights and settings.
        engine: one of `ENGINES`.
        workers: number of workers; by default 1, with Ray as many as fit the cluster.
        cpus: processors of each worker; by default all, with Ray 1.
        gpus: GPUs of each worker, with Ray.
        limits: time limits.
        overrides: of the keys of the bundle's `configs/inference.yaml`; None keeps the config's value.

    Raises:
        UsageError: if an argument is wrong.
        LiversegError: if there is no case, the weights cannot be used, the output folder cannot be written, or every
            case failed.
        SomeCasesFailed: if some cases failed.
        SystemExit: with 128 plus the signal's number, if a signal ended the batch.
    """
    _check_arguments(engine, workers, cpus, gpus)
    config = inference_config(bundle)
    weights = weights_path(config, weights)
    check_weights_path(weights)
    check_values(**{name: value for name, value in overrides.items() if name in RULES and value is not None})
    output = output.absolute()
    state = BatchState(output, shard)
    given = {name: value for name, value in overrides.items() if value is not None}
    with GracefulShutdown() as shutdown:
        with state.heartbeat(make=True):
            skipped: list[Skipped] = []
            all_cases = find_batch(source, output, dataset_dir, skipped)
            # refuse wrong values at once
            check_series(overrides.get("series"), [case.image for case in all_cases])
            check_output_types(overrides.get("output_types"), [case.image for case in all_cases])
            LiverSource.parse(overrides.get("liver") or "auto").check(len(all_cases))
            cases = shard_of(all_cases, *shard)
            spec = run_spec(config, weights, given)
            job = Job(output, config.parent.parent, weights, given, spec, retry_failed)
        state.begin()
        write_skipped(skipped, state)
        reporter = BatchReporter(source.name, cases, state, spec, overrides.get("liver"))
        details = {"version": __version__, "source": source, "cases": len(cases), "shard": f"{shard[0]}/{shard[1]}"}
        details |= {"skipped": len(skipped), "weights_sha256": spec.weights_sha256, "settings": given, "engine": engine}
        with _log_run(state, reporter, shutdown, details):
            with shutdown.on_signal(_ignore):  # an exception could get lost while Ray starts its processes
                with state.heartbeat():
                    start, count = _start_engine(engine, job, workers, cpus, gpus)
                _dispatch(cases, Dispatcher(start, count, limits or TimeLimits(), reporter), job, state, shutdown)
            if shutdown.signal is None:
                with state.heartbeat():
                    write_tables(all_cases, state, spec)
    counts = f"{len(reporter.made)} done, {len(reporter.failures)} failed, {reporter.left} left"
    write_line(f"{output}: {counts}{f', {len(skipped)} skipped, see skipped.csv' if skipped else ''}")
    if shutdown.signal:
        raise SystemExit(128 + shutdown.signal)
    _raise_for_failures(len(reporter.failures), len(cases), output)


def _check_arguments(engine: str, workers: int | None, cpus: float | None, gpus: float) -> None:
    if engine not in ENGINES:
        raise UsageError(f"engine {engine!r}; there are {', '.join(ENGINES)}")
    check_values(workers=workers)
    for name, number, least in (("cpus", cpus, 0.1), ("gpus", gpus, 0)):
        if number is not None and not least <= number < math.inf:
            raise UsageError(f"{name} is {number}; at least {least} is needed")


@contextmanager
def _log_run(
    state: BatchState, reporter: BatchReporter, shutdown: GracefulShutdown, details: Mapping[str, Any]
) -> Iterator[None]:
    """Log the start and the end of a run, however it ends."""
    outcome = "failed"
    try:
        state.log("run begun", **details)
        yield
        outcome = "done"
    finally:
        with shutdown.on_signal(_ignore):  # the rest takes a moment
            reporter.close()
            if shutdown.signal:
                outcome = f"ended by {shutdown.signal.name}"
            counts = {"made": len(reporter.made), "failed": len(reporter.failures), "unfinished": reporter.unfinished}
            state.log("run ended", how=outcome, **counts)
            state.stop_heartbeat()


def _ignore() -> None:
    """Signal handler during critical sections: do nothing."""


def _start_engine(
    engine: str, job: Job, workers: int | None, cpus: float | None, gpus: float
) -> tuple[StartWorker, int]:
    """Return the function that starts a worker, and the number of workers."""
    if engine == "ray":
        from liverseg.batch.ray_worker import ray_engine  # an extra

        with preserve_signal_handlers():  # Ray sets a handler for SIGTERM
            return ray_engine(job, workers, 1.0 if cpus is None else cpus, gpus)
    if gpus:
        raise UsageError("--gpus is for --engine ray; here --device says which GPU")
    workers = workers or 1
    return partial(LocalWorker, job, environment=worker_environment(workers, cpus)), workers


def _dispatch(
    cases: Sequence[BatchCase], dispatcher: Dispatcher, job: Job, state: BatchState, shutdown: GracefulShutdown
) -> None:
    """Plan the cases in a thread, and run the dispatcher until all are settled or a signal stops it."""
    with shutdown.on_signal(dispatcher.stop):
        if shutdown.signal:
            dispatcher.stop()
        threading.Thread(target=_plan, args=(cases, dispatcher, job, state), name="plan", daemon=True).start()
        dispatcher.run()


def _plan(cases: Sequence[BatchCase], dispatcher: Dispatcher, job: Job, state: BatchState) -> None:
    """Post for every case whether it has to be computed. Runs in a thread, because it reads complete cases again."""
    try:
        recorded = []
        for case in cases:
            if job.spec.record_matches(case, job.output):
                recorded.append(case)  # verified last: it takes long, and workers can start meanwhile
            else:
                dispatcher.post(_plan_case(case, job, state))
        for case in recorded:
            complete = job.spec.verify(case, job.output)
            dispatcher.post(CaseAlreadyDone(case.name) if complete else _plan_case(case, job, state))
        dispatcher.post(PlanningDone())
    except Exception as error:  # without an event the dispatcher would wait forever
        dispatcher.post(PlanningFailed(error))


def _plan_case(case: BatchCase, job: Job, state: BatchState) -> Event:
    known = state.find_failure(case, job)
    return CasePlanned(case) if known is None else CaseFailedBefore(case.name, known)


def _raise_for_failures(failed: int, cases: int, output: Path) -> None:
    if failed:
        kind = LiversegError if failed == cases else SomeCasesFailed
        raise kind(
            f"{failed} of {cases} cases failed; {output / 'failed.csv'} says why, --retry-failed tries them again"
        )
