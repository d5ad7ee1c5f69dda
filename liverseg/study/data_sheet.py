"""Data sheet of a study's data, after Datasheets for Datasets (Gebru et al., Communications of the ACM 64, 2021).

It states what the data list and the results hold, and names what they do not hold.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from liverseg.datalists import DataItem
from liverseg.evaluation.lesions import SIZES
from liverseg.labels import LESION_TYPES
from liverseg.phantom.writers import SETTINGS
from liverseg.study.document import Block, Heading, Items, Paragraph, Table
from liverseg.study.results import Cohort, StudyResults
from liverseg.utils.files import read_json_object, sha256_file

__all__ = ["data_sheet"]

_UNKNOWN = "not known"
_SIZES = {
    name: f"below {upper:g} mm" if not lower else f"{lower:g} to {upper:g} mm" if upper < 1000 else f"from {lower:g} mm"
    for name, (lower, upper) in SIZES.items()
}
_LIMITS = {
    Cohort.PHANTOMS: "Every image is synthetic: none shows a person, and no figure of this study applies to patients.",
    Cohort.SYNTHETIC_LESIONS: "The lesions are synthetic, in CTs of patients. Their types are those that were painted.",
    Cohort.PATIENTS: "The study does not check who outlined the lesions, or how their types were established.",
}


def data_sheet(results: StudyResults) -> list[Block]:
    """Describe the data of a study, from its data list, its folder and the true lesions of its results."""
    datalist, study = results.datalist, results.study
    items = (*datalist.training, *datalist.test)
    lesions, folds = _true_lesions(results)
    return [
        Heading("Data sheet", level=2),
        Paragraph(
            "In the spirit of Datasheets for Datasets (Gebru et al. 2021). All of it comes from the data list and "
            "the results of this study; what they do not hold is named."
        ),
        Heading("Motivation", level=3),
        Paragraph(
            "The data list does not state for what the data were made. Here they train and score the networks of the "
            f'study "{study.name}".'
        ),
        Heading("Composition", level=3),
        Items(
            [
                f"Kind: {results.cohort.value}",
                f"Items: {_count(items)}",
                f"Labels: {', '.join(f'{number} {name}' for number, name in sorted(datalist.labels.items()))}",
                f"Items of the list that the study does not use: {_unused(results)}",
                *_partial(items),
            ]
        ),
        _fold_table(results),
        *_lesion_blocks(results, lesions, folds),
        Heading("Generation or collection", level=3),
        Items(
            [
                f"Source: {datalist.source or 'not stated in the data list'}",
                *_phantom_settings(results),
                "The data list does not record the command that wrote it.",
            ]
        ),
        Heading("Licence and distribution", level=3),
        Paragraph(
            f"Licence: {datalist.licence or 'not stated in the data list'}. The report holds results and, where slices "
            "are drawn, sections of these images; the data list holds names of files and no images."
        ),
        Heading("Uses", level=3),
        Paragraph(
            f"In this study: {'scores of held-out folds' if study.scored == 'test' else 'choice between variants'}. It "
            "is for research only, not for the care of patients."
        ),
        Heading("Version", level=3),
        Paragraph(
            f"Data list {datalist.name}, version {datalist.version or 'not given'}, SHA-256 "
            f"`{sha256_file(study.datalist)}`. Its format has no field for who maintains the data."
        ),
        Heading("Known limits", level=3),
        Items([_LIMITS[results.cohort], *_limits(items)]),
    ]


def _count(items: Iterable[DataItem]) -> str:
    items = list(items)
    slices = sum(item.slice is not None for item in items)
    volumes = len(items) - slices
    parts = [f"{slices} annotated slices"] if slices else []
    parts += [f"{volumes} volumes"] if volumes else []
    images, patients = len({item.image for item in items}), len({item.patient for item in items})
    return f"{' and '.join(parts) or 'none'} in {images} images of {patients} patients"


def _unused(results: StudyResults) -> str:
    unused = list(results.datalist.test)
    return _count(unused) if unused else "none"


def _partial(items: Iterable[DataItem]) -> list[str]:
    partial = [item for item in items if item.labelled is not None]
    clipped = [item for item in items if item.clipped_hu is not None]
    lines = []
    if partial:
        lines.append(f"Partial label maps (`labelled`): {_count(partial)}")
    if clipped:
        lines.append(f"HU clipped before storage (`clipped_hu`): {_count(clipped)}")
    return lines


def _fold_table(results: StudyResults) -> Table:
    rows = []
    for fold in results.datalist.folds:
        items = [item for item in results.datalist.training if item.fold == fold]
        types = [sum(item.lesion_type == name for item in items) for name in LESION_TYPES]
        held_out = "yes" if fold in results.folds else "no"
        counts = (len({item.patient for item in items}), len(items), *types, len(items) - sum(types))
        rows.append([str(fold), held_out, *map(str, counts)])
    return Table(["fold", "held out", "patients", "items", *LESION_TYPES, "type not stated"], rows)


def _true_lesions(results: StudyResults) -> tuple[pd.DataFrame, list[int]]:
    """Return the true lesions of every fold that a network with a map has scored, and these folds.

    They are the same for every network, so the first with the fold gives them.
    """
    found: dict[int, pd.DataFrame] = {}
    for row in results.with_results:
        for cell in row.complete:
            of_cell = row.lesions[(row.lesions["fold"] == cell.fold) & (row.lesions["seed"] == cell.seed)]
            if len(of_cell):
                found.setdefault(cell.fold, of_cell[of_cell["side"] == "true"])
    return (pd.concat(found.values()) if found else pd.DataFrame()), sorted(found)


def _lesion_blocks(results: StudyResults, lesions: pd.DataFrame, folds: list[int]) -> list[Block]:
    if lesions.empty:
        return [Paragraph("Lesions by type and size: not known, because no network with a map has results.")]
    rows = []
    for name in (*LESION_TYPES, ""):
        of_type = lesions[lesions["true_type"] == name]
        if name or len(of_type):
            counts = [
                ((of_type["diameter_mm"] >= lower) & (of_type["diameter_mm"] < upper)).sum()
                for lower, upper in SIZES.values()
            ]
            patients = of_type["patient"].nunique()
            rows.append([name or "type not stated", *map(str, counts), str(len(of_type)), str(patients)])
    missing = [fold for fold in results.folds if fold not in folds]
    of_folds = f" Without folds {', '.join(map(str, missing))}, which have no results." if missing else ""
    text = (
        "Scored lesions by type and by the diameter of a disc or ball of their size. A lesion is a connected part of a "
        f"label map; one that two annotated slices cut counts twice.{of_folds}"
    )
    return [Paragraph(text), Table(["lesions", *_SIZES.values(), "all", "patients"], rows)]


def _phantom_settings(results: StudyResults) -> list[str]:
    """Name the command of phantoms, from the settings that it leaves in the folder of the data."""
    if results.cohort is not Cohort.PHANTOMS:
        return []
    settings = read_json_object(results.study.dataset_dir / SETTINGS)
    if settings is None:
        return [f"Command: {_UNKNOWN}, because the data's folder has no {SETTINGS}"]
    recipe = settings.pop("recipe", _UNKNOWN)
    options = " ".join(f"--{key} {value}" for key, value in settings.items())
    unknown = ""
    if settings.get("kind") == "cohort" and "slices" not in settings:  # made by an earlier version
        unknown = f"; {SETTINGS} does not have the number of annotated slices, which `--slices` sets"
    return [f"Command, by the folder's {SETTINGS}: `liverseg phantom FOLDER {options}`, recipe {recipe}{unknown}"]


def _limits(items: Iterable[DataItem]) -> list[str]:
    items = list(items)
    slices = pd.Series([item.patient for item in items]).value_counts()
    counts = {name: sum(item.lesion_type == name for item in items) for name in LESION_TYPES}
    rarest = min(counts, key=lambda name: counts[name])
    return [
        f"One data list with {len(slices)} patients. A patient has {slices.min()} to {slices.max()} items, which are "
        "alike; intervals are therefore by patient.",
        f"The rarest type is {rarest}, with {counts[rarest]} of {len(items)} items. There are only the types "
        f"{', '.join(LESION_TYPES)}.",
        "The data list has no fields for scanner, hospital, contrast phase, age and sex, so their spread is not known.",
    ]
