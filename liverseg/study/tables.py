"""Tables of the report."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pandas as pd

from liverseg.bundle.validation import INITIALISATIONS
from liverseg.evaluation.intervals import Estimate
from liverseg.study.document import Table
from liverseg.study.estimates import Comparison, Estimates, RowEstimate
from liverseg.study.measures import LESION_MEASURES, MEASURES
from liverseg.study.published import EMBC, MIDL, published_value
from liverseg.study.results import RowResults, StudyResults

__all__ = [
    "comparison_table",
    "estimates_table",
    "lesion_table",
    "outline_table",
    "plan_table",
    "strategy_table",
    "type_table",
    "typing_table",
]

_MIDL_COLUMNS = ("type_accuracy", "lesion_dice", "lesion_recall")
_EMBC_COLUMNS = ("lesion_dice", "class_aware_dice", "success_rate", "type_accuracy")
_TYPING_COLUMNS = (
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


def strategy_table(results: StudyResults, estimates: Estimates) -> Table:
    """MIDL 2020's table: strategies and initialisations, with the paper's results."""
    names = list(dict.fromkeys((row.row.strategy, row.row.label) for row in results.rows))
    rows = sorted(
        (row for row in results.rows if row.row.plan == "none"),
        key=lambda row: (
            names.index((row.row.strategy, row.row.label)),
            INITIALISATIONS.index(row.row.initialisation),
        ),
    )
    return _with_published(rows, estimates, MIDL, _MIDL_COLUMNS, lambda row: (row.row.strategy, row.row.initialisation))


def plan_table(results: StudyResults, estimates: Estimates) -> Table:
    """EMBC 2019's table: fine-tuning plans of the joint network, with the paper's results."""
    rows = [
        row
        for row in results.rows
        if row.row.strategy == "joint"
        and not row.row.label
        and (row.row.initialisation == "lits" or (row.row.initialisation, row.row.plan) == ("scratch", "none"))
    ]
    return _with_published(rows, estimates, EMBC, _EMBC_COLUMNS, lambda row: (row.row.initialisation, row.row.plan))


def comparison_table(compared: Sequence[Comparison], question: str) -> Table:
    """Comparisons of one question, a row for each measure and pair."""
    rows = []
    for comparison in compared:
        if comparison.question != question:
            continue
        difference = comparison.difference
        rows.append(
            [
                MEASURES[comparison.measure].title,
                f"`{comparison.row}`",
                f"`{comparison.other}`",
                f"{difference.value:+.3f}",
                f"{difference.lower:+.3f} to {difference.upper:+.3f}",
                _p(difference.p),
                _p(comparison.adjusted_p),
                " ".join(map(str, comparison.seeds)),
                str(comparison.patients),
            ]
        )
    return Table(("measure", "row", "less", "difference", "95 % interval", "p", "p, Holm", "seeds", "patients"), rows)


def typing_table(results: StudyResults, estimates: Estimates) -> Table:
    """Further measures of types, a row for each row of the study."""
    return _without_published(results, estimates, _TYPING_COLUMNS)


def type_table(results: StudyResults, estimates: Estimates) -> Table:
    """Sensitivity and specificity of each type."""
    return _without_published(
        results, estimates, [name for name in MEASURES if name.startswith(("sensitivity_", "specificity_"))]
    )


def outline_table(results: StudyResults, estimates: Estimates) -> Table:
    """Further measures of segmentation."""
    return _without_published(results, estimates, ("lesion_dice_global", "success_rate"))


def lesion_table(results: StudyResults, estimates: Estimates) -> Table:
    """Measures over lesions."""
    return _without_published(results, estimates, list(LESION_MEASURES))


def estimates_table(estimates: Estimates, compared: Sequence[Comparison]) -> pd.DataFrame:
    """Every value of the report, a line each, as in `study.csv`."""
    lines = [
        {
            "row": row,
            "less": "",
            "metric": measure,
            "value": found.estimate.value,
            "lower": found.estimate.lower,
            "upper": found.estimate.upper,
            "seeds": " ".join(f"{seed}:{value:.6g}" for seed, value in found.seeds.items()),
        }
        for (row, measure), found in estimates.items()
    ]
    lines += [
        {
            "row": comparison.row,
            "less": comparison.other,
            "metric": comparison.measure,
            "value": comparison.difference.value,
            "lower": comparison.difference.lower,
            "upper": comparison.difference.upper,
            "p": comparison.difference.p,
            "p_holm": comparison.adjusted_p,
            "seeds": " ".join(map(str, comparison.seeds)),
        }
        for comparison in compared
    ]
    columns = ["row", "less", "metric", "value", "lower", "upper", "p", "p_holm", "seeds"]
    return pd.DataFrame(lines, columns=columns)


def _with_published(
    rows: Sequence[RowResults],
    estimates: Estimates,
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
            if number == 0 and not row.complete:
                line.append(f"not available: {row.reason}" if row.reason else "not run yet")
            else:
                line.append(_with_seeds(estimates.get((row.name, column))))
            value = None if row.row.label else published_value(paper, key(row), column)
            line.append("" if value is None else f"{value:.2f}")
        lines.append(line)
    return Table(head, lines)


def _without_published(results: StudyResults, estimates: Estimates, columns: Sequence[str]) -> Table:
    lines = []
    for row in results.with_results:
        found = [estimates.get((row.name, column)) for column in columns]
        if any(found):
            lines.append([*_row_name(row), *map(_with_seeds, found)])
    return Table(["strategy", "initialisation", "plan", *(_TITLES[column] for column in columns)], lines)


def _row_name(row: RowResults) -> list[str]:
    strategy = f"{row.row.strategy}, {row.row.label}" if row.row.label else row.row.strategy
    if row.missing and row.complete:
        cells = len(row.complete) + len(row.missing)
        strategy += f"\n{len(row.complete)} of {cells} cells"
    return [strategy, row.row.initialisation, row.row.plan]


def _with_seeds(found: RowEstimate | None) -> str:
    if found is None or math.isnan(found.estimate.value):
        return ""
    text = _estimate(found.estimate)
    if len(found.seeds) > 1:
        text += "\nseeds " + " ".join(f"{value:.2f}" for value in found.seeds.values())
    return text


def _estimate(found: Estimate) -> str:
    interval = "" if math.isnan(found.lower) else f" ({found.lower:.2f} to {found.upper:.2f})"
    return f"{found.value:.2f}{interval}"


def _p(value: float) -> str:
    if math.isnan(value):
        return ""
    return "<0.001" if value < 0.001 else f"{value:.3f}"
