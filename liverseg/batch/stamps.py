"""What tells, without reading it, whether a case's input has changed since it failed."""

from __future__ import annotations

from pathlib import Path

from liverseg.batch.cases import BatchCase
from liverseg.files import text_hash
from liverseg.results.inputs import input_stamp
from liverseg.volumes import NIFTI_SUFFIXES

__all__ = ["case_stamp"]


def case_stamp(case: BatchCase, liver: str | None) -> str:
    """SHA-256 of names, sizes and times of a case's CT and of its liver mask, be they there or not.

    Args:
        case: the case.
        liver: the run's, as `--liver` takes it; a mask of the case's own goes before it.
    """
    return text_hash(" ".join(input_stamp(path) for path in (case.image, *_masks(case, liver))))


def _masks(case: BatchCase, liver: str | None) -> list[Path]:
    """Where the mask may be, as `LiverSource.mask_of` looks for it."""
    text = case.liver or liver
    if text is None or text.strip().lower() in ("", "auto", "none"):
        return []
    path = Path(text)
    try:
        if not path.exists() and ":" in text:
            path = Path(text.rpartition(":")[0])
        if not path.is_dir():
            return [path]
    except OSError:  # too long a name, or a folder that may not be looked into: no mask there
        return [path]
    return [path / f"{name}{suffix}" for name in (case.name, f"{case.name}/liver") for suffix in NIFTI_SUFFIXES]
