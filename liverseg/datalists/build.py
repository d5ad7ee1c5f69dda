"""Build the data list of a folder in one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from liverseg.datalists.importers import decathlon, ircadb, lits
from liverseg.datalists.importers.cohort import cohort_items
from liverseg.datalists.importers.cohort_table import Types
from liverseg.datalists.importers.slices import check_hu, describe_assumptions, slice_items
from liverseg.datalists.lesion_load import lesion_loads
from liverseg.datalists.model import LABELLED, DataItem, DataList, label_table, read_datalist, write_datalist
from liverseg.datalists.similar_names import warn_about_similar_names
from liverseg.datalists.splits import adopt_folds, assign_folds, check_split, hold_out
from liverseg.errors import UsageError

__all__ = ["SOURCES", "build_datalist"]


@dataclass(frozen=True)
class _Layout:
    """A folder layout that can be imported.

    Attributes:
        help: one line for the command line's help.
        import_items: the importer.
        origin: reference for the data list.
        licence: the data's licence.
        labels: number of rows of the label table.
        options: options that only some layouts have.
        writes_copies: the importer writes every file of the list itself, and needs the list's folder for that.
    """

    help: str
    import_items: Callable[..., tuple[tuple[DataItem, ...], tuple[DataItem, ...]]]
    origin: str
    licence: str
    labels: int
    options: tuple[str, ...] = ()
    writes_copies: bool = False


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
        lambda root, **options: (cohort_items(root, **options), ()),
        "typed slices of {}",
        "not stated",
        5,
        ("table", "types"),
    ),
    "slices": _Layout(
        "2-D images: a table slices.csv or slices.xlsx of PNG, JPEG, DICOM or NIfTI and their masks",
        lambda root, folder, **options: (slice_items(root, folder, **options), ()),
        "slices of {}",
        "not stated",
        3,
        ("table", "types", "labelled", "hu", "pixel_mm", "slice_mm"),
        writes_copies=True,
    ),
}

SOURCES: dict[str, str] = {source: layout.help for source, layout in _LAYOUTS.items()}
"""Folder layouts that can be imported, each with one line of help."""


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
    """Import a folder and write its data list, with lesion types and lesion load balanced over the folds.

    A warning is logged if names of patients differ only in spelling.

    Args:
        source: the folder's layout, one of `SOURCES`.
        root: the folder. Paths in the list are relative to it; for a set of slices, to the folder of the list.
        output: the list to write; ROOT/datalist.json by default.
        name: the list's name; the folder's name by default.
        folds: number of validation folds, at least 2.
        test: share of the labelled items to hold out as test list, split by patient, 0 to 1. 1 writes a list of test
            items only.
        seed: seed of both splits.
        folds_from: a data list whose folds and test patients are used instead of a new split.
        table: file name of the table of a cohort or a set of slices; see `cohort_items`.
        types: the user's words for lesion types; see `cohort_items`.
        typed: for 3D-IRCADb-01, keep only patients whose lesions are all cysts, and write the joint label table.
        labelled: "liver" for a set of slices, or a data set in LiTS's layout, whose label maps outline the liver
            including its lesions. In LiTS's layout, the names of the patients then begin with `name`.
        hu: for a set of slices, HU of the lowest and the highest value of PNG and JPEG; see `slice_items`.
        pixel_mm, slice_mm: for a set of slices; see `slice_items`.
        origin: where the data come from; the reference of the source by default.
        licence: the data's licence; that of the source by default.

    Returns:
        The path of the list.

    Raises:
        UsageError: if the source is unknown; folds, test or seed are out of range; both `test` and `folds_from` are
            given; the source does not have a given option; or `labelled` is given for LiTS's layout without name,
            origin and licence.
        LiversegError: if the import, the split or the writing fails.
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
    # before the importer, which may convert every image
    check_split(folds, test, seed)
    check_hu(hu)
    if test and folds_from is not None:
        raise UsageError(f"test share {test} and folds from {folds_from}: take one of the two")
    split_before = None if folds_from is None else read_datalist(folds_from)
    if labelled not in (None, LABELLED[0][0]):
        raise UsageError(f"labelled {labelled!r}; it must be {LABELLED[0][0]}")
    only_lits_layout = source == "lits" and labelled is not None
    if only_lits_layout:
        given.pop("labelled")
        if not (name and origin and licence):
            raise UsageError(f"labelled {labelled}: this is no LiTS; give its name, where it is from and its licence")
    output = Path(output) if output else Path(root) / "datalist.json"
    folder = output.parent if layout.writes_copies else Path(root)
    arguments = {**given, "folder": folder} if layout.writes_copies else given
    with_label, unlabelled = layout.import_items(Path(root), **arguments)
    if only_lits_layout:  # its patients are not those of LiTS with the same number
        with_label = tuple(replace(item, labelled=LABELLED[0], patient=f"{name}-{item.patient}") for item in with_label)
        unlabelled = tuple(replace(item, patient=f"{name}-{item.patient}") for item in unlabelled)
    warn_about_similar_names(item.patient for item in with_label + unlabelled)
    if split_before is None:
        training, held_out = _split(with_label, folder, folds, test, seed)
    else:
        training, held_out = adopt_folds(with_label, split_before)
    origin = origin or layout.origin.format(Path(root).absolute().name)
    if source == "slices":
        origin = f"{origin}; {describe_assumptions(pixel_mm, slice_mm)}"
    # a list with lesion types can have the joint label table: a cyst is 2 in both tables
    typed = typed or any(item.lesion_type for item in with_label)
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
    """Return items with folds and held-out items, balanced by the lesion loads read from their labels."""
    if test == 1:
        return hold_out(items, test, seed)
    # refuse an impossible split before all labels are read
    assign_folds(hold_out(items, test, seed)[0], folds, seed)
    loads = dict(zip(items, lesion_loads(items, root), strict=True))
    kept, held_out = hold_out(items, test, seed, [loads[item] for item in items])
    return assign_folds(kept, folds, seed, [loads[item] for item in kept]), held_out
