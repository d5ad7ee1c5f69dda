"""A bundle's inference from Python: the same config, objects and checks as `python -m monai.bundle run inference`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from liverseg.bundle_folders import find_bundle
from liverseg.errors import LiversegError, UsageError, user_error

__all__ = ["WEIGHTS_VARIABLE", "run_inference"]

_EXPRESSIONS = ("$", "@", "%")
WEIGHTS_VARIABLE = "LIVERSEG_WEIGHTS"
"""Environment variable that names the weights to use when none are given."""


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
    folder = Path(bundle).absolute() if bundle is not None else find_bundle("liver_lesion_joint")
    config = folder / "configs" / "inference.yaml"
    if not config.is_file():
        raise LiversegError(f"{folder}: not a bundle's folder, it has no configs/inference.yaml")
    given = weights or os.environ.get(WEIGHTS_VARIABLE) or folder / "models" / "model.pt"
    # absolute paths: MONAI would take a text that starts with $, @ or % for an expression
    for name, value in overrides.items():
        if isinstance(value, str) and value.startswith(_EXPRESSIONS):
            raise UsageError(
                f"{name} is {value!r}; it must not begin with $, @ or %, which a config takes for expressions"
            )
    settings = {
        "bundle_root": str(folder),
        "dataset_dir": str(Path(dataset_dir).absolute()),
        "output_dir": str(Path(output_dir).absolute()),
        "weights": str(Path(given).absolute()),
        **{name: value for name, value in overrides.items() if value is not None},
    }
    # MONAI would warn that no logging file was given, ignite log a case's error once more, engine by engine
    with _quiet("monai.bundle.workflows", logging.ERROR), _quiet("ignite", logging.CRITICAL):
        try:
            workflow = ConfigWorkflow(str(config), logging_file=False, workflow_type="inference", **settings)
            workflow.initialize()
            workflow.run()
            workflow.finalize()
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
