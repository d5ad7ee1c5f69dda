"""The report of a study: Markdown, HTML, pictures, and every figure as CSV."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from liverseg.errors import LiversegError
from liverseg.study.config import StudyDefinition
from liverseg.study.document import Block, Heading, Paragraph, Picture
from liverseg.study.estimates import compare, row_figures
from liverseg.study.html import to_html
from liverseg.study.hypotheses import check_expectations, ours_against_joint
from liverseg.study.markdown import to_markdown
from liverseg.study.overview import first_page
from liverseg.study.plots import confusion_picture, reliability_picture, training_picture
from liverseg.study.results import StudyResults, read_results
from liverseg.study.sections import (
    beyond_the_papers,
    differences,
    expectations,
    fine_tuning,
    ours,
    strategies,
)
from liverseg.study.slice_plots import qualitative_picture
from liverseg.study.tables import figures_table
from liverseg.utils.files import write_text

__all__ = ["write_report"]


def write_report(study: StudyDefinition, output: Path) -> list[Path]:
    """Write `study.md`, `study.html`, `study.csv` and the pictures in `study/`; the same cells give the same bytes.

    A study that is not complete is reported as far as it is, with what is missing said first.

    Args:
        study: the study, of which some cells are complete.
        output: folder, made if missing.

    Returns:
        The files, pictures last.

    Raises:
        LiversegError: if no cell is complete, a cell's table cannot be read, or the output cannot be written.
    """
    results = read_results(study)
    output = Path(output)
    try:
        (output / "study").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LiversegError(f"{output}: the report cannot be written there ({error.strerror})") from error
    figures = row_figures(results)
    compared = compare(results)
    drawn = _pictures(results, output / "study")
    blocks = [
        *first_page(results),
        *strategies(results, figures),
        *fine_tuning(results, figures),
        *differences(compared),
        *beyond_the_papers(results, figures),
        *ours(ours_against_joint(results, compared)),
        *expectations(check_expectations(results, figures, compared)),
        Heading("Pictures"),
        *drawn,
    ]
    paths = [output / "study.md", output / "study.html", output / "study.csv"]
    write_text(paths[0], to_markdown(blocks))
    write_text(paths[1], to_html(blocks))
    write_text(paths[2], figures_table(figures, compared).to_csv(index=False, float_format="%.6g"))
    return paths + [block.path for block in drawn if isinstance(block, Picture)]


def _pictures(results: StudyResults, folder: Path) -> list[Block]:
    blocks: list[Block] = []
    for file, name, text, draw in _DRAWN:
        path = folder / file
        path.unlink(missing_ok=True)
        try:
            if draw(results, path):
                blocks.append(Picture(path, name, f"{name}. {text}"))
        except LiversegError as error:  # images may lie on another machine than the report is written on
            logging.getLogger(__name__).warning("%s is left out: %s", path, error)
            blocks.append(Paragraph(f"{name}: left out, because images could not be read where this was written."))
    return blocks


_DRAWN: tuple[tuple[str, str, str, Callable[[StudyResults, Path], bool]], ...] = (
    (
        "confusion.png",
        "Confusion of annotated slices, end to end",
        "A slice whose lesion is not touched counts as missed; classification outlines nothing, so it "
        "misses none. Counts are averaged over seeds; shares are of the true type.",
        partial(confusion_picture, of_lesions=False),
    ),
    (
        "confusion_lesions.png",
        "Confusion lesion by lesion",
        "Each true lesion with the predicted one it overlaps most, and the predicted lesions that hit none as false "
        "positives.",
        partial(confusion_picture, of_lesions=True),
    ),
    (
        "reliability.png",
        "Reliability",
        "How often a slice's name is right by the probability the network gave it, in ten bins; areas tell how many "
        "slices are in a bin. On the diagonal the probability is what it says.",
        reliability_picture,
    ),
    (
        "training.png",
        "Training",
        "Scores of the validation patients against the epoch, a line for each fold and seed. The validation after the "
        "last epoch, which may have the best weights, is not drawn where it falls between two regular ones.",
        training_picture,
    ),
    (
        "slices.png",
        "Slices with the first seed",
        "For each type the one whose class-aware Dice under joint is the median, and the worst of all. Below each: the "
        "type named with its probability, red where it is wrong, and the lesion Dice.",
        qualitative_picture,
    ),
)
"""File, name, caption, and what draws it and tells whether there was anything to draw."""
