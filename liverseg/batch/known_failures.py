"""A failure that would only come again."""

from __future__ import annotations

from typing import Any

from liverseg.batch.job import Job
from liverseg.batch.stamps import case_stamp
from liverseg.batch.state import BatchState
from liverseg.cases.case import BatchCase

__all__ = ["known_failure"]


def known_failure(case: BatchCase, job: Job, state: BatchState) -> dict[str, Any] | None:
    """What is known of a case's failure with the same input, weights and settings.

    None where there is none, or where the batch is to try again what failed.

    Args:
        case: the case.
        job: of the batch.
        state: of the output folder.
    """
    known = None if job.retry_failed else state.failure(case.name)
    if known is None or known.get("weights_sha256") != job.wanted.weights_sha256:
        return None
    same = known.get("configuration_sha256") == job.wanted.configuration(case)
    return known if same and known.get("input") == case_stamp(case, job.overrides.get("liver")) else None
