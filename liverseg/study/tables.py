"""The report's tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pandas as pd

from liverseg.bundle.validation import INITIALISATIONS
from liverseg.evaluation.intervals import Estimate
from liverseg.study.document import Table
from liverseg.study.estimates import Comparison, Figure, Figures
from liverseg.study.measures import LESION_MEASURES, MEASURES
from liverseg.study.published import EMBC, MIDL, printed
from liverseg.study.results import RowResults, StudyResults

__all__ = [
    "comparison_table",
    "figures_table",
    "lesion_table",
    "name_table",
    "outline_table",
    "plan_table",
    "strategy_table",
    "type_table",
]

_MIDL_COLUMNS = ("type_accuracy", "lesion_dice", "lesion_recall")
_EMBC_COLUMNS = ("lesion_dice", "class_aware_dice", "success_rate", "type_accuracy")
_NAMING = (
    "type_accuracy_detected",
    "type_accuracy_end_to_end",
    "balanced_accuracy",
    "macro_f1",
    "mean_auc",
    "calibration_error",
)
_TITLES = {"mean_auc": "mean AUC", "calibration_error": "calibration error (ECE)"} | {
    name: measure.title for name, measure in (MEASURES | LESION_MEASURES).items()
}


def strategy_table(results: StudyResults, figures: Figures) -> Table:
    """MIDL 2020's table: strategies and initialisations, with what the paper prints."""
    names = list(dict.fromkeys((row.row.strategy, row.row.label) for row in results.rows))
    rows = sorted(
        (row for row in results.rows if row.row.plan == "none"),
        key=lambda row: (
            names.index((row.row.strategy, row.row.label)),
            INITIALISATIONS.index(row.row.initialisation),
        ),
    )
    return _beside_printed(rows, figures, MIDL, _MIDL_COLUMNS, lambda row: (row.row.strategy, row.row.initialisation))


def plan_table(results: StudyResults, figures: Figures) -> Table:
    """EMBC 2019's table: fine-tuning plans of the joint network, with what the paper prints."""
    rows = [
        row
        for row in results.rows
        if row.row.strategy == "joint"
        and not row.row.label
        and (row.row.initialisation == "lits" or (row.row.initialisation, row.row.plan) == ("scratch", "none"))
    ]
    return _beside_printed(rows, figures, EMBC, _EMBC_COLUMNS, lambda row: (row.row.initialisation, row.row.plan))


def comparison_table(compared: Sequence[Comparison], question: str) -> Table:
    """The comparisons of one question, a line for each measure and pair."""
    rows = []
    for one in compared:
        if one.question != question:
            continue
        own = one.difference
        interval = f"{own.lower:+.3f} to {own.upper:+.3f}"
        pair = [f"`{one.row}`", f"`{one.other}`"]
        seeds = " ".join(map(str, one.seeds))
        told = [f"{own.value:+.3f}", interval, _p(own.p), _p(one.adjusted_p), seeds, str(one.patients)]
        rows.append([MEASURES[one.measure].title, *pair, *told])
    return Table(("measure", "row", "less", "difference", "95 % interval", "p", "p, Holm", "seeds", "patients"), rows)


def name_table(results: StudyResults, figures: Figures) -> Table:
    """How well types are named, beyond the papers: a line a row of the study."""
    return _plain(results, figures, _NAMING)


def type_table(results: StudyResults, figures: Figures) -> Table:
    """Sensitivity and specificity of each type."""
    return _plain(results, figures, [name for name in MEASURES if name.startswith(("sensitivity_", "specificity_"))])


def outline_table(results: StudyResults, figures: Figures) -> Table:
    """How well lesions are outlined, beyond the papers."""
    return _plain(results, figures, ("lesion_dice_global", "success_rate"))


def lesion_table(results: StudyResults, figures: Figures) -> Table:
    """Lesion by lesion."""
    return _plain(results, figures, list(LESION_MEASURES))


def figures_table(figures: Figures, compared: Sequence[Comparison]) -> pd.DataFrame:
    """Every figure of the report, a line each: what `study.csv` holds."""
    lines = [
        {
            "row": row,
            "less": "",
            "metric": measure,
            "value": figure.estimate.value,
            "lower": figure.estimate.lower,
            "upper": figure.estimate.upper,
            "seeds": " ".join(f"{seed}:{value:.6g}" for seed, value in figure.seeds.items()),
        }
        for (row, measure), figure in figures.items()
    ]
    lines += [
        {
            "row": one.row,
            "less": one.other,
            "metric": one.measure,
            "value": one.difference.value,
            "lower": one.difference.lower,
            "upper": one.difference.upper,
            "p": one.difference.p,
            "p_holm": one.adjusted_p,
            "seeds": " ".join(map(str, one.seeds)),
        }
        for one in compared
    ]
    columns = ["row", "less", "metric", "value", "lower", "upper", "p", "p_holm", "seeds"]
    return pd.DataFrame(lines, columns=columns)


def _beside_printed(
    rows: Sequence[RowResults],
    figures: Figures,
    paper: str,
    columns: Sequence[str],
    key: Callable[[RowResults], tuple[str, str]],
) -> Table:
    head = ["strategy", "initialisation", "plan"]
    for column in columns:
        head += [_TITLES[column], "paper"]
    lines = []
    for row in rows:
        line = _row_name(row)
        for number, column in enumerate(columns):
            figure = figures.get((row.name, column))
            if number == 0 and not row.complete:
                line.append(f"not available: {row.reason}" if row.reason else "not run yet")
            else:
                line.append(_with_seeds(figure))
            value = None if row.row.label else printed(paper, key(row), column)
            line.append("" if value is None else f"{value:.2f}")
        lines.append(line)
    return Table(head, lines)


def _plain(results: StudyResults, figures: Figures, columns: Sequence[str]) -> Table:
    lines = []
    for row in results.with_results:
        found = [figures.get((row.name, column)) for column in columns]
        if any(found):
            lines.append([*_row_name(row), *map(_with_seeds, found)])
    return Table(["strategy", "initialisation", "plan", *(_TITLES[column] for column in columns)], lines)


def _row_name(row: RowResults) -> list[str]:
    strategy = f"{row.row.strategy}, {row.row.label}" if row.row.label else row.row.strategy
    if row.missing and row.complete:
        of_all = len(row.complete) + len(row.missing)
        strategy += f"\n{len(row.complete)} of {of_all} cells"
    return [strategy, row.row.initialisation, row.row.plan]


def _with_seeds(figure: Figure | None) -> str:
    if figure is None or math.isnan(figure.estimate.value):
        return ""
    text = _estimate(figure.estimate)
    if len(figure.seeds) > 1:
        text += "\nseeds " + " ".join(f"{value:.2f}" for value in figure.seeds.values())
    return text


def _estimate(own: Estimate) -> str:
    return f"{own.value:.2f}" if math.isnan(own.lower) else f"{own.value:.2f} ({own.lower:.2f} to {own.upper:.2f})"


def _p(value: float) -> str:
    if math.isnan(value):
        return ""
    return "<0.001" if value < 0.001 else f"{value:.3f}"
