"""Write the report of a study: a page of findings, its tables, a data sheet, pictures, and every value as CSV."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from liverseg.datalists import DataList
from liverseg.errors import LiversegError, OutputError
from liverseg.study.config import StudyConfig
from liverseg.study.curves import StudyCurves, read_curves, row_progress
from liverseg.study.data_sheet import data_sheet
from liverseg.study.document import Block, Heading, Paragraph, Picture, to_html, to_markdown
from liverseg.study.estimates import Comparison, compare, estimate_rows
from liverseg.study.findings import claims, detectable_differences, findings, lengths_of_trainings, main_tables, opening
from liverseg.study.hypotheses import check_hypotheses, ours_against_joint
from liverseg.study.overview import overview
from liverseg.study.plots import plot_confusion, plot_differences, plot_reliability, plot_training
from liverseg.study.results import StudyResults, read_results
from liverseg.study.sections import (
    differences_section,
    fine_tuning_section,
    further_measures_section,
    hypotheses_section,
    ours_section,
    published_section,
    strategies_section,
    training_section,
)
from liverseg.study.slice_plots import plot_slices
from liverseg.study.tables import estimates_table
from liverseg.utils.files import write_text

__all__ = ["write_report"]


def write_report(study: StudyConfig, output: Path) -> list[Path]:
    """Write the report. The same cells give the same bytes.

    `study.md` is a page of findings with the main tables. `study_tables.md` has everything behind it, and
    `study_data.md` is the data's data sheet. `study.html` holds all three, `study.csv` every value, and `study/` the
    pictures. The report of an incomplete study covers the complete cells and begins with the missing ones.

    Args:
        study: a study with complete cells.
        output: folder, created if missing.

    Returns:
        Paths of the files, pictures last.

    Raises:
        LiversegError: if no cell is complete, a table cannot be read, the data list joins data of several kinds, or the
            output cannot be written.
    """
    results = read_results(study)
    output = Path(output)
    try:
        (output / "study").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{output}: the report cannot be written there ({error.strerror})") from error
    estimates = estimate_rows(results)
    compared = compare(results)
    hypotheses = check_hypotheses(results, estimates, compared)
    curves = read_curves(results)
    progress = row_progress(results, curves)
    pictures, further = _pictures(results, compared, curves, output / "study")
    title, *start = opening(results)
    page: list[Block] = [
        *start,
        *findings(results, estimates, compared),
        *lengths_of_trainings(progress),
        *claims(hypotheses),
        *detectable_differences(compared),
        *main_tables(results, estimates),
        Heading("Pictures"),
        *pictures,
    ]
    details: list[Block] = [
        *overview(results),
        *strategies_section(results, estimates),
        *fine_tuning_section(results, estimates),
        *training_section(results, progress),
        *differences_section(results, compared),
        *further_measures_section(results, estimates),
        *ours_section(ours_against_joint(results, compared)),
        *hypotheses_section(hypotheses),
        *published_section(results),
        Heading("Further pictures"),
        *further,
    ]
    sheet = data_sheet(results)
    texts = {
        "study.md": f"{to_markdown([title, *page])}\n{_LINKS}",
        "study_tables.md": to_markdown([Heading(f"Tables of the study: {study.name}", level=1), *details]),
        "study_data.md": to_markdown([Heading(f"Data of the study: {study.name}", level=1), *sheet]),
        "study.html": to_html([title, *page, *details, *sheet]),
        "study.csv": estimates_table(estimates, compared).to_csv(index=False, float_format="%.6g"),
    }
    for name, text in texts.items():
        write_text(output / name, text)
    drawn = [block.path for block in (*pictures, *further) if isinstance(block, Picture)]
    return [*(output / name for name in texts), *drawn]


_LINKS = (
    "Behind this page: [tables](study_tables.md) with every measure, seed and comparison, the "
    "[data sheet](study_data.md), and [every value as CSV](study.csv). `study.html` has all of it but the CSV.\n"
)


_Plot = tuple[str, str, str, Callable[[StudyResults, Path], bool]]


def _pictures(
    results: StudyResults, compared: Sequence[Comparison], curves: StudyCurves, folder: Path
) -> tuple[list[Block], list[Block]]:
    """Draw the pictures. Returns those of the first page, and the further ones."""
    differences: _Plot = (
        "differences.png",
        "Paired differences",
        "Each difference with its 95 % interval, by patient. The band behind it spans true differences that would "
        "be missed more than one time in five, in Holm's family. Differences to peers are only in the tables.",
        lambda _, path: plot_differences(compared, path),
    )
    training: _Plot = (
        "training.png",
        "Training",
        "Scores of the validation patients against the epoch, with a line for each fold and seed.",
        lambda results, path: plot_training(results, curves, path),
    )
    blocks: tuple[list[Block], list[Block]] = ([], [])
    for page, plots in zip(blocks, ((differences, *_PICTURES), (*_FURTHER_PICTURES, training)), strict=True):
        for file, name, text, draw in plots:
            path = folder / file
            path.unlink(missing_ok=True)
            try:
                if draw(results, path):
                    credit = _image_credit(results.datalist) if draw is plot_slices else ""
                    page.append(Picture(path, name, f"{name}. {text}{credit}"))
            except LiversegError as error:  # the images may be on another machine
                logging.getLogger(__name__).warning("%s is left out: %s", path, error)
                page.append(Paragraph(f"{name}: left out, because the images could not be read."))
    return blocks


def _image_credit(datalist: DataList) -> str:
    """Return the images' source and licence, which must stand beside pictures of them."""
    licence = f" Licence: {datalist.licence}." if datalist.licence else ""
    return f" Images: {datalist.source.rstrip('.')}.{licence} Outlines added." if datalist.source else ""


_PICTURES: tuple[_Plot, ...] = (
    (
        "confusion.png",
        "Confusion of annotated slices, end to end",
        "A slice whose lesion is not touched counts as missed. Classification outlines nothing, so it "
        "misses none. Counts are averaged over seeds; percentages are of the true type.",
        partial(plot_confusion, of_lesions=False),
    ),
    (
        "reliability.png",
        "Reliability",
        "Share of slices with the right type against the predicted probability, in ten bins. The area of a dot shows "
        "the number of slices in its bin. On the diagonal, probabilities are calibrated.",
        plot_reliability,
    ),
    (
        "slices.png",
        "Slices with the first seed",
        "For each type, the slice with the median class-aware Dice of joint; and the worst slice of all. Below each "
        "are the predicted type with its probability, red if it is wrong, and the lesion Dice.",
        plot_slices,
    ),
)
"""File, name, caption and plot function, which returns False if there is nothing to draw."""
_FURTHER_PICTURES: tuple[_Plot, ...] = (
    (
        "confusion_lesions.png",
        "Confusion lesion by lesion",
        "Each true lesion is paired with the predicted lesion that it overlaps most. Predicted lesions that overlap no "
        "true lesion are false positives.",
        partial(plot_confusion, of_lesions=True),
    ),
)
