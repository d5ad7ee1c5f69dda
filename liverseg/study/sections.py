"""Sections of the report, after the overview."""

from __future__ import annotations

from collections.abc import Sequence

from liverseg.study import tables
from liverseg.study.document import Block, Heading, Items, Paragraph
from liverseg.study.estimates import QUESTIONS, Comparison, Estimates
from liverseg.study.hypotheses import EQUIVALENT, HOLDS, NOT, POINTS, Hypothesis
from liverseg.study.published import EMBC, MIDL
from liverseg.study.results import StudyResults

__all__ = [
    "differences_section",
    "fine_tuning_section",
    "further_measures_section",
    "hypotheses_section",
    "ours_section",
    "strategies_section",
]

_OURS_VERDICTS = {HOLDS: "better", POINTS: "higher, but the interval includes zero", NOT: "not better"}


def strategies_section(results: StudyResults, estimates: Estimates) -> list[Block]:
    """MIDL 2020's table."""
    return [
        Heading("Strategies and initialisations"),
        Paragraph(
            "Type accuracy is the share of slices with the right type. A network that reads the type off its map is "
            "wrong if it finds nothing; classification and Y-Net always answer. Lesion Dice is the mean over slices; "
            "lesion recall the mean share of the lesion's pixels that are found. The paper's results beside them "
            f"({MIDL}) are of other data: 332 slices of 140 patients, in folds not split by patient."
        ),
        tables.strategy_table(results, estimates),
        *_without_lesions(results),
    ]


def fine_tuning_section(results: StudyResults, estimates: Estimates) -> list[Block]:
    """EMBC 2019's table."""
    return [
        Heading("Fine-tuning plans"),
        Paragraph(
            "The joint network from LiTS weights by plan, and from scratch, which is the paper's baseline. "
            "Class-aware Dice counts a pixel as found only if its type is right; the success rate is the share "
            f"of slices whose lesion is touched. The paper's results beside them ({EMBC}) are of other classes and "
            "data. Rows may have different seeds here; Paired differences compares them on the same ones."
        ),
        tables.plan_table(results, estimates),
        Items([f"Epochs of the best weights: {_best_epochs(results)}"]),
    ]


def differences_section(compared: Sequence[Comparison]) -> list[Block]:
    """Paired differences with adjusted p values."""
    blocks: list[Block] = [
        Heading("Paired differences"),
        Paragraph(
            "Differences on the same patients with the same folds and seeds, from the same resamples; seeds that only "
            "one of two rows has are left out. The p value is two-sided, from the share of resamples on the other side "
            "of zero. The last p is adjusted by Holm's method over all rows of the same measure in the same table, "
            "which is one family."
        ),
    ]
    for question, title in QUESTIONS.items():
        if any(comparison.question == question for comparison in compared):
            blocks += [Heading(title[0].upper() + title[1:], level=3), tables.comparison_table(compared, question)]
    if len(blocks) == 2:
        blocks.append(Paragraph("No two rows with results can be compared yet."))
    return blocks


def further_measures_section(results: StudyResults, estimates: Estimates) -> list[Block]:
    """Measures that the papers do not print."""
    blocks: list[Block] = [
        Heading("Beyond the papers"),
        Heading("Naming", level=3),
        Paragraph(
            "Given detection: among slices whose lesion is touched. End to end: touched and of the right type, among "
            "all. Balanced accuracy is the mean sensitivity of the types, end to end, and macro F1 likewise; for "
            "classification, which outlines nothing and so misses nothing, they are left blank. The AUC is the mean "
            "of each type against the rest; types count as equally probable on slices without a finding. "
            "The calibration error is over slices with a predicted type, in ten bins. AUC and calibration error are "
            "means over the seeds' values and have no interval."
        ),
        tables.typing_table(results, estimates),
        Heading("Each type, end to end", level=3),
        tables.type_table(results, estimates),
        Heading("Outlines", level=3),
        Paragraph("Dice over the pixels of all slices, LiTS's global Dice, and the share of slices touched."),
        tables.outline_table(results, estimates),
    ]
    lesions = tables.lesion_table(results, estimates)
    if lesions.rows:
        blocks += [
            Heading("Lesion by lesion", level=3),
            Paragraph(
                "A lesion is a connected part of the lesion mask on a slice. Recall and precision are pooled over all "
                "lesions, at an intersection over union above 0.5 and above 0. Detected are those above 0.5; their "
                "Dice, surface distances and type accuracy mean little without the recall beside them. End to end is "
                "detected and of the right type, among all lesions."
            ),
            lesions,
        ]
    return blocks


def ours_section(hypothesis: Hypothesis) -> list[Block]:
    """Comparison of `ours` with joint learning; empty without one."""
    if not hypothesis.evidence:
        return []
    better = any(evidence.verdict == HOLDS for evidence in hypothesis.evidence)
    summary = "" if better else " **Nothing of `ours` beats `joint` beyond its interval.**"
    return [
        Heading("Ours against joint"),
        Paragraph(
            "Our own strategy, which the papers do not have, by the rules of the next section: it is better if "
            f"the interval of the difference is above zero.{summary}"
        ),
        Items([f"{evidence.text}: {_OURS_VERDICTS[evidence.verdict]}" for evidence in hypothesis.evidence]),
    ]


def hypotheses_section(hypotheses: Sequence[Hypothesis]) -> list[Block]:
    """The papers' findings, and whether they hold."""
    blocks: list[Block] = [
        Heading("What the papers lead one to expect"),
        Paragraph(
            "A difference **holds** if its 95 % interval is on the expected side of zero; it **points that "
            "way** if the difference is, but the interval includes zero; otherwise it **does not hold**. Two "
            f"Dice count as the same if the interval of their difference is within ±{EQUIVALENT:.2f}, and it "
            "points that way if only the difference is. A claim of several parts is as good as the weakest of them. "
            "The intervals are not adjusted for multiple comparisons."
        ),
    ]
    for number, hypothesis in enumerate(hypotheses, start=1):
        verdict = hypothesis.verdict
        blocks.append(Paragraph(f"{number}. {hypothesis.claim} **{verdict[0].upper()}{verdict[1:]}.**"))
        items = [f"{evidence.text}: {evidence.verdict}" for evidence in hypothesis.evidence]
        if hypothesis.untested:
            items.append(f"not tested: {hypothesis.untested}")
        if items:
            blocks.append(Items(items))
    return blocks


def _without_lesions(results: StudyResults) -> list[Block]:
    """Name the trainings whose networks outline no lesion on any slice, since means do not show them."""
    items = []
    for row in results.with_results:
        if row.without_lesions:
            cells = ", ".join(f"fold {fold} seed {seed}" for fold, seed in row.without_lesions)
            items.append(f"`{row.name}`: {cells}, {len(row.without_lesions)} of {len(row.complete)} trainings")
    if not items:
        return []
    text = (
        "**Some trainings outlined no lesion on any slice.** Their zeros are in every mean and difference of their "
        "row, and may decide a comparison with it."
    )
    return [Paragraph(text), Items(items)]


def _best_epochs(results: StudyResults) -> str:
    ranges = []
    for row in results.with_results:
        epochs = [record.get("best_epoch") for cell in row.complete if (record := cell.read("cell.json"))]
        known = [epoch for epoch in epochs if isinstance(epoch, int)]
        if known:
            ranges.append(f"`{row.name}` {min(known)}" + (f" to {max(known)}" if max(known) > min(known) else ""))
    return ", ".join(ranges) or "not known"
