"""Output types: the files of a case that `output_types` chooses. A lesion table and a record are always written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from liverseg.errors import UsageError
from liverseg.imageio.volume import is_nifti

__all__ = [
    "DEFAULT_OUTPUT_TYPES",
    "DICOM_OUTPUT_TYPES",
    "OUTPUT_TYPES",
    "are_output_types",
    "check_output_types",
    "needs_dicom",
    "parse_output_types",
]

OUTPUT_TYPES = {
    "labels": ("labels.nii.gz", "lesions.nii.gz"),
    "dicom-seg": ("segmentation.dcm",),
    "dicom-sr": ("measurements.dcm",),
    "rtstruct": ("structures.dcm",),
    "seg-nrrd": ("segmentation.seg.nrrd",),
}
"""Files of each output type."""

DICOM_OUTPUT_TYPES = ("dicom-seg", "dicom-sr", "rtstruct")
"""Output types that refer to the slices of a DICOM series, which other CTs do not have."""

DEFAULT_OUTPUT_TYPES = ("labels", "dicom-seg", "dicom-sr")
"""Output types of null; those of `DICOM_OUTPUT_TYPES` are for DICOM input, and not with `dicom: false`."""


def are_output_types(value: Any) -> bool:
    """Return True for a list of one or more names of `OUTPUT_TYPES`, each once."""
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        return False
    return all(isinstance(name, str) and name in OUTPUT_TYPES for name in value) and len({*value}) == len(value)


def parse_output_types(text: str) -> list[str]:
    """Return the names of a list separated by commas: known ones once and in the order of `OUTPUT_TYPES`, then others.

    A fixed order makes lists that mean the same equal, so that a batch recognises them.
    """
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    return [name for name in OUTPUT_TYPES if name in names] + [name for name in names if name not in OUTPUT_TYPES]


def needs_dicom(output_types: Sequence[str] | None, dicom: bool) -> bool:
    """Return whether files are written that refer to the slices of a DICOM series.

    Args:
        output_types: names of `OUTPUT_TYPES`; None for the default.
        dicom: False leaves out the default's DICOM files.

    Raises:
        UsageError: if a list names DICOM files and `dicom` is False.
    """
    if output_types is None:
        return dicom
    named = [name for name in output_types if name in DICOM_OUTPUT_TYPES]
    if named and not dicom:
        raise UsageError(f"dicom is False, but output_types has {', '.join(named)}; leave out one of them")
    return bool(named)


def check_output_types(output_types: Sequence[str] | None, images: Iterable[Any]) -> None:
    """Refuse DICOM files by name if none of the CTs is DICOM. Beside DICOM, others are written without them.

    Args:
        output_types: names of `OUTPUT_TYPES`; None, the default, passes.
        images: paths of the CTs, or images in memory.

    Raises:
        UsageError: if a named output cannot be had for any of the CTs.
    """
    cts = list(images)
    named = [name for name in output_types or () if name in DICOM_OUTPUT_TYPES]
    if not named or not cts or not all(map(_is_not_dicom, cts)):
        return
    if len(cts) > 1:
        found = f"none of the {len(cts)} CTs is DICOM"
    elif isinstance(cts[0], str | os.PathLike):
        found = f"{cts[0]} is a NIfTI file"
    else:
        found = "ct is an image in memory"
    others = ", ".join(name for name in OUTPUT_TYPES if name not in DICOM_OUTPUT_TYPES)
    raise UsageError(
        f"output_types has {', '.join(named)}, but {found}; these files need a DICOM series, the others are {others}"
    )


def _is_not_dicom(image: Any) -> bool:
    return not isinstance(image, str | os.PathLike) or is_nifti(image)
