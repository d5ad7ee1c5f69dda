"""A bundle's inference from Python: the same config, objects and checks as `python -m monai.bundle run inference`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from liverseg.bundle.paths import inference_config, weights_path
from liverseg.errors import UsageError, user_error
from liverseg.inference.evaluator import CaseEvaluator

__all__ = ["case_evaluator", "run_inference"]

_EXPRESSIONS = ("$", "@", "%")


def run_inference(
    dataset_dir: str | os.PathLike,
    output_dir: str | os.PathLike,
    *,
    weights: str | os.PathLike | None = None,
    bundle: str | os.PathLike | None = None,
    **overrides: Any,
) -> None:
    """Compute every volume of a folder, or one, with a bundle's `configs/inference.yaml`.

    Args:
        dataset_dir: what `find_cases` takes: NIfTI files, zips, a study's DICOM files.
        output_dir: each case gets a folder in it.
        weights: trained weights; by default those `LIVERSEG_WEIGHTS` names, else the bundle's own.
        bundle: the bundle's folder; by default the joint bundle, wherever `find_bundle` finds it.
        overrides: further keys of the config; those that are None keep the config's value.

    Raises:
        LiversegError: if the input, the weights, the output folder or every case fails.
        SomeCasesFailed: if part of the cases failed.
    """
    with _user_errors():
        workflow = _workflow(bundle, weights, output_dir, dataset_dir=str(Path(dataset_dir).absolute()), **overrides)
        workflow.initialize()
        workflow.run()
        workflow.finalize()


def case_evaluator(
    output_dir: str | os.PathLike,
    *,
    weights: str | os.PathLike | None = None,
    bundle: str | os.PathLike | None = None,
    **overrides: Any,
) -> CaseEvaluator:
    """The evaluator of a bundle's `configs/inference.yaml`, its weights loaded, for cases that come one at a time.

    Args:
        output_dir, weights, bundle, overrides: as for `run_inference`.

    Raises:
        LiversegError: if the weights, the output folder or a setting cannot be used.
    """
    with _user_errors():
        workflow = _workflow(bundle, weights, output_dir, cases=[], **overrides)
        workflow.initialize()
        return workflow.parser.get_parsed_content("evaluator")


def _workflow(
    bundle: str | os.PathLike | None,
    weights: str | os.PathLike | None,
    output_dir: str | os.PathLike,
    **overrides: Any,
) -> ConfigWorkflow:
    config = inference_config(bundle)
    for name, value in overrides.items():
        if isinstance(value, str) and value.startswith(_EXPRESSIONS):
            raise UsageError(
                f"{name} is {value!r}; it must not begin with $, @ or %, which a config takes for expressions"
            )
    settings = {  # absolute paths: MONAI would take a text that starts with $, @ or % for an expression
        "bundle_root": str(config.parent.parent),
        "output_dir": str(Path(output_dir).absolute()),
        "weights": str(weights_path(config, weights)),
        **{name: value for name, value in overrides.items() if value is not None},
    }
    return ConfigWorkflow(str(config), logging_file=False, workflow_type="inference", **settings)


@contextmanager
def _user_errors() -> Iterator[None]:
    """A user's mistake as itself, not as what MONAI wraps it in, and told once."""
    # MONAI would warn that no logging file was given, ignite log a case's error once more, engine by engine
    with _quiet("monai.bundle.workflows", logging.ERROR), _quiet("ignite", logging.CRITICAL):
        try:
            yield
        except Exception as error:
            known = user_error(error)
            if known is None or known is error:
                raise
            raise known from error


@contextmanager
def _quiet(name: str, level: int) -> Iterator[None]:
    """A logger that passes nothing below a level, until the block ends."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(max(level, before))
    try:
        yield
    finally:
        logger.setLevel(before)
