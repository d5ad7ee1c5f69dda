"""Sections of the report's tables, after the overview."""

from __future__ import annotations

from collections.abc import Sequence

from liverseg.study import tables
from liverseg.study.curves import RowProgress
from liverseg.study.document import Block, Heading, Items, Paragraph
from liverseg.study.estimates import QUESTIONS, Comparison, Estimates
from liverseg.study.hypotheses import EQUIVALENT, Hypothesis, Verdict
from liverseg.study.published import EMBC, MIDL
from liverseg.study.results import Cohort, StudyResults

__all__ = [
    "differences_section",
    "fine_tuning_section",
    "further_measures_section",
    "hypotheses_section",
    "ours_section",
    "published_section",
    "strategies_section",
    "training_section",
]

_OURS_VERDICTS = {
    Verdict.HOLDS: "better",
    Verdict.POINTS_THAT_WAY: "higher, but the interval includes zero",
    Verdict.NOT_CONFIRMED: "not higher, and the interval includes zero",
    Verdict.CONTRADICTED: "worse",
}


def strategies_section(results: StudyResults, estimates: Estimates) -> list[Block]:
    """MIDL 2020's table."""
    return [
        Heading("Strategies and initialisations, with seeds"),
        Paragraph(
            "Type accuracy is the share of slices with the right type. A network that derives the type from its map is "
            "wrong if it finds nothing; classification and Y-Net always predict a type. Lesion Dice is the mean over "
            "slices. Lesion recall is the mean share of lesion pixels that are found."
            + _about_published(results, MIDL, "other data: 332 slices of 140 patients, in folds not split by patient")
        ),
        tables.strategy_table(results, estimates),
        *_without_lesions(results),
    ]


def fine_tuning_section(results: StudyResults, estimates: Estimates) -> list[Block]:
    """EMBC 2019's table."""
    return [
        Heading("Fine-tuning plans, with seeds"),
        Paragraph(
            "The joint network from LiTS weights with each plan, and from scratch, which is the paper's baseline. "
            "Class-aware Dice counts a pixel as found only if its type is right. The success rate is the share of "
            "slices whose lesion is touched, that is, overlapped by at least one predicted pixel."
            + _about_published(results, EMBC, "other classes and data")
            + " Rows may have different seeds here; the section on paired differences compares them on the same seeds."
        ),
        tables.plan_table(results, estimates),
    ]


def training_section(results: StudyResults, progress: Sequence[RowProgress]) -> list[Block]:
    """Whether the trainings were long enough: validation scores over the epochs."""
    blocks: list[Block] = [Heading("Validation scores over the training")]
    if any(of_row.trainings for of_row in progress):
        blocks += [
            Paragraph(
                "The score of the validation patients at half, at three quarters and at the end of the epochs, or at "
                "the last validation until then, as means over the row's trainings. The last column has the rise in "
                "the last quarter and its standard error over trainings. A row that rises may gain from more epochs. "
                "One that does not rise may still gain from a slower schedule, because scores level off when the "
                "learning rate falls towards zero; and the score of a network that learns nothing changes by chance. "
                "Trainings without TensorBoard events, or without a validation in the first half, are left out."
            ),
            tables.training_table(progress),
        ]
    else:
        blocks.append(Paragraph("Not known, because no cell's folder has TensorBoard events with these scores."))
    return [*blocks, Items([f"Epochs of the best weights: {_best_epochs(results)}"])]


def published_section(results: StudyResults) -> list[Block]:
    """The papers' tables; empty for patients, whose tables have the papers' results in columns of their own."""
    if results.cohort is Cohort.PATIENTS:
        return []
    return [
        Heading("As printed in the papers"),
        Paragraph(f"Results of patients, and of other data. {MIDL}:"),
        tables.published_table(MIDL),
        Paragraph(f"{EMBC}:"),
        tables.published_table(EMBC),
    ]


def differences_section(results: StudyResults, compared: Sequence[Comparison]) -> list[Block]:
    """Paired differences with adjusted p values, and which of them could have been found."""
    blocks: list[Block] = [
        Heading("Paired differences"),
        Paragraph(
            "Rows are compared on the same patients, folds, seeds and resamples. Seeds that only one of the two rows "
            "has are left out. The p value is two-sided, from the share of resamples on the other side of zero. The "
            "last p value is adjusted by Holm's method; a family is all rows of the same measure in the same table. "
            "A true difference as large as the detectable one is found with a probability of 80 %: it is z(0.975) + "
            "z(0.8) = 2.80 times the standard deviation of the difference over the resamples (Bloom, Minimum "
            "detectable effects, Evaluation Review 19, 1995, 547). In a family of m rows z(1 - 0.025 / m) replaces "
            "z(0.975), which is Holm's first and strictest step. Like the intervals, they do not cover how much one "
            "training differs from the next, and with few patients the standard deviation is too small."
        ),
    ]
    for question, title in QUESTIONS.items():
        if any(comparison.question == question for comparison in compared):
            blocks += [Heading(title[0].upper() + title[1:], level=3), tables.comparison_table(compared, question)]
    if len(blocks) == 2:
        blocks.append(Paragraph("No two rows with results can be compared yet."))
    if any(not comparison.is_significant for comparison in compared):
        blocks += [
            Heading("Differences that are not significant", level=3),
            Paragraph(
                "The last column states whether a true difference as large as the paper's would be found with a "
                "probability of 80 %. Where it could be missed, the study cannot say whether there is one."
            ),
            tables.not_significant_table(results, compared),
        ]
    return blocks


def further_measures_section(results: StudyResults, estimates: Estimates) -> list[Block]:
    """Measures that the papers do not print."""
    blocks: list[Block] = [
        Heading("Beyond the papers"),
        Heading("Types", level=3),
        Paragraph(
            "Accuracy given detection is the accuracy among slices whose lesion is touched. Accuracy end to end is "
            "the share of all slices whose lesion is touched and has the right type. Balanced accuracy is the mean "
            "sensitivity of the types, end to end; macro F1 is computed in the same way. They are left blank for "
            "classification, which outlines nothing and so misses nothing. The AUC is the mean of each type against "
            "the rest; types count as equally probable on slices without a finding. The calibration error is over "
            "slices with a predicted type, in ten bins. AUC and calibration error are means over the seeds' values "
            "and have no interval."
        ),
        tables.typing_table(results, estimates),
        Heading("Each type, end to end", level=3),
        tables.type_table(results, estimates),
        Heading("Outlines", level=3),
        Paragraph(
            "Dice of all pixels pools the pixels of all slices, as LiTS's global Dice does. The success rate is the "
            "share of slices whose lesion is touched."
        ),
        tables.outline_table(results, estimates),
    ]
    lesions = tables.lesion_table(results, estimates)
    if lesions.rows:
        blocks += [
            Heading("Lesion by lesion", level=3),
            Paragraph(
                "A lesion is a connected part of the lesion mask on a slice. Recall and precision are pooled over all "
                "lesions, at an intersection over union above 0.5 and above 0. Lesions above 0.5 are detected. Their "
                "Dice, surface distances and type accuracy mean little without the recall. Type accuracy end to end is "
                "the share of all lesions that are detected and have the right type."
            ),
            lesions,
        ]
    return blocks


def ours_section(hypothesis: Hypothesis) -> list[Block]:
    """Comparison of our strategies with joint learning; empty without one."""
    if not hypothesis.evidence:
        return []
    better = any(evidence.verdict is Verdict.HOLDS for evidence in hypothesis.evidence)
    summary = "" if better else " **Nothing of ours beats `joint` beyond its interval.**"
    return [
        Heading("Ours against joint"),
        Paragraph(
            "`regions` and its earlier version `ours` are our own strategies, which the papers do not have. One is "
            "better than `joint` in a measure if the 95 % interval of the difference, which is not adjusted for "
            f"multiple comparisons, is above zero.{summary}"
        ),
        Items([f"{evidence.text}: {_OURS_VERDICTS[evidence.verdict]}" for evidence in hypothesis.evidence]),
    ]


def hypotheses_section(hypotheses: Sequence[Hypothesis]) -> list[Block]:
    """The papers' claims, and whether they hold."""
    blocks: list[Block] = [
        Heading("Claims of the papers, part by part"),
        Paragraph(
            "A claim **holds** if the 95 % interval of the difference is on the claimed side of zero. It **points that "
            "way** if only the difference is on that side and the interval includes zero. It is **contradicted** if "
            "the interval is on the other side, and otherwise **not confirmed**. Two Dice count as the same if the "
            f"interval of their difference is within ±{EQUIVALENT:.2f}; the claim points that way if only the "
            "difference is, and the interval includes zero. A claim with several parts has the verdict of its weakest "
            "part. The intervals are not adjusted for multiple comparisons."
        ),
    ]
    for number, hypothesis in enumerate(hypotheses, start=1):
        verdict = hypothesis.verdict_text
        blocks.append(Paragraph(f"{number}. {hypothesis.claim} **{verdict[0].upper()}{verdict[1:]}.**"))
        items = [f"{evidence.text}: {evidence.verdict.value}" for evidence in hypothesis.evidence]
        if hypothesis.untested:
            items.append(f"not tested: {hypothesis.untested}")
        if items:
            blocks.append(Items(items))
    return blocks


def _about_published(results: StudyResults, paper: str, data: str) -> str:
    if results.cohort is not Cohort.PATIENTS:
        return ""
    return f' The columns "paper" have the results of {paper}. They are of {data}.'


def _without_lesions(results: StudyResults) -> list[Block]:
    """Name the trainings whose networks outline no lesion on any slice, since means do not show them."""
    items = [
        f"outlined no lesion on any slice: `{row.name}`, "
        + ", ".join(f"fold {fold} seed {seed}" for fold, seed in row.without_lesions)
        for row in results.with_results
        if row.without_lesions
    ]
    return [Items(items)] if items else []


def _best_epochs(results: StudyResults) -> str:
    ranges = []
    for row in results.with_results:
        epochs = [record.get("best_epoch") for cell in row.complete if (record := cell.read("cell.json"))]
        known = [epoch for epoch in epochs if isinstance(epoch, int)]
        if known:
            ranges.append(f"`{row.name}` {min(known)}" + (f" to {max(known)}" if max(known) > min(known) else ""))
    return ", ".join(ranges) or "not known"
