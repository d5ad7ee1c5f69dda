"""Run a bundle's inference in this process, with the config and checks of `python -m monai.bundle run inference`.

A config that `build_evaluator` knows does without MONAI; another one is evaluated by MONAI.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from liverseg.bundle.effective import is_expression
from liverseg.bundle.paths import inference_config, weights_path
from liverseg.errors import UsageError, user_error
from liverseg.inference.build import build_evaluator
from liverseg.inference.evaluator import CaseEvaluator
from liverseg.utils.files import ensure_writable

if TYPE_CHECKING:
    from monai.bundle import ConfigWorkflow

__all__ = ["case_evaluator", "run_inference", "unwrap_user_errors"]


def run_inference(
    dataset_dir: str | os.PathLike,
    output_dir: str | os.PathLike,
    *,
    weights: str | os.PathLike | None = None,
    bundle: str | os.PathLike | None = None,
    **overrides: Any,
) -> None:
    """Compute the CTs of a folder, or one CT, with a bundle's `configs/inference.yaml`.

    Args:
        dataset_dir: NIfTI files, zips or the DICOM files of a study, as for `find_cases`.
        output_dir: each case gets a folder in it.
        weights: trained weights; by default the file that `LIVERSEG_WEIGHTS` names, else `default_weights`.
        bundle: the bundle's folder; by default the joint bundle, found by `find_bundle`.
        overrides: further keys of the config; those that are None keep the config's value.

    Raises:
        LiversegError: if the input, the weights, the output folder or a setting cannot be used, or every case failed.
        SomeCasesFailed: if some of the cases failed.
    """
    config = inference_config(bundle)
    settings = _settings(config, weights, output_dir, dataset_dir=str(Path(dataset_dir).absolute()), **overrides)
    evaluator = _prepared_evaluator(config, settings)
    if evaluator is not None:
        evaluator.run()
        return
    with unwrap_user_errors(), _quiet():
        workflow = _workflow(config, settings)
        workflow.initialize()
        workflow.run()
        workflow.finalize()


def case_evaluator(
    output_dir: str | os.PathLike | None = None,
    *,
    weights: str | os.PathLike | None = None,
    bundle: str | os.PathLike | None = None,
    **overrides: Any,
) -> CaseEvaluator:
    """Return the evaluator of a bundle's `configs/inference.yaml`, with its weights loaded and no cases.

    Args:
        output_dir: as for `run_inference`; None makes no folder, for callers that take the evaluator's pipeline.
        weights, bundle, overrides: as for `run_inference`.

    Raises:
        LiversegError: if the weights, the output folder or a setting cannot be used.
    """
    config = inference_config(bundle)
    settings = _settings(config, weights, output_dir, cases=[], **overrides)
    evaluator = _prepared_evaluator(config, settings)
    if evaluator is not None:
        return evaluator
    with unwrap_user_errors(), _quiet():
        workflow = _workflow(config, settings)
        workflow.initialize()
        return workflow.parser.get_parsed_content("evaluator")


def _settings(
    config: Path, weights: str | os.PathLike | None, output_dir: str | os.PathLike | None, **overrides: Any
) -> dict[str, Any]:
    for name, value in overrides.items():
        if is_expression(value):
            raise UsageError(
                f"{name} is {value!r}; it must not begin with $, @ or %, which a config takes for expressions"
            )
    settings = {  # absolute paths: MONAI would take a text that starts with $, @ or % for an expression
        "bundle_root": str(config.parent.parent),
        "weights": str(weights_path(config, weights)),
        **{name: value for name, value in overrides.items() if value is not None},
    }
    if output_dir is not None:
        settings["output_dir"] = str(Path(output_dir).absolute())
    return settings


def _prepared_evaluator(config: Path, settings: Mapping[str, Any]) -> CaseEvaluator | None:
    """Return the evaluator of `build_evaluator`, if any, after what a config's `initialize` does."""
    evaluator = build_evaluator(config, settings)
    if evaluator is not None:
        evaluator.prepare()
        if "output_dir" in settings:
            ensure_writable(settings["output_dir"])  # files are read before a folder is made
    return evaluator


def _workflow(config: Path, settings: Mapping[str, Any]) -> ConfigWorkflow:
    from monai.bundle import ConfigWorkflow  # seconds

    steps = "initialize" if "output_dir" in settings else "load"  # both of the config
    return ConfigWorkflow(str(config), logging_file=False, workflow_type="inference", init_id=steps, **settings)


@contextmanager
def unwrap_user_errors() -> Iterator[None]:
    """Raise a `LiversegError` itself instead of the error that MONAI wraps it in."""
    try:
        yield
    except Exception as error:
        known = user_error(error)
        if known is None or known is error:
            raise
        raise known from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep MONAI from warning that there is no logging file, and ignite from logging an error for each engine."""
    levels = {"monai.bundle.workflows": logging.ERROR, "ignite": logging.CRITICAL}
    before = {name: logging.getLogger(name).level for name in levels}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(max(level, before[name]))
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
