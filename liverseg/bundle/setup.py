"""Functions that the bundles' configs call first: one-line errors, checks of values, folders, devices.

`python -m monai.bundle run` reads a config, evaluates its `initialize` list in order, then the run id. Everything a
user can get wrong is checked from there, before a network is built or a file is written.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from pathlib import Path
from types import TracebackType

from liverseg.bundle.config import adapt_tracking, build, check_config, inference_settings, training_settings
from liverseg.bundle.outputs import needs_dicom
from liverseg.bundle.overrides import is_monai_command, refuse_unknown_overrides
from liverseg.bundle.paths import default_weights
from liverseg.bundle.validation import none_if_null
from liverseg.errors import ExitCode, user_error
from liverseg.utils.distributed import (
    destroy_process_group,
    init_process_group,
    is_rank_zero,
    report_once,
    require_single_process,
)
from liverseg.utils.files import ensure_writable
from liverseg.utils.precision import get_device

__all__ = [
    "adapt_tracking",
    "build",
    "check_config",
    "default_output_dir",
    "default_weights",
    "destroy_process_group",
    "ensure_writable",
    "get_device",
    "inference_settings",
    "init_process_group",
    "install_excepthook",
    "is_rank_zero",
    "needs_dicom",
    "none_if_null",
    "path_or_none",
    "refuse_unknown_overrides",
    "require_single_process",
    "training_settings",
]


def install_excepthook() -> None:
    """End the program with one line and an exit code for an uncaught LiversegError, instead of a traceback.

    MONAI wraps the errors of a config in errors of its own, so the complete chain of causes is searched. Other errors
    keep their traceback, and so do all errors if the environment sets LIVERSEG_DEBUG. In a process that uses a config
    from Python nothing changes: its hook and its loggers are not the bundle's.
    """
    if not is_monai_command(sys.argv):
        return
    logging.getLogger("ignite").setLevel(logging.CRITICAL)  # it would log the same error again for each engine
    sys.excepthook = _one_line_hook


def _one_line_hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    cause = user_error(error)
    if cause is None or os.environ.get("LIVERSEG_DEBUG"):
        traceback.print_exception(kind, error, trace)
        raise SystemExit(ExitCode.FAILED)
    if report_once(str(cause)):
        print(f"liverseg: {cause}", file=sys.stderr, flush=True)
    raise SystemExit(int(cause.exit_code))


def path_or_none(value: str | os.PathLike | None) -> str | None:
    """Return a path as text, or None where `none_if_null` returns None."""
    return None if none_if_null(value) is None else str(value)


def default_output_dir(bundle: str) -> str:
    """Return the default output folder of a run: `runs/<bundle>` in the current folder, absolute.

    It is outside the bundle, which may be read-only. MONAI's commands are often called in a bundle's folder; `runs` is
    then two levels up, beside `bundles`.
    """
    here = Path.cwd()
    if (here / "configs").is_dir() and here.parent.name == "bundles":
        here = here.parent.parent
    return str(here / "runs" / bundle)
