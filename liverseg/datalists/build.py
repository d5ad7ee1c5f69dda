"""From a folder to its data list, in one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from liverseg.datalists.importers import decathlon, ircadb, lits
from liverseg.datalists.importers.cohort import cohort_items
from liverseg.datalists.importers.cohort_table import Types
from liverseg.datalists.importers.slices import assumed, check_hu, slice_items
from liverseg.datalists.lesion_load import lesion_loads
from liverseg.datalists.model import LABELLED, DataItem, DataList, label_table, read_datalist, write_datalist
from liverseg.datalists.similar_names import warn_about_similar_names
from liverseg.datalists.splits import adopt_folds, assign_folds, check_split, hold_out
from liverseg.errors import UsageError

__all__ = ["SOURCES", "build_datalist"]


@dataclass(frozen=True)
class _Layout:
    """A layout's help text, importer, reference and licence, how many rows its label table has, its own options.

    `copies` tells that all files of its list are made by the importer, which then also takes the list's folder.
    """

    help: str
    items: Callable[..., tuple[tuple[DataItem, ...], tuple[DataItem, ...]]]
    origin: str
    licence: str
    labels: int
    options: tuple[str, ...] = ()
    copies: bool = False


_LAYOUTS = {
    "lits": _Layout(
        "LiTS: volume-N.nii and segmentation-N.nii, at any depth",
        lits.lits_items,
        lits.SOURCE,
        lits.LICENCE,
        3,
        ("labelled",),
    ),
    "decathlon": _Layout(
        "Task03_Liver of the Medical Segmentation Decathlon, as its dataset.json lists it",
        decathlon.decathlon_items,
        decathlon.SOURCE,
        decathlon.LICENCE,
        3,
    ),
    "ircadb": _Layout(
        "3D-IRCADb-01: folders 3Dircadb1.N of DICOM, also written as NIfTI into ROOT/nifti",
        ircadb.ircadb_items,
        ircadb.SOURCE,
        ircadb.LICENCE,
        3,
        ("typed",),
    ),
    "cohort": _Layout(
        "typed lesions: a table slices.csv or slices.xlsx of images and masks, NIfTI, DICOM or PNG",
        lambda root, **given: (cohort_items(root, **given), ()),
        "typed slices of {}",
        "not stated",
        5,
        ("table", "types"),
    ),
    "slices": _Layout(
        "2-D images: a table slices.csv or slices.xlsx of PNG, JPEG, DICOM or NIfTI and their masks",
        lambda root, folder, **given: (slice_items(root, folder, **given), ()),
        "slices of {}",
        "not stated",
        3,
        ("table", "types", "labelled", "hu", "pixel_mm", "slice_mm"),
        copies=True,
    ),
}

SOURCES: dict[str, str] = {source: layout.help for source, layout in _LAYOUTS.items()}
"""Layouts that can be imported, each with one line of help."""


def build_datalist(
    source: str,
    root: Path,
    *,
    output: Path | None = None,
    name: str | None = None,
    folds: int = 5,
    test: float = 0.0,
    seed: int = 0,
    folds_from: Path | None = None,
    table: str | None = None,
    types: Types | None = None,
    typed: bool = False,
    labelled: str | None = None,
    hu: tuple[float, float] | None = None,
    pixel_mm: float | None = None,
    slice_mm: float | None = None,
    origin: str | None = None,
    licence: str | None = None,
) -> Path:
    """Import a folder and write its data list, with types and lesion load of the labels spread over the parts.

    Patients whose names differ only in spelling are told in the log.

    Args:
        source: the folder's layout, one of `SOURCES`.
        root: the folder; paths in the list are relative to it, those of a set of slices to the list's own folder.
        output: the list to write; ROOT/datalist.json when not given.
        name: the list's name; the folder's when not given.
        folds: validation folds, at least 2.
        test: share of the labelled items held out as test list, whole patients at a time, 0 to 1; 1 makes
            a list of test items alone.
        seed: seed of both splits.
        folds_from: a list whose folds and test patients are taken instead of splitting anew.
        table: the table of a cohort or a set of slices, its file name in the folder; see `cohort_items`.
        types: the user's words for their lesion types, likewise.
        typed: of 3D-IRCADb-01 keep the patients whose lesions are all cysts, and write the joint label table.
        labelled: "liver" for a set of slices, or another set in LiTS's layout, whose label maps outline the whole liver
            and tell no lesions apart; in LiTS's layout its name begins the names of its patients.
        hu: of a set of slices the HU of the lowest and highest value of PNG and JPEG; see `slice_items`.
        pixel_mm, slice_mm: of a set of slices, likewise.
        origin: where the data come from; the source's own reference when not given.
        licence: the data's licence, likewise.

    Returns:
        The list's path.

    Raises:
        UsageError: if the source is unknown, folds, test or seed are out of range, a share is to be held out of
            patients whose folds are given, an option is given that the source does not have, or labelled without
            name, origin and licence.
        LiversegError: what importer, split or writing find wrong.
    """
    if source not in _LAYOUTS:
        raise UsageError(f"source {source!r}; allowed: {', '.join(_LAYOUTS)}")
    layout = _LAYOUTS[source]
    options = {
        "table": table,
        "types": types,
        "typed": typed or None,
        "labelled": labelled,
        "hu": hu,
        "pixel_mm": pixel_mm,
        "slice_mm": slice_mm,
    }
    given = {key: value for key, value in options.items() if value is not None}
    for key in given:
        if key not in layout.options:
            owners = " and ".join(name for name, other in _LAYOUTS.items() if key in other.options)
            raise UsageError(f"source {source}: {key} given; allowed for {owners} only")
    # an importer may convert every image: what can be refused before is
    check_split(folds, test, seed)
    check_hu(hu)
    if test and folds_from is not None:
        raise UsageError(f"test share {test} and folds from {folds_from}: take one of the two")
    split_before = None if folds_from is None else read_datalist(folds_from)
    if labelled not in (None, LABELLED[0][0]):
        raise UsageError(f"labelled {labelled!r}; it must be {LABELLED[0][0]}")
    another = source == "lits" and labelled is not None
    if another:
        given.pop("labelled")
        if not (name and origin and licence):
            raise UsageError(f"labelled {labelled}: this is no LiTS; give its name, where it is from and its licence")
    output = Path(output) if output else Path(root) / "datalist.json"
    folder = output.parent if layout.copies else Path(root)
    outlined, unlabelled = layout.items(Path(root), **({"folder": folder} if layout.copies else {}), **given)
    if another:  # another set's patients are not LiTS's of the same number
        outlined = tuple(replace(item, labelled=LABELLED[0], patient=f"{name}-{item.patient}") for item in outlined)
        unlabelled = tuple(replace(item, patient=f"{name}-{item.patient}") for item in unlabelled)
    warn_about_similar_names(item.patient for item in outlined + unlabelled)
    if split_before is None:
        training, held_out = _split(outlined, folder, folds, test, seed)
    else:
        training, held_out = adopt_folds(outlined, split_before)
    origin = origin or layout.origin.format(Path(root).absolute().name)
    if source == "slices":
        origin = f"{origin}; {assumed(pixel_mm, slice_mm)}"
    # a cyst is 2 in both label tables, so a list of types can be the joint one
    typed = typed or any(item.lesion_type for item in outlined)
    datalist = DataList(
        name=name or Path(root).absolute().name,
        version="1",
        source=origin,
        licence=licence or layout.licence,
        labels=label_table(5 if typed else layout.labels),
        training=training,
        test=held_out + unlabelled,
    )
    return write_datalist(output, datalist)


def _split(
    items: tuple[DataItem, ...], root: Path, folds: int, test: float, seed: int
) -> tuple[tuple[DataItem, ...], tuple[DataItem, ...]]:
    """Items with folds and items held out, their lesion loads read from their labels."""
    if test == 1:
        return hold_out(items, test, seed)
    # a split that cannot be is refused before every label is read
    assign_folds(hold_out(items, test, seed)[0], folds, seed)
    loads = dict(zip(items, lesion_loads(items, root), strict=True))
    kept, held_out = hold_out(items, test, seed, [loads[item] for item in items])
    return assign_folds(kept, folds, seed, [loads[item] for item in kept]), held_out
