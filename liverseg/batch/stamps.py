"""What tells, without reading it, whether a case's input has changed since it failed."""

from __future__ import annotations

from liverseg.cases.case import BatchCase
from liverseg.imageio.liver_mask import LiverSource
from liverseg.results.inputs import input_stamp
from liverseg.utils.files import text_hash

__all__ = ["case_stamp"]


def case_stamp(case: BatchCase, liver: str | None) -> str:
    """SHA-256 of names, sizes and times of a case's CT and of its liver mask, be they there or not.

    Args:
        case: the case.
        liver: the run's, as `--liver` takes it; a mask of the case's own goes before it.
    """
    masks = LiverSource.parse(case.liver or liver or "none").candidates(case.name)
    return text_hash(" ".join(input_stamp(path) for path in (case.image, *masks)))
