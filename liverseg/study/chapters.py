"""The report's chapters in words and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from monai.bundle import ConfigParser

from liverseg.inference import find_bundle
from liverseg.networks.weights import record_if_any
from liverseg.study import tables
from liverseg.study.comparisons import QUESTIONS, Comparison
from liverseg.study.document import Block, Heading, Items, Paragraph
from liverseg.study.expectations import EQUIVALENT, Expectation
from liverseg.study.figures import Figures
from liverseg.study.printed import EMBC, MIDL
from liverseg.study.results import RowResults, StudyResults

__all__ = [
    "beyond_the_papers",
    "differences",
    "expectations",
    "fine_tuning",
    "head",
    "strategies",
]


def head(results: StudyResults) -> list[Block]:
    """What was run, and how its results are pooled."""
    study, records = results.study, results.records
    patients = {patient for row in results.with_results for patient in row.units["patient"]}
    slices = {pair for row in results.with_results for pair in zip(row.units["image"], row.units["slice"], strict=True)}
    if results.on_phantoms:
        notice = (
            "**Phantoms are not patients.** The data are synthetic; these figures show how trainings compare on "
            "one made-up task and say nothing about any patient."
        )
    else:
        notice = "**Research only, not a medical device.** Nothing here may decide about a patient."
    facts = [
        f"Data list: {results.datalist.name}, version {results.datalist.version or 'not given'}; scored are "
        f"{len(slices)} annotated slices of {len(patients)} patients",
        f"Held-out folds: {_listed(results.folds)}; {study.validation_share * 100:g} % of the other patients choose "
        "the best epoch",
        *_lits_weights(results),
        f"Seeds: {_seeds(results)}",
        f"Epochs: {_epochs(results)}",
        f"Bundle: `{study.bundle}` with {_listed(f'`{name}`' for name in study.configs)}, and "
        f"{_settings(dict(study.overrides)) or 'nothing changed'}",
        f"Code: {_code(results)}",
        f"Versions: {_versions(results)}",
        f"Computed: {len(records)} trainings and their evaluations, "
        f"{sum(sum(record.get('seconds', {}).values()) for record in records) / 3600:.1f} hours in all",
    ]
    own = [f"`{row.name}`: {_settings(dict(row.row.overrides))}" for row in results.rows if row.row.overrides]
    pooled = (
        "Each held-out fold is scored by networks that never saw its patients, and the folds are pooled. A "
        "patient's result is averaged over the seeds; each seed's own value is shown in small print. Intervals are "
        "95 % percentile intervals of a bootstrap that draws patients, each with all slices and lesions, 10,000 "
        "times with seed 0. They tell how much the result depends on who was tested, not how much it depends on "
        "the seed: the seeds' own values tell that."
    )
    if study.scored == "validation":
        pooled = (
            "**Scored on validation patients, to choose between variants: these are not test results.** The held-out "
            "folds were left out altogether. " + pooled.partition(". ")[2]
        )
    return [
        Heading(f"Study: {study.name}", level=1),
        *_missing(results),
        Paragraph(notice),
        Items([*facts, *own]),
        Paragraph(pooled),
    ]


def strategies(results: StudyResults, figures: Figures) -> list[Block]:
    """MIDL 2020's table."""
    return [
        Heading("Strategies and initialisations"),
        Paragraph(
            "Type accuracy is the share of slices named rightly. A network that reads the type off its map is wrong "
            "where it finds nothing; classification and Y-Net always answer. Lesion Dice is the mean over slices; "
            "lesion recall the mean share of the lesion's pixels that are found. Beside them what the paper prints "
            f"({MIDL}), of other data: 332 slices of 140 patients, folds not kept apart by patient."
        ),
        tables.strategy_table(results, figures),
    ]


def fine_tuning(results: StudyResults, figures: Figures) -> list[Block]:
    """EMBC 2019's table."""
    return [
        Heading("Fine-tuning plans"),
        Paragraph(
            "The joint network from LiTS weights by plan, and from scratch, which is the paper's baseline. "
            "Class-aware Dice counts a pixel as found only where its type is right; the success rate is the share "
            f"of slices whose lesion is touched. Beside them what the paper prints ({EMBC}); its classes and data "
            "are its own."
        ),
        tables.plan_table(results, figures),
    ]


def differences(compared: Sequence[Comparison]) -> list[Block]:
    """Paired differences with adjusted p values."""
    blocks: list[Block] = [
        Heading("Paired differences"),
        Paragraph(
            "Differences on the same patients with the same folds and seeds, from the same resamples; where one row "
            "has more seeds than the other, those are left out. The p value is two-sided, from the share of "
            "resamples on the other side of zero; the last p is adjusted by Holm's method over all rows of the same "
            "measure in the same table, which is one family."
        ),
    ]
    for question, title in QUESTIONS.items():
        if any(one.question == question for one in compared):
            blocks += [Heading(title[0].upper() + title[1:], level=3), tables.comparison_table(compared, question)]
    if len(blocks) == 2:
        blocks.append(Paragraph("No two rows with results can be compared yet."))
    return blocks


def beyond_the_papers(results: StudyResults, figures: Figures) -> list[Block]:
    """Measures the papers do not print."""
    blocks: list[Block] = [
        Heading("Beyond the papers"),
        Heading("Naming", level=3),
        Paragraph(
            "Given detection: among slices whose lesion is touched. End to end: touched and named rightly, among "
            "all. Balanced accuracy is the mean sensitivity of the types, end to end, and macro F1 likewise; of "
            "classification, which outlines nothing and so misses nothing, they are left blank. The AUC is the mean "
            "of each type against the rest; of a slice where nothing is found each type counts as equally probable. "
            "The calibration error is over slices that are given a name, in ten bins. AUC and calibration error are "
            "means over the seeds' own values and have no interval."
        ),
        tables.name_table(results, figures),
        Heading("Each type, end to end", level=3),
        tables.type_table(results, figures),
    ]
    lesions = tables.lesion_table(results, figures)
    if lesions.rows:
        blocks += [
            Heading("Lesion by lesion", level=3),
            Paragraph(
                "A lesion is a connected part of the lesion mask on a slice. Recall and precision are pooled over all "
                "lesions, at an intersection over union above 0.5 and above 0. Detected are those above 0.5; their "
                "Dice, surface distances and type accuracy mean little without the recall beside them. End to end is "
                "rightly named and detected, among all lesions."
            ),
            lesions,
        ]
    return blocks


def expectations(found: Sequence[Expectation]) -> list[Block]:
    """Which of the papers' findings are seen here."""
    blocks: list[Block] = [
        Heading("What the papers lead one to expect"),
        Paragraph(
            "A difference **holds** where its 95 % interval lies on the expected side of zero; it **points that "
            "way** where the difference does but the interval includes zero; otherwise it **does not hold**. Two "
            f"Dice count as the same where the interval of their difference lies within ±{EQUIVALENT:.2f}, and it "
            "points that way where only the difference itself does. A claim "
            "of several parts is as good as the weakest of them. The intervals here are not adjusted for being "
            "several."
        ),
    ]
    for number, one in enumerate(found, start=1):
        blocks.append(Paragraph(f"{number}. {one.claim} **{one.verdict[0].upper()}{one.verdict[1:]}.**"))
        items = [f"{evidence.text}: {evidence.verdict}" for evidence in one.evidence]
        if one.untested:
            items.append(f"not tested: {one.untested}")
        if items:
            blocks.append(Items(items))
    return blocks


def _missing(results: StudyResults) -> list[Block]:
    lacking = [row for row in results.rows if row.missing]
    if not lacking:
        return []
    missing = sum(len(row.missing) for row in lacking)
    told = f"**This study is not complete: {missing} of {missing + len(results.records)} cells are missing.**"
    items = []
    for row in lacking:
        for reason, same in groupby(row.missing, key=lambda pair: pair[1]):
            cells = [cell for cell, _ in same]
            which = (
                "all cells"
                if len(cells) == _cells_of(row)
                else "; ".join(f"fold {c.fold} seed {c.seed}" for c in cells)
            )
            items.append(f"`{row.name}`, {which}: {reason or 'not run yet'}")
    return [Paragraph(f"{told} Where a row lacks some cells, its figures are of the others alone."), Items(items)]


def _cells_of(row: RowResults) -> int:
    return len(row.complete) + len(row.missing)


def _seeds(results: StudyResults) -> str:
    by_seeds: dict[tuple[int, ...], list[str]] = {}
    for row in results.rows:
        by_seeds.setdefault(row.row.seeds, []).append(row.name)
    common = max(by_seeds, key=lambda seeds: len(by_seeds[seeds]))
    told = _listed(common)
    for seeds, names in by_seeds.items():
        if seeds != common:
            told += f"; {_listed(seeds)} for {_listed(f'`{name}`' for name in names)}"
    return told


def _epochs(results: StudyResults) -> str:
    study = results.study
    configs = find_bundle(study.bundle) / "configs"
    default = ConfigParser.load_config_files([configs / f"{name}.yaml" for name in study.configs]).get("epochs")
    return str(dict(study.overrides).get("epochs", default))


def _versions(results: StudyResults) -> str:
    found: dict[str, set[str]] = {}
    for record in results.records:
        for name, version in record.get("ingredients", {}).get("versions", {}).items():
            found.setdefault(name, set()).add(str(version))
    return (
        ", ".join(f"{name} {' and '.join(sorted(versions))}" for name, versions in sorted(found.items())) or "not known"
    )


def _lits_weights(results: StudyResults) -> list[str]:
    """What the rows from LiTS weights start from, if there are any."""
    if not any(row.row.initialisation == "lits" for row in results.rows):
        return []
    record = record_if_any(results.study.lits_weights)
    if record is None:
        return ["LiTS weights: not at hand where this was written, so not told here"]
    return [f"LiTS weights: trained on data list {record.datalist_name}, epoch {record.epoch}"]


def _code(results: StudyResults) -> str:
    states: dict[str, int] = {}
    for record in results.records:
        for state in record.get("code", []) or ["not known"]:
            states[str(state)] = states.get(str(state), 0) + 1
    if len(states) == 1:
        return next(iter(states))
    counted = _listed(f"{state} ({count} cells)" for state, count in sorted(states.items()))
    return f"**of several states**, so differences between rows may be the code's: {counted}"


def _settings(overrides: dict[str, object]) -> str:
    return ", ".join(f"`{key}` {value}" for key, value in overrides.items())


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))
