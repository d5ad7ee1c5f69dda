"""Which of the papers' findings hold in a study, decided by rules that were fixed before looking."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from liverseg.bundle.validation import INITIALISATIONS
from liverseg.study.estimates import COMPARED, Comparison, Figures, find
from liverseg.study.measures import MEASURES
from liverseg.study.published import MIDL, printed
from liverseg.study.results import StudyResults

__all__ = [
    "EQUIVALENT",
    "HOLDS",
    "NOT",
    "POINTS",
    "Evidence",
    "Expectation",
    "check_expectations",
    "ours_against_joint",
]

EQUIVALENT = 0.03
"""Two Dice closer than this count as the same."""

HOLDS, POINTS, NOT, _UNTESTED = "holds", "points that way", "does not hold", "not testable"
_STRATEGIES = ("classification", "segmentation", "ynet", "joint")


@dataclass(frozen=True)
class Evidence:
    """One figure that decides: its verdict, and the figure in words."""

    verdict: str
    text: str


@dataclass(frozen=True)
class Expectation:
    """A finding of the papers and whether it is seen here.

    Attributes:
        claim: the finding.
        evidence: what decides it, each with a verdict of its own.
        untested: what could not be looked at, and why; empty where everything could.
    """

    claim: str
    evidence: tuple[Evidence, ...]
    untested: str = ""

    @property
    def verdict(self) -> str:
        """The weakest of the evidence's verdicts: a claim of several parts holds where all of them do."""
        if not self.evidence:
            return _UNTESTED
        verdict = next(v for v in (NOT, POINTS, HOLDS) if any(one.verdict == v for one in self.evidence))
        return f"{verdict}, as far as tested" if self.untested and verdict != NOT else verdict


def check_expectations(results: StudyResults, figures: Figures, compared: Sequence[Comparison]) -> list[Expectation]:
    """The four findings, in order.

    A difference "holds" where its 95 % interval lies on the expected side of zero, and "points that way" where only the
    difference itself does; of equality see `EQUIVALENT`.
    """
    return [
        _initialisations(results, compared),
        _joint_over_ynet(results, compared),
        _no_dice_gain(results, compared),
        _below_printed(results, figures),
    ]


def ours_against_joint(results: StudyResults, compared: Sequence[Comparison]) -> Expectation:
    """Whether `ours` is better than `joint`, measure by measure, from each initialisation."""
    evidence: list[Evidence] = []
    for initialisation in INITIALISATIONS:
        pair = ("ours", initialisation), ("joint", initialisation)
        evidence += _greater(results, compared, COMPARED, *pair)
    return Expectation("Ours names and outlines better than joint learning.", tuple(evidence))


def _initialisations(results: StudyResults, compared: Sequence[Comparison]) -> Expectation:
    evidence, missing = [], []
    for better, worse in (("lits", "imagenet"), ("imagenet", "scratch"), ("lits", "scratch")):
        untested = []
        for strategy in _STRATEGIES:
            measures = [name for name in ("type_accuracy", "lesion_dice") if printed(MIDL, (strategy, better), name)]
            found = _greater(results, compared, measures, (strategy, better), (strategy, worse))
            evidence += found
            if not found:
                untested.append(strategy)
        if untested:
            missing.append(f"{better} over {worse} ({', '.join(untested)})")
    return Expectation(
        "LiTS weights beat ImageNet weights, and these beat none, in every row.", *_parts(evidence, missing)
    )


def _joint_over_ynet(results: StudyResults, compared: Sequence[Comparison]) -> Expectation:
    evidence, missing = [], []
    for initialisation in INITIALISATIONS:
        pair = ("joint", initialisation), ("ynet", initialisation)
        found = _greater(results, compared, ["type_accuracy"], *pair)
        evidence += found
        if not found:
            missing.append(initialisation)
    claim = "Joint learning names better than the Y-Net from every initialisation."
    return Expectation(claim, *_parts(evidence, missing))


def _no_dice_gain(results: StudyResults, compared: Sequence[Comparison]) -> Expectation:
    claim = "With LiTS weights joint learning has the same lesion Dice as segmentation alone, and better recall."
    pair = ("joint", "lits"), ("segmentation", "lits")
    dice = _comparison(results, compared, "lesion_dice", *pair)
    if dice is None or math.isnan(dice.difference.value):
        return Expectation(claim, (), "joint or segmentation from LiTS weights has no results.")
    own = dice.difference
    if max(abs(own.lower), abs(own.upper)) <= EQUIVALENT:
        verdict = HOLDS
    else:
        verdict = POINTS if abs(own.value) <= EQUIVALENT else NOT
    text = f"{_describe(dice)}, where the same means within ±{EQUIVALENT:.2f}"
    return Expectation(claim, (Evidence(verdict, text), *_greater(results, compared, ["lesion_recall"], *pair)))


def _below_printed(results: StudyResults, figures: Figures) -> Expectation:
    claim = "Types are named less accurately than printed once patients are kept apart."
    if results.study.scored == "validation":
        return Expectation(claim, (), "validation patients were scored, who chose the weights.")
    if results.on_phantoms:
        return Expectation(claim, (), "phantoms are another task than the papers' patients; no figure compares.")
    evidence, missing = [], []
    for strategy in _STRATEGIES:
        for initialisation in INITIALISATIONS:
            paper = printed(MIDL, (strategy, initialisation), "type_accuracy")
            if paper is None:
                continue
            row = results.find(strategy, initialisation)
            if row is None:
                missing.append(f"{strategy} {initialisation}")
                continue
            own = figures[row.name, "type_accuracy"].estimate
            verdict = HOLDS if own.upper < paper else POINTS if own.value < paper else NOT
            told = f"{own.value:.2f} ({own.lower:.2f} to {own.upper:.2f}), printed {paper:.2f}"
            evidence.append(Evidence(verdict, f"`{row.name}`: type accuracy {told}"))
    return Expectation(claim, *_parts(evidence, missing))


def _greater(
    results: StudyResults,
    compared: Sequence[Comparison],
    measures: Sequence[str],
    row: tuple[str, str],
    other: tuple[str, str],
) -> list[Evidence]:
    evidence = []
    for measure in measures:
        one = _comparison(results, compared, measure, row, other)
        if one is not None and not math.isnan(one.difference.value):
            own = one.difference
            text = _describe(one) + _describe_blind(results, row, other)
            evidence.append(Evidence(HOLDS if own.lower > 0 else POINTS if own.value > 0 else NOT, text))
    return evidence


def _comparison(
    results: StudyResults,
    compared: Sequence[Comparison],
    measure: str,
    row: tuple[str, str],
    other: tuple[str, str],
) -> Comparison | None:
    """`row` less `other`, each (strategy, initialisation)."""
    ours, theirs = results.find(*row), results.find(*other)
    return None if ours is None or theirs is None else find(compared, measure, ours.name, theirs.name)


def _describe(one: Comparison) -> str:
    own = one.difference
    told = f"{own.value:+.3f} ({own.lower:+.3f} to {own.upper:+.3f})"
    return f"`{one.row}` less `{one.other}`: {MEASURES[one.measure].title} {told}"


def _describe_blind(results: StudyResults, *rows: tuple[str, str]) -> str:
    """What a reader of a difference has to know of trainings in it that outlined nothing; empty without such."""
    found = [row for strategy_and_start in rows if (row := results.find(*strategy_and_start)) and row.blind]
    told = [f"{len(row.blind)} of {len(row.complete)} trainings of `{row.name}`" for row in found]
    return f", with {' and '.join(told)} that outlined nothing" if told else ""


def _parts(evidence: Sequence[Evidence], missing: Sequence[str]) -> tuple[tuple[Evidence, ...], str]:
    return tuple(evidence), f"no results for {', '.join(missing)}." if missing else ""
