"""Write the report of a study: Markdown, HTML, pictures, and every value as CSV."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from liverseg.errors import LiversegError, OutputError
from liverseg.study.config import StudyConfig
from liverseg.study.document import Block, Heading, Paragraph, Picture, to_html, to_markdown
from liverseg.study.estimates import compare, estimate_rows
from liverseg.study.hypotheses import check_hypotheses, ours_against_joint
from liverseg.study.overview import overview
from liverseg.study.plots import plot_confusion, plot_reliability, plot_training
from liverseg.study.results import StudyResults, read_results
from liverseg.study.sections import (
    differences_section,
    fine_tuning_section,
    further_measures_section,
    hypotheses_section,
    ours_section,
    strategies_section,
)
from liverseg.study.slice_plots import plot_slices
from liverseg.study.tables import estimates_table
from liverseg.utils.files import write_text

__all__ = ["write_report"]


def write_report(study: StudyConfig, output: Path) -> list[Path]:
    """Write `study.md`, `study.html`, `study.csv` and the pictures in `study/`. The same cells give the same bytes.

    The report of an incomplete study covers the complete cells and begins with the missing ones.

    Args:
        study: a study with complete cells.
        output: folder, created if missing.

    Returns:
        Paths of the files, pictures last.

    Raises:
        LiversegError: if no cell is complete, a table cannot be read, or the output cannot be written.
    """
    results = read_results(study)
    output = Path(output)
    try:
        (output / "study").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{output}: the report cannot be written there ({error.strerror})") from error
    estimates = estimate_rows(results)
    compared = compare(results)
    pictures = _pictures(results, output / "study")
    blocks = [
        *overview(results),
        *strategies_section(results, estimates),
        *fine_tuning_section(results, estimates),
        *differences_section(compared),
        *further_measures_section(results, estimates),
        *ours_section(ours_against_joint(results, compared)),
        *hypotheses_section(check_hypotheses(results, estimates, compared)),
        Heading("Pictures"),
        *pictures,
    ]
    paths = [output / "study.md", output / "study.html", output / "study.csv"]
    write_text(paths[0], to_markdown(blocks))
    write_text(paths[1], to_html(blocks))
    write_text(paths[2], estimates_table(estimates, compared).to_csv(index=False, float_format="%.6g"))
    return paths + [block.path for block in pictures if isinstance(block, Picture)]


def _pictures(results: StudyResults, folder: Path) -> list[Block]:
    blocks: list[Block] = []
    for file, name, text, draw in _PICTURES:
        path = folder / file
        path.unlink(missing_ok=True)
        try:
            if draw(results, path):
                blocks.append(Picture(path, name, f"{name}. {text}"))
        except LiversegError as error:  # the images may be on another machine
            logging.getLogger(__name__).warning("%s is left out: %s", path, error)
            blocks.append(Paragraph(f"{name}: left out, because the images could not be read."))
    return blocks


_PICTURES: tuple[tuple[str, str, str, Callable[[StudyResults, Path], bool]], ...] = (
    (
        "confusion.png",
        "Confusion of annotated slices, end to end",
        "A slice whose lesion is not touched counts as missed. Classification outlines nothing, so it "
        "misses none. Counts are averaged over seeds; percentages are of the true type.",
        partial(plot_confusion, of_lesions=False),
    ),
    (
        "confusion_lesions.png",
        "Confusion lesion by lesion",
        "Each true lesion is paired with the predicted lesion that it overlaps most. Predicted lesions that overlap no "
        "true lesion are false positives.",
        partial(plot_confusion, of_lesions=True),
    ),
    (
        "reliability.png",
        "Reliability",
        "Share of slices with the right type against the predicted probability, in ten bins. The area of a dot shows "
        "the number of slices in its bin. On the diagonal, probabilities are calibrated.",
        plot_reliability,
    ),
    (
        "training.png",
        "Training",
        "Scores of the validation patients against the epoch, with a line for each fold and seed. The validation after "
        "the last epoch, which may have the best weights, is not drawn if it is not a regular one.",
        plot_training,
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
