"""Which CTs a batch is about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from liverseg.cases.case import BatchCase, safe_name
from liverseg.cases.manifest import cases_of_list
from liverseg.cases.tree import cases_of_tree
from liverseg.errors import LiversegError
from liverseg.imageio.formats import is_volume_or_zip, source_name
from liverseg.utils.files import is_dir, is_file

__all__ = ["find_batch", "shard_of"]

_KINDS = "give a folder, a manifest (.csv, .json), a data list (.json), or one CT (.nii, .nii.gz, .zip)"


def find_batch(source: Path, output: Path, dataset_dir: Path | None = None) -> list[BatchCase]:
    """The cases of a folder tree, a manifest or a data list.

    Args:
        source: which of them.
        output: folder of results, which is not looked into.
        dataset_dir: folder for the relative paths of a manifest or data list; by default its own.

    Raises:
        LiversegError: if there is none, it cannot be used, or results would lie within a case's folder.
    """
    source, output = source.absolute(), output.absolute()
    if is_dir(source):
        cases = cases_of_tree(source, [output])
        if not cases:
            raise LiversegError(f"{source}: no CT in it or below; .nii, .nii.gz, .zip and DICOM are looked for")
    elif not is_file(source):
        raise LiversegError(f"{source}: no such folder or file; {_KINDS}")
    elif is_volume_or_zip(source):
        cases = [BatchCase(safe_name(source_name(source) or source.name), source)]
    elif source.suffix.lower() in (".csv", ".json"):
        cases = cases_of_list(source, dataset_dir)
        if not cases:
            raise LiversegError(f"{source}: no case in it")
    else:
        raise LiversegError(f"{source}: neither a list of CTs nor a CT; {_KINDS}")
    _check_apart(cases, source, output)
    return cases


def _check_apart(cases: Sequence[BatchCase], source: Path, output: Path) -> None:
    """Refuse an output folder in which results would lie among inputs: what looks like ours there is taken away."""
    if output == source:
        raise LiversegError(f"{output}: is the source itself; choose another output folder")
    inputs = {above for case in cases for above in (case.image, *case.image.parents)}
    for case in cases:
        if case.image in (output, *output.parents):
            raise LiversegError(f"{output}: lies within {case.image}, which is a case; choose another output folder")
        if output / case.name in inputs:
            raise LiversegError(f"{output / case.name}: holds input; choose another output folder")


def shard_of(cases: Sequence[BatchCase], part: int, parts: int) -> list[BatchCase]:
    """The part-th of so many parts, counted from 1: every parts-th case, so that each has some of every folder."""
    return list(cases[part - 1 :: parts])
