"""Tables of the report."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import pandas as pd

from liverseg.bundle.validation import INITIALISATIONS
from liverseg.evaluation.intervals import Estimate
from liverseg.study.curves import RowProgress
from liverseg.study.document import Table
from liverseg.study.estimates import COMPARED, QUESTIONS, Comparison, Estimates, RowEstimate, format_signed
from liverseg.study.measures import LESION_MEASURES, MEASURES
from liverseg.study.published import EMBC, MIDL, published_rows, published_value
from liverseg.study.results import Cohort, RowResults, StudyResults

__all__ = [
    "comparison_table",
    "detectable_table",
    "detects_published",
    "estimates_table",
    "format_estimate",
    "format_p",
    "format_rise",
    "lesion_table",
    "not_significant_table",
    "outline_table",
    "plan_table",
    "published_table",
    "strategy_table",
    "training_table",
    "type_table",
    "typing_table",
]

_MIDL_COLUMNS = ("type_accuracy", "lesion_dice", "lesion_recall")
_EMBC_COLUMNS = ("lesion_dice", "class_aware_dice", "success_rate", "type_accuracy")
_COLUMNS = {MIDL: _MIDL_COLUMNS, EMBC: _EMBC_COLUMNS}
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


def strategy_table(results: StudyResults, estimates: Estimates, brief: bool = False) -> Table:
    """MIDL 2020's table: strategies and initialisations, for patients with the paper's results.

    Args:
        results: of the study.
        estimates: of all rows.
        brief: without rows that have no results, and with the seeds' numbers instead of their values.
    """
    names = list(dict.fromkeys((row.row.strategy, row.row.label) for row in results.rows))
    rows = sorted(
        (row for row in results.rows if row.row.plan == "none"),
        key=lambda row: (
            names.index((row.row.strategy, row.row.label)),
            INITIALISATIONS.index(row.row.initialisation),
        ),
    )
    return _main_table(results, rows, estimates, MIDL, brief, lambda row: (row.row.strategy, row.row.initialisation))


def plan_table(results: StudyResults, estimates: Estimates, brief: bool = False) -> Table:
    """EMBC 2019's table: fine-tuning plans of the joint network; arguments and the rest as for `strategy_table`."""
    rows = [
        row
        for row in results.rows
        if row.row.strategy == "joint"
        and not row.row.label
        and (row.row.initialisation == "lits" or (row.row.initialisation, row.row.plan) == ("scratch", "none"))
    ]
    return _main_table(results, rows, estimates, EMBC, brief, lambda row: (row.row.initialisation, row.row.plan))


def published_table(paper: str) -> Table:
    """A paper's table as printed; `MIDL` or `EMBC`."""
    head = ["strategy", "initialisation"] if paper == MIDL else ["initialisation", "plan"]
    rows = [
        [*row, *(f"{values[name]:.2f}" if name in values else "" for name in _COLUMNS[paper])]
        for row, values in published_rows(paper).items()
    ]
    return Table([*head, *(_TITLES[name] for name in _COLUMNS[paper])], rows)


def detectable_table(compared: Sequence[Comparison]) -> Table:
    """Detectable differences of each measure and question: smallest to largest, and in Holm's family."""
    questions = [question for question in QUESTIONS if any(item.question == question for item in compared)]
    rows = []
    for measure in COMPARED:
        cells = []
        for question in questions:
            items = [item for item in compared if (item.measure, item.question) == (measure, question)]
            alone, family = (
                _range(item.detectable for item in items),
                _range(item.detectable_in_family for item in items),
            )
            cells.append(f"{alone}\nHolm {family}" if alone else "")
        if any(cells):
            rows.append([MEASURES[measure].title, *cells])
    return Table(["measure", *(QUESTIONS[question] for question in questions)], rows)


def not_significant_table(results: StudyResults, compared: Sequence[Comparison]) -> Table:
    """Differences that are not significant, and whether a difference as large as a paper's would have been found."""
    rows = []
    for item in compared:
        if item.is_significant or math.isnan(item.difference.value):
            continue
        answer = detects_published(item)
        if item.published is not None and results.cohort is Cohort.PATIENTS:
            answer = f"{item.published:+.2f}: {answer}"
        rows.append([MEASURES[item.measure].title, *_pair(item), *_detectable(item), answer])
    head = (
        "measure",
        "row",
        "minus",
        "difference",
        "95 % interval",
        "detectable",
        "detectable, Holm",
        "as in the paper",
    )
    return Table(head, rows)


def detects_published(comparison: Comparison) -> str:
    """Return whether a true difference as large as a paper's would have been found with 80 % power."""
    if not comparison.published:
        return "none printed" if comparison.published is None else "none: equal in print"
    if abs(comparison.published) >= comparison.detectable_in_family:
        return "found"
    return "found without Holm only" if abs(comparison.published) >= comparison.detectable else "could be missed"


def comparison_table(compared: Sequence[Comparison], question: str) -> Table:
    """Comparisons of one question, a row for each measure and pair."""
    rows = []
    for comparison in compared:
        if comparison.question != question:
            continue
        rows.append(
            [
                MEASURES[comparison.measure].title,
                *_pair(comparison),
                format_p(comparison.difference.p),
                format_p(comparison.adjusted_p),
                *_detectable(comparison),
                " ".join(map(str, comparison.seeds)),
                str(comparison.patients),
            ]
        )
    head = ["measure", "row", "minus", "difference", "95 % interval", "p", "p, Holm", "detectable", "detectable, Holm"]
    return Table([*head, "seeds", "patients"], rows)


def training_table(progress: Sequence[RowProgress]) -> Table:
    """Mean validation scores at half, at three quarters and at the end of the epochs."""
    rows = []
    for of_row in progress:
        complete, trainings = len(of_row.row.complete), of_row.trainings
        rows.append(
            [
                *_row_name(of_row.row),
                _TITLES.get(of_row.key_score, of_row.key_score),
                str(trainings) if trainings == complete else f"{trainings} of {complete}",
                *map(_number, (of_row.half, of_row.three_quarters, of_row.end)),
                format_rise(of_row) if trainings else "",
            ]
        )
    head = ["strategy", "initialisation", "plan", "score", "trainings", "half", "three quarters", "end"]
    return Table([*head, "last quarter"], rows)


def format_rise(progress: RowProgress) -> str:
    """Return the rise in the last quarter, with its standard error if there are at least two trainings."""
    rise = format_signed(progress.rise)
    return rise if math.isnan(progress.standard_error) else f"{rise} ± {progress.standard_error:.3f}"


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
            "minus": "",
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
            "minus": comparison.other,
            "metric": comparison.measure,
            "value": comparison.difference.value,
            "lower": comparison.difference.lower,
            "upper": comparison.difference.upper,
            "p": comparison.difference.p,
            "p_holm": comparison.adjusted_p,
            "standard_error": comparison.difference.standard_error,
            "detectable": comparison.detectable,
            "detectable_holm": comparison.detectable_in_family,
            "seeds": " ".join(map(str, comparison.seeds)),
        }
        for comparison in compared
    ]
    columns = ["row", "minus", "metric", "value", "lower", "upper", "p", "p_holm"]
    columns += ["standard_error", "detectable", "detectable_holm", "seeds"]
    return pd.DataFrame(lines, columns=columns)


def _main_table(
    results: StudyResults,
    rows: Sequence[RowResults],
    estimates: Estimates,
    paper: str,
    brief: bool,
    key: Callable[[RowResults], tuple[str, str]],
) -> Table:
    with_published = results.cohort is Cohort.PATIENTS  # results of phantoms and of patients are not in one table
    head = ["strategy", "initialisation", "plan", *(["seeds"] if brief else [])]
    for column in _COLUMNS[paper]:
        head += [_TITLES[column], *(["paper"] if with_published else [])]
    lines = []
    for row in rows:
        if brief and not row.complete:
            continue
        line = _row_name(row) + ([" ".join(map(str, row.seeds))] if brief else [])
        for number, column in enumerate(_COLUMNS[paper]):
            if number == 0 and not row.complete:
                line.append("not available" if row.reason else "not run yet")
            else:
                line.append(_with_seeds(estimates.get((row.name, column)), brief))
            if with_published:
                value = None if row.row.label or row.row.peer else published_value(paper, key(row), column)
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
    if row.row.peer:
        strategy += " (peer)"
    if row.missing and row.complete:
        cells = len(row.complete) + len(row.missing)
        strategy += f"\n{len(row.complete)} of {cells} cells"
    return [strategy, row.row.initialisation, row.row.plan]


def _pair(comparison: Comparison) -> list[str]:
    value, lower, upper = (format_signed(getattr(comparison.difference, name)) for name in ("value", "lower", "upper"))
    return [f"`{comparison.row}`", f"`{comparison.other}`", value, f"{lower} to {upper}"]


def _detectable(comparison: Comparison) -> list[str]:
    return [_number(comparison.detectable), _number(comparison.detectable_in_family)]


def _range(values: Iterable[float]) -> str:
    """Return the smallest and the largest value, without NaN; empty if there is none."""
    texts = [_number(value) for value in sorted(value for value in values if not math.isnan(value))]
    return " to ".join(dict.fromkeys([texts[0], texts[-1]])) if texts else ""


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"


def _with_seeds(found: RowEstimate | None, brief: bool = False) -> str:
    if found is None or math.isnan(found.estimate.value):
        return ""
    text = format_estimate(found.estimate)
    if len(found.seeds) > 1 and not brief:
        text += "\nseeds " + " ".join(f"{value:.2f}" for value in found.seeds.values())
    return text


def format_estimate(found: Estimate) -> str:
    """Return a value with its interval as text."""
    interval = "" if math.isnan(found.lower) else f" ({found.lower:.2f} to {found.upper:.2f})"
    return f"{found.value:.2f}{interval}"


def format_p(value: float) -> str:
    """Return a p value as text; empty for NaN."""
    if math.isnan(value):
        return ""
    return "<0.001" if value < 0.001 else f"{value:.3f}"
