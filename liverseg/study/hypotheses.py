"""Test which of the papers' claims hold in a study, by the same rules for every study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from liverseg.bundle.validation import INITIALISATIONS
from liverseg.study.estimates import COMPARED, OURS, Comparison, Estimates, find_comparison
from liverseg.study.measures import MEASURES
from liverseg.study.published import MIDL, published_value
from liverseg.study.results import Cohort, StudyResults

__all__ = [
    "EQUIVALENT",
    "Evidence",
    "Hypothesis",
    "Verdict",
    "check_hypotheses",
    "ours_against_joint",
]

EQUIVALENT = 0.03
"""Two Dice that differ by less count as the same."""

_STRATEGIES = ("classification", "segmentation", "ynet", "joint")


class Verdict(Enum):
    """Verdict on a hypothesis or on a value that decides it, with its text in the report."""

    HOLDS = "holds"
    POINTS_THAT_WAY = "points that way"
    NOT_CONFIRMED = "not confirmed"
    CONTRADICTED = "contradicted"
    NOT_TESTABLE = "not testable"

    @staticmethod
    def of(holds: bool, points_that_way: bool, contradicted: bool) -> Verdict:
        """Return the verdict on a value: the first that is true, else NOT_CONFIRMED."""
        if holds:
            return Verdict.HOLDS
        if points_that_way:
            return Verdict.POINTS_THAT_WAY
        return Verdict.CONTRADICTED if contradicted else Verdict.NOT_CONFIRMED


_PLURAL = {
    Verdict.HOLDS: "hold",
    Verdict.POINTS_THAT_WAY: "point that way",
}


@dataclass(frozen=True)
class Evidence:
    """A value that decides a hypothesis: the verdict, and the value as text."""

    verdict: Verdict
    text: str


@dataclass(frozen=True)
class Hypothesis:
    """A finding of the papers, and the evidence for it in a study.

    Attributes:
        claim: the finding.
        evidence: values that decide it, each with a verdict.
        untested: parts that could not be tested, and the reason; empty if all could.
    """

    claim: str
    evidence: tuple[Evidence, ...]
    untested: str = ""

    @property
    def verdict(self) -> Verdict:
        """The weakest verdict of the evidence: a claim of several parts holds if all of them hold."""
        verdicts = {evidence.verdict for evidence in self.evidence}
        weakest_first = (Verdict.CONTRADICTED, Verdict.NOT_CONFIRMED, Verdict.POINTS_THAT_WAY, Verdict.HOLDS)
        return next((verdict for verdict in weakest_first if verdict in verdicts), Verdict.NOT_TESTABLE)

    @property
    def verdict_text(self) -> str:
        """The verdict as text, limited to what was tested."""
        limited = self.untested and self.verdict in (Verdict.HOLDS, Verdict.POINTS_THAT_WAY)
        return self.verdict.value + (", as far as tested" if limited else "")

    @property
    def summary(self) -> str:
        """Claim and verdict in one line, with the number of parts that have each verdict."""
        verdict = self.verdict_text
        counts = {name: sum(evidence.verdict is name for evidence in self.evidence) for name in Verdict}
        texts = {name: name.value if count == 1 else _PLURAL.get(name, name.value) for name, count in counts.items()}
        parts = [f"{count} {texts[name]}" for name, count in counts.items() if count]
        basis = f"of {len(self.evidence)} parts {', '.join(parts)}" if parts else self.untested.rstrip(".")
        return f"**{verdict[0].upper()}{verdict[1:]}**: {self.claim.rstrip('.')} ({basis})."


def check_hypotheses(results: StudyResults, estimates: Estimates, compared: Sequence[Comparison]) -> list[Hypothesis]:
    """Test the papers' four findings.

    A difference "holds" if its 95 % interval is on the expected side of zero, and "points that way" if only the
    difference is. It is "contradicted" if its interval is on the other side. Two values are the same if the interval is
    within `EQUIVALENT`; a difference whose interval excludes zero does not point that way.
    """
    return [
        _initialisations(results, compared),
        _joint_over_ynet(results, compared),
        _no_dice_gain(results, compared),
        _below_published(results, estimates),
    ]


def ours_against_joint(results: StudyResults, compared: Sequence[Comparison]) -> Hypothesis:
    """Compare each of `OURS` with `joint`, measure by measure, from each initialisation."""
    evidence: list[Evidence] = []
    for strategy in OURS:
        for initialisation in INITIALISATIONS:
            pair = (strategy, initialisation), ("joint", initialisation)
            evidence += _greater(results, compared, COMPARED, *pair)
    return Hypothesis("Ours classifies and outlines better than joint learning.", tuple(evidence))


def _initialisations(results: StudyResults, compared: Sequence[Comparison]) -> Hypothesis:
    evidence, missing = [], []
    for better, worse in (("lits", "imagenet"), ("imagenet", "scratch"), ("lits", "scratch")):
        untested = []
        for strategy in _STRATEGIES:
            row = (strategy, better)
            measures = [name for name in ("type_accuracy", "lesion_dice") if published_value(MIDL, row, name)]
            found = _greater(results, compared, measures, row, (strategy, worse))
            evidence += found
            if not found:
                untested.append(strategy)
        if untested:
            missing.append(f"{better} over {worse} ({', '.join(untested)})")
    return Hypothesis(
        "LiTS weights beat ImageNet weights, and these beat training from scratch, in every strategy of the paper.",
        *_parts(evidence, missing),
    )


def _joint_over_ynet(results: StudyResults, compared: Sequence[Comparison]) -> Hypothesis:
    evidence, missing = [], []
    for initialisation in INITIALISATIONS:
        pair = ("joint", initialisation), ("ynet", initialisation)
        found = _greater(results, compared, ["type_accuracy"], *pair)
        evidence += found
        if not found:
            missing.append(initialisation)
    claim = "Joint learning classifies better than the Y-Net from every initialisation."
    return Hypothesis(claim, *_parts(evidence, missing))


def _no_dice_gain(results: StudyResults, compared: Sequence[Comparison]) -> Hypothesis:
    claim = "With LiTS weights, joint learning has the same lesion Dice as segmentation alone and better recall."
    pair = ("joint", "lits"), ("segmentation", "lits")
    dice = _comparison(results, compared, "lesion_dice", *pair)
    if dice is None or math.isnan(dice.difference.value):
        return Hypothesis(claim, (), "joint or segmentation from LiTS weights has no results.")
    difference = dice.difference
    verdict = Verdict.of(
        holds=max(abs(difference.lower), abs(difference.upper)) <= EQUIVALENT,
        points_that_way=abs(difference.value) <= EQUIVALENT and difference.lower <= 0 <= difference.upper,
        contradicted=difference.lower > EQUIVALENT or difference.upper < -EQUIVALENT,
    )
    text = f"{_describe(dice)}; within ±{EQUIVALENT:.2f} counts as the same"
    return Hypothesis(claim, (Evidence(verdict, text), *_greater(results, compared, ["lesion_recall"], *pair)))


def _below_published(results: StudyResults, estimates: Estimates) -> Hypothesis:
    claim = "Type accuracy is lower than printed in the paper if folds are split by patient."
    if results.study.scored == "validation":
        return Hypothesis(claim, (), "validation patients were scored, on which the weights were chosen.")
    if results.cohort is not Cohort.PATIENTS:
        reason = f"figures of {results.cohort.value} cannot be compared with figures of patients."
        return Hypothesis(claim, (), reason)
    evidence, missing = [], []
    for strategy in _STRATEGIES:
        for initialisation in INITIALISATIONS:
            paper = published_value(MIDL, (strategy, initialisation), "type_accuracy")
            if paper is None:
                continue
            row = results.find(strategy, initialisation)
            if row is None:
                missing.append(f"{strategy} {initialisation}")
                continue
            found = estimates[row.name, "type_accuracy"].estimate
            verdict = Verdict.of(found.upper < paper, found.value < paper, found.lower > paper)
            text = f"{found.value:.2f} ({found.lower:.2f} to {found.upper:.2f}), printed {paper:.2f}"
            evidence.append(Evidence(verdict, f"`{row.name}`: type accuracy {text}"))
    return Hypothesis(claim, *_parts(evidence, missing))


def _greater(
    results: StudyResults,
    compared: Sequence[Comparison],
    measures: Sequence[str],
    row: tuple[str, str],
    other: tuple[str, str],
) -> list[Evidence]:
    evidence = []
    for measure in measures:
        comparison = _comparison(results, compared, measure, row, other)
        if comparison is not None and not math.isnan(comparison.difference.value):
            difference = comparison.difference
            verdict = Verdict.of(difference.lower > 0, difference.value > 0, difference.upper < 0)
            text = _describe(comparison) + _describe_without_lesions(results, row, other)
            evidence.append(Evidence(verdict, text))
    return evidence


def _comparison(
    results: StudyResults,
    compared: Sequence[Comparison],
    measure: str,
    row: tuple[str, str],
    other: tuple[str, str],
) -> Comparison | None:
    """Return `row` minus `other`, each (strategy, initialisation)."""
    ours, theirs = results.find(*row), results.find(*other)
    return None if ours is None or theirs is None else find_comparison(compared, measure, ours.name, theirs.name)


def _describe(comparison: Comparison) -> str:
    title = MEASURES[comparison.measure].title
    return f"`{comparison.row}` minus `{comparison.other}`: {title} {comparison.text}"


def _describe_without_lesions(results: StudyResults, *rows: tuple[str, str]) -> str:
    """Name the trainings in a difference that outlined no lesion; empty if all outlined some."""
    found = [row for key in rows if (row := results.find(*key)) and row.without_lesions]
    counts = [f"{len(row.without_lesions)} of {len(row.complete)} trainings of `{row.name}`" for row in found]
    return f", with {' and '.join(counts)} that outlined nothing" if counts else ""


def _parts(evidence: Sequence[Evidence], missing: Sequence[str]) -> tuple[tuple[Evidence, ...], str]:
    return tuple(evidence), f"no results for {', '.join(missing)}." if missing else ""
