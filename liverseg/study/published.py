"""Results printed in the papers, for comparison with a study's."""

from __future__ import annotations

from liverseg.study.config import Row

__all__ = ["EMBC", "MIDL", "published_difference", "published_rows", "published_value"]

MIDL = "Heker & Greenspan, Joint Liver Lesion Segmentation and Classification via Transfer Learning, MIDL 2020"
EMBC = (
    "Heker, Ben-Cohen & Greenspan, Hierarchical Fine-Tuning for joint Liver Lesion Segmentation and Lesion "
    "Classification in CT, EMBC 2019"
)

_MIDL: dict[tuple[str, str], dict[str, float]] = {
    ("classification", "scratch"): {"type_accuracy": 0.55},
    ("classification", "imagenet"): {"type_accuracy": 0.63},
    ("classification", "lits"): {"type_accuracy": 0.76},
    ("segmentation", "scratch"): {"lesion_dice": 0.59, "lesion_recall": 0.59},
    ("segmentation", "imagenet"): {"lesion_dice": 0.63, "lesion_recall": 0.67},
    ("segmentation", "lits"): {"lesion_dice": 0.71, "lesion_recall": 0.72},
    ("ynet", "scratch"): {"type_accuracy": 0.43, "lesion_dice": 0.49, "lesion_recall": 0.43},
    ("ynet", "imagenet"): {"type_accuracy": 0.68, "lesion_dice": 0.67, "lesion_recall": 0.65},
    ("ynet", "lits"): {"type_accuracy": 0.79, "lesion_dice": 0.71, "lesion_recall": 0.68},
    ("joint", "scratch"): {"type_accuracy": 0.63, "lesion_dice": 0.57, "lesion_recall": 0.60},
    ("joint", "imagenet"): {"type_accuracy": 0.74, "lesion_dice": 0.64, "lesion_recall": 0.70},
    ("joint", "lits"): {"type_accuracy": 0.86, "lesion_dice": 0.71, "lesion_recall": 0.76},
}
"""MIDL 2020, table of strategies and initialisations. The paper names no fine-tuning plan."""

_EMBC: dict[tuple[str, str], dict[str, float]] = {
    ("scratch", "none"): {
        "lesion_dice": 0.49,
        "class_aware_dice": 0.44,
        "success_rate": 0.89,
        "type_accuracy": 0.56,
    },
    ("lits", "none"): {
        "lesion_dice": 0.57,
        "class_aware_dice": 0.55,
        "success_rate": 0.94,
        "type_accuracy": 0.64,
    },
    ("lits", "freeze_encoder"): {
        "lesion_dice": 0.57,
        "class_aware_dice": 0.54,
        "success_rate": 0.94,
        "type_accuracy": 0.63,
    },
    ("lits", "hierarchical_freezing"): {
        "lesion_dice": 0.65,
        "class_aware_dice": 0.60,
        "success_rate": 0.93,
        "type_accuracy": 0.68,
    },
    ("lits", "hierarchical_unfreezing"): {
        "lesion_dice": 0.64,
        "class_aware_dice": 0.60,
        "success_rate": 0.94,
        "type_accuracy": 0.73,
    },
}
"""EMBC 2019, table of fine-tuning plans. Its two Dice are the lesion Dice and the class-aware Dice."""


def published_value(paper: str, row: tuple[str, str], measure: str) -> float | None:
    """Return a value that a paper prints; None if it prints none.

    Args:
        paper: `MIDL`, whose rows are (strategy, initialisation), or `EMBC`, whose rows are (initialisation, plan).
        row: of the paper's table.
        measure: name of the measure.
    """
    return published_rows(paper).get(row, {}).get(measure)


def published_rows(paper: str) -> dict[tuple[str, str], dict[str, float]]:
    """Return a paper's table: row to measure to value; arguments as for `published_value`."""
    return {MIDL: _MIDL, EMBC: _EMBC}[paper]


def published_difference(row: Row, other: Row, measure: str) -> float | None:
    """Return `row` minus `other` as a paper prints them in one table; None if it does not print both.

    MIDL 2020 is used where it prints both values.
    """
    if any(each.label or each.peer for each in (row, other)):
        return None
    papers = []
    if row.plan == other.plan == "none":
        papers.append((MIDL, (row.strategy, row.initialisation), (other.strategy, other.initialisation)))
    if row.strategy == other.strategy == "joint":
        papers.append((EMBC, (row.initialisation, row.plan), (other.initialisation, other.plan)))
    for paper, ours, theirs in papers:
        values = published_value(paper, ours, measure), published_value(paper, theirs, measure)
        if values[0] is not None and values[1] is not None:
            return round(values[0] - values[1], 4)  # both have two decimals
    return None
