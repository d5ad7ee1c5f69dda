"""The report's chapters in words and tables, behind its first page."""

from __future__ import annotations

from collections.abc import Sequence

from liverseg.study import tables
from liverseg.study.document import Block, Heading, Items, Paragraph
from liverseg.study.estimates import QUESTIONS, Comparison, Figures
from liverseg.study.hypotheses import EQUIVALENT, HOLDS, NOT, POINTS, Expectation
from liverseg.study.published import EMBC, MIDL
from liverseg.study.results import StudyResults

__all__ = [
    "beyond_the_papers",
    "differences",
    "expectations",
    "fine_tuning",
    "ours",
    "strategies",
]

_AGAINST = {HOLDS: "better", POINTS: "higher, but the interval includes zero", NOT: "not better"}


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
        *_blind(results),
    ]


def fine_tuning(results: StudyResults, figures: Figures) -> list[Block]:
    """EMBC 2019's table."""
    return [
        Heading("Fine-tuning plans"),
        Paragraph(
            "The joint network from LiTS weights by plan, and from scratch, which is the paper's baseline. "
            "Class-aware Dice counts a pixel as found only where its type is right; the success rate is the share "
            f"of slices whose lesion is touched. Beside them what the paper prints ({EMBC}); its classes and data "
            "are its own. Rows may have different seeds here; on the same ones they are compared under Paired "
            "differences."
        ),
        tables.plan_table(results, figures),
        Items([f"Epochs of the best weights: {_best_epochs(results)}"]),
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
        Heading("Outlines", level=3),
        Paragraph("Dice of the pixels of all slices together, LiTS's global Dice, and the share of slices touched."),
        tables.outline_table(results, figures),
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


def ours(found: Expectation) -> list[Block]:
    """What `ours` brings beyond joint learning, if anything."""
    if not found.evidence:
        return []
    better = any(one.verdict == HOLDS for one in found.evidence)
    told = "" if better else " **Nothing of `ours` beats `joint` beyond its interval.**"
    return [
        Heading("Ours against joint"),
        Paragraph(
            "Our own strategy, of which the papers say nothing, by the rules of the next chapter: it is better where "
            f"the interval of the difference lies above zero.{told}"
        ),
        Items([f"{one.text}: {_AGAINST[one.verdict]}" for one in found.evidence]),
    ]


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


def _blind(results: StudyResults) -> list[Block]:
    """The trainings whose networks outline no lesion on any slice, which the means alone do not show."""
    told = []
    for row in results.with_results:
        if row.blind:
            cells = ", ".join(f"fold {fold} seed {seed}" for fold, seed in row.blind)
            told.append(f"`{row.name}`: {cells}, {len(row.blind)} of {len(row.complete)} trainings")
    if not told:
        return []
    text = (
        "**Some trainings outlined no lesion on any slice.** Their zeros are in every mean and difference of their "
        "row, and may decide a comparison with it."
    )
    return [Paragraph(text), Items(told)]


def _best_epochs(results: StudyResults) -> str:
    told = []
    for row in results.with_results:
        epochs = [record.get("best_epoch") for cell in row.complete if (record := cell.read("cell.json"))]
        known = [epoch for epoch in epochs if isinstance(epoch, int)]
        if known:
            told.append(f"`{row.name}` {min(known)}" + (f" to {max(known)}" if max(known) > min(known) else ""))
    return ", ".join(told) or "not known"
