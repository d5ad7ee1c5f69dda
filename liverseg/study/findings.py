"""First page of the report: what was found, and what the study could have found, in sentences made from the data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from liverseg.study import tables
from liverseg.study.curves import RISE, RowProgress
from liverseg.study.document import Block, Heading, Items, Paragraph
from liverseg.study.estimates import COMPARED, OURS, PEER_RIVALS, Comparison, Estimates, format_signed
from liverseg.study.hypotheses import Hypothesis
from liverseg.study.measures import MEASURES
from liverseg.study.overview import describe_code, describe_lits_weights
from liverseg.study.results import Cohort, RowResults, StudyResults

__all__ = ["claims", "detectable_differences", "findings", "lengths_of_trainings", "main_tables", "opening"]

_NOTICES = {
    Cohort.PHANTOMS: "**Phantoms are not patients.** The data are synthetic. The figures compare trainings on one "
    "artificial task and do not apply to patients.",
    Cohort.SYNTHETIC_LESIONS: "**Synthetic lesions are not patients' lesions.** They are painted into CTs of patients. "
    "The figures compare trainings and do not apply to patients.",
    Cohort.PATIENTS: "**Research only, not a medical device.** Do not use these results for patients.",
}


def opening(results: StudyResults) -> list[Block]:
    """Title, what restricts the results, and what was scored, in a few lines."""
    units = [row.units for row in results.with_results]
    patients = {patient for table in units for patient in table["patient"]}
    slices = {pair for table in units for pair in zip(table["image"], table["slice"], strict=True)}
    seeds = sorted({seed for row in results.with_results for seed in row.seeds})
    blocks: list[Block] = [Heading(f"Study: {results.study.name}", level=1), *_missing(results), *_collapsed(results)]
    if results.study.scored == "validation":
        text = "**Scored on validation patients, to choose between variants: these are not test results.**"
        blocks.append(Paragraph(f"{text} The held-out folds were not used."))
    peers = [row for row in results.with_results if row.row.peer]
    text = (
        f"{len(results.records)} trainings were scored on {len(slices)} annotated slices of {len(patients)} patients "
        f"(data list {results.datalist.name}, version {results.datalist.version or 'not given'}): folds "
        f"{_listed(results.folds)} held out in turn, seeds {_listed(seeds)}, code {describe_code(results)}. Values are "
        "pooled over folds and averaged over seeds, with 95 % intervals of a bootstrap over patients. p values are "
        "two-sided and adjusted by Holm's method, separately for each measure and kind of comparison; a difference is "
        "significant if its p is below 0.05. Intervals and p values are over patients. They do not include how much "
        "one training differs from the next; the tables have the values of the seeds."
    )
    weights = [Paragraph(f"{clause}.") for clause in describe_lits_weights(results)]
    return [*blocks, Paragraph(_NOTICES[results.cohort]), Paragraph(text), *weights, *_peers(peers)]


def findings(results: StudyResults, estimates: Estimates, compared: Sequence[Comparison]) -> list[Block]:
    """What was best and by how much, and what initialisations, plans, our strategies and peers changed."""
    items = [line for measure in COMPARED if (line := _best(results, estimates, compared, measure))]
    rows = {row.name: row for row in results.with_results}
    groups: dict[str, list[Comparison]] = {}
    for item in compared:
        row, other = rows[item.row].row, rows[item.other].row
        if item.question == "initialisation":
            groups.setdefault(f"Initialisation `{row.initialisation}` minus `{other.initialisation}`", []).append(item)
        elif item.question == "strategy" and row.strategy in OURS and not row.label:
            groups.setdefault(f"`{row.strategy}` minus `joint`", []).append(item)
        elif item.question == "plan":
            groups.setdefault("Fine-tuning plans minus `none`", []).append(item)
        elif item.question == "peer":
            groups.setdefault(f"Peer `{item.row}` minus {_listed(PEER_RIVALS)}", []).append(item)
    items += [f"{name}: {line}." for name, group in groups.items() if (line := _changes(rows, group))]
    if not items:
        return [Heading("Findings"), Paragraph("No row is complete, so there are no findings yet.")]
    return [Heading("Findings"), Items(items)]


def lengths_of_trainings(progress: Sequence[RowProgress]) -> list[Block]:
    """Whether validation scores still rose at the end of the trainings, which then may have been too short."""
    known = [of_row for of_row in progress if of_row.trainings]
    title = "**Lengths of the trainings**"
    if not known:
        return [Paragraph(f"{title}: not known, because all validation curves are missing.")]
    complete = sum(len(of_row.row.complete) for of_row in progress)
    missing = complete - sum(of_row.trainings for of_row in progress)
    rising = [of_row for of_row in known if of_row.still_rises]
    text = (
        f"{title}: in the last quarter of the epochs, the mean validation score (± standard error over trainings) rose "
        f"by less than {RISE:g} in {len(known) - len(rising)} of {len(known)} rows"
    )
    if rising:
        names = _listed(f"`{of_row.row.name}` ({tables.format_rise(of_row)})" for of_row in rising)
        text += f", and by {RISE:g} or more in {names}, whose trainings may be too short"
    if missing:
        text += f"; the curves of {missing} of {complete} trainings are missing"
    return [Paragraph(f"{text}.")]


def claims(hypotheses: Sequence[Hypothesis]) -> list[Block]:
    """The papers' claims, each with its verdict in a line."""
    text = (
        "Each verdict follows a rule of the software, by intervals that are not adjusted for multiple comparisons. The "
        "tables have every part and the rules."
    )
    return [
        Heading("Claims of the papers"),
        Paragraph(text),
        Items([hypothesis.summary for hypothesis in hypotheses]),
    ]


def detectable_differences(compared: Sequence[Comparison]) -> list[Block]:
    """Which differences the study could have found."""
    if not compared:
        return []
    compared = [item for item in compared if item.question != "peer"]
    tested = [item for item in compared if not math.isnan(item.difference.value)]
    missed = [item for item in tested if not item.is_significant]
    answers = Counter(tables.detects_published(item) for item in missed)
    found, alone, unseen = (answers[name] for name in ("found", "found without Holm only", "could be missed"))
    text = f"Of {len(tested)} differences {len(missed)} are not significant."
    if printed := found + alone + unseen:
        text += (
            f" For {printed} of these a paper prints a difference. The study would have found one of that size in "
            f"{found} cases, in {alone} more only without Holm's adjustment, and could have missed it in {unseen}; the "
            "tables list each."
        )
    elif missed:
        text += " For none of these a paper prints a difference."
    return [
        Heading("Detectable differences"),
        Paragraph(
            "The smallest true difference that would be found with a probability of 80 % (two-sided, at the level "
            "0.05): 2.80 × the bootstrap's standard error of the paired difference (Bloom, Evaluation Review 1995), "
            "from the smallest to the largest over the comparisons. With Holm's method the level is divided by the "
            "number of comparisons. A smaller difference may exist."
        ),
        tables.detectable_table(compared),
        Paragraph(text),
    ]


def main_tables(results: StudyResults, estimates: Estimates) -> list[Block]:
    """The papers' two tables, without seeds' values and without rows that have no results."""
    return [
        Heading("Strategies and initialisations"),
        Paragraph(
            f"Type accuracy: share of slices with the right type{_without_looking(results)}. Lesion Dice: mean over "
            f"slices. Lesion recall: mean share of lesion pixels that are found.{_about_published(results)}"
        ),
        tables.strategy_table(results, estimates, brief=True),
        Heading("Fine-tuning plans"),
        Paragraph(
            "Joint learning from LiTS weights by plan, and from scratch. Class-aware Dice counts a pixel as found only "
            "if its type is right. Success rate: share of slices whose lesion is touched."
        ),
        tables.plan_table(results, estimates, brief=True),
    ]


def _without_looking(results: StudyResults) -> str:
    """Return the type accuracy of a method that gives every slice the same type."""
    typed = [row.units for row in results.with_results if "true_type" in row.units]
    if not typed:
        return ""
    units = pd.concat(typed).drop_duplicates(["image", "slice"])
    counts = units["true_type"][units["true_type"] != ""].value_counts()
    if not len(counts):
        return ""
    return f"; the most frequent type for every slice would have {counts.max() / counts.sum():.2f}"


def _about_published(results: StudyResults) -> str:
    if results.cohort is Cohort.PATIENTS:
        return ' The columns "paper" have the papers\' results, which are of other data.'
    return ""


def _missing(results: StudyResults) -> list[Block]:
    incomplete = [row for row in results.rows if row.missing]
    if not incomplete:
        return []
    missing = sum(len(row.missing) for row in incomplete)
    cells = missing + sum(len(row.complete) for row in results.rows)
    parts = [
        f"{name} {_listed(f'`{row.name}`' for row in rows)}"
        for name, rows in (
            ("all of", [row for row in incomplete if not row.complete]),
            ("some of", [row for row in incomplete if row.complete]),
        )
        if rows
    ]
    reasons = {reason for row in incomplete for _, reason in row.missing}
    (reason,) = reasons if len(reasons) == 1 else ("",)
    why = f" ({reason})" if reason else ""
    text = f"**This study is not complete: {missing} of {cells} cells are missing**, {', and '.join(parts)}{why}."
    return [Paragraph(text)]


def _collapsed(results: StudyResults) -> list[Block]:
    """Name the rows with trainings that outline no lesion on any slice, since means do not show them."""
    rows = [row for row in results.with_results if row.without_lesions]
    if not rows:
        return []
    names = _listed(f"{len(row.without_lesions)} of {len(row.complete)} of `{row.name}`" for row in rows)
    text = f"**Some trainings outlined no lesion on any slice**: {names}. Their zeros are in the means and differences."
    return [Paragraph(text)]


def _peers(peers: Sequence[RowResults]) -> list[Block]:
    if not peers:
        return []
    names = []
    for row in peers:
        records = [cell.read("cell.json") or {} for cell in row.complete]
        texts = sorted({text for record in records if (text := _describe_peer(row, record))})
        texts += _training_of_peer(records)
        names.append(f"`{row.name}`" + (f" ({'; '.join(texts)})" if texts else ""))
    text = "other software, trained outside this study and scored on the same held-out slices."
    return [Paragraph(f"**Peers** are {text} Here: {_listed(names)}.")]


def _describe_peer(row: RowResults, record: dict[str, Any]) -> str:
    """Return the record's own words, or the versions of packages that begin with the peer's name."""
    if "peer" in record:
        return str(record["peer"])
    versions = dict(record.get("versions") or {})
    return ", ".join(f"{name} {version}" for name, version in versions.items() if name.startswith(row.row.strategy))


def _training_of_peer(records: Sequence[dict[str, Any]]) -> list[str]:
    """Return how long a peer was trained, from the optional entries of its records."""
    texts = []
    minutes = [record["seconds"]["training"] / 60 for record in records if "training" in record.get("seconds", {})]
    iterations = [record["training"]["iterations"] for record in records if "iterations" in record.get("training", {})]
    for values, unit in ((iterations, "iterations"), (minutes, "minutes of training")):
        if values:
            texts.append(f"{' to '.join(dict.fromkeys(f'{value:.0f}' for value in (min(values), max(values))))} {unit}")
    return [" in ".join(texts)] if texts else []


def _best(results: StudyResults, estimates: Estimates, compared: Sequence[Comparison], measure: str) -> str:
    """Describe the complete row with the highest value, and its difference to the next row it was compared with.

    Only rows with the most seeds are ranked: a row of one training per fold is more often extreme by chance.
    """
    complete = [row for row in results.with_results if not row.missing]
    found = {row.name: (len(row.seeds), estimates.get((row.name, measure))) for row in complete}
    known = {
        name: (seeds, row.estimate)
        for name, (seeds, row) in found.items()
        if row and not math.isnan(row.estimate.value)
    }
    if not known:
        return ""
    most = max(seeds for seeds, _ in known.values())
    values = {name: estimate for name, (seeds, estimate) in known.items() if seeds == most}
    highest = max(estimate.value for estimate in values.values())
    best = [name for name, estimate in values.items() if math.isclose(estimate.value, highest, abs_tol=1e-9)]
    title = MEASURES[measure].title
    names = " and ".join(f"`{name}`" for name in best)
    title = f"**{title[0].upper()}{title[1:]}**"
    if len(known) == 1:
        return f"{title}: no complete row but {names} has it, {tables.format_estimate(values[best[0]])}."
    among = f" of the rows with {most} seeds" if len(values) < len(known) else ""
    text = f"{title}{among} is highest with {names}: {tables.format_estimate(values[best[0]])}"
    pairs = [
        item if item.row == name else item.swapped()
        for name in best
        for item in compared
        if item.measure == measure and name in (item.row, item.other)
    ]
    rivals = [item for item in pairs if item.other in values and item.other not in best]
    # other strategies, plans and peers say more about what is best than the row's own initialisations
    rivals = [item for item in rivals if item.question != "initialisation"] or rivals
    if not rivals:
        return text + "."
    rival = max(rivals, key=lambda item: values[item.other].value)
    verdict = "significant" if rival.is_significant else "not significant"
    return (
        f"{text}. Difference to `{rival.other}`, the best of the rows that it is compared with: {rival.text}, "
        f"{verdict} (p {tables.format_p(rival.adjusted_p)})."
    )


def _changes(rows: dict[str, RowResults], group: Sequence[Comparison]) -> str:
    """Describe differences in a few words for each measure: the range, and how many are significant."""
    parts = []
    for measure in COMPARED:
        items = [item for item in group if item.measure == measure and not math.isnan(item.difference.value)]
        if not items:
            continue
        values = sorted(item.difference.value for item in items)
        span = " to ".join(dict.fromkeys(format_signed(value) for value in (values[0], values[-1])))
        higher = sum(item.is_significant and item.difference.value > 0 for item in items)
        lower = sum(item.is_significant and item.difference.value < 0 for item in items)
        counts = f"{higher} higher and {lower} lower" if lower else str(higher)
        parts.append(f"{MEASURES[measure].title} {span} (significant: {counts} of {len(items)})")
    collapsed = any(rows[name].without_lesions for item in group for name in (item.row, item.other))
    return "; ".join(parts) + ("; trainings that outlined nothing are among them" if collapsed and parts else "")


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))
