"""A cohort's two tables: which slices are annotated, and what every lesion is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from liverseg.errors import LiversegError
from liverseg.labels import LESION_TYPES
from liverseg.phantom.cases import Case
from liverseg.utils.files import atomic_write

__all__ = ["choose_slices", "write_cohort_tables"]

_SEED_WORD = 3
_VISIBLE_SHARE = 0.35
"""Share of a lesion's largest section that a slice must show to be worth annotating."""

_LESION_COLUMNS = (
    "lesion",
    "lesion_type",
    "volume_ml",
    "diameter_mm",
    "mean_hu",
    "liver_hu",
    "noise_hu",
    "contrast_to_noise",
    "x",
    "y",
    "z",
)


def write_cohort_tables(root: Path, cases: Sequence[Case], slices: int, seed: int) -> None:
    """Write `slices.csv` and `lesions.csv` from the cases' records.

    Raises:
        LiversegError: if fewer slices show a lesion than asked for.
    """
    records = [json.loads((root / case.record).read_text(encoding="utf-8")) for case in cases]
    chosen = choose_slices(records, slices, seed)
    rows = [
        {"patient": case.name, "image": case.image, "mask": case.label, "slice": number, "lesion_type": kind}
        for case, numbers in zip(cases, chosen, strict=True)
        for number, kind in numbers
    ]
    lesions = [
        {"patient": case.name, **{name: lesion[name] for name in _LESION_COLUMNS}}
        for case, record in zip(cases, records, strict=True)
        for lesion in record["lesions"]
    ]
    frame = pd.DataFrame(lesions, columns=["patient", *_LESION_COLUMNS])
    _write_csv(root / "lesions.csv", frame.rename(columns={"x": "x_mm", "y": "y_mm", "z": "z_mm"}))
    _write_csv(root / "slices.csv", pd.DataFrame(rows))


def choose_slices(records: Sequence[dict[str, Any]], slices: int, seed: int) -> list[list[tuple[int, str]]]:
    """Pick annotated slices for every patient, as a reader would: where a lesion is well seen, each place once.

    Every patient gets its best slice first; the others are dealt out one at a time to the patient and type that have
    had the fewest, so that types stay even.

    Args:
        records: one a patient, with `lesions` that hold `lesion_type` and `slices` (pixels by slice number).
        slices: how many in all.
        seed: decides between near equals.

    Returns:
        For every patient (slice number, type with most pixels there), in slice order.

    Raises:
        LiversegError: if fewer slices show a lesion than asked for.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, _SEED_WORD)))
    offers = [_offers(record, rng) for record in records]
    total = sum(len(offer) for offer in offers)
    if slices > total:
        raise LiversegError(
            f"slices {slices}: only {total} slices of these {len(records)} patients show a lesion; ask for no more"
        )
    taken: list[list[tuple[int, str]]] = [[] for _ in records]
    counts = dict.fromkeys(LESION_TYPES, 0)

    def take(patient: int, position: int) -> None:
        number, kind = offers[patient].pop(position)
        taken[patient].append((number, kind))
        counts[kind] += 1

    for patient in range(len(records)):
        take(patient, 0)
    for _ in range(slices - len(records)):
        fewest = min(counts.values())
        best: tuple[float, int, int] | None = None
        for patient, offer in enumerate(offers):
            for position, (_, kind) in enumerate(offer):
                cost = len(taken[patient]) + 0.25 * position + 0.4 * (counts[kind] - fewest)
                if best is None or cost < best[0]:
                    best = (cost, patient, position)
        if best is None:  # cannot be: the total was checked
            break
        take(best[1], best[2])
    return [sorted(rows) for rows in taken]


def _offers(record: dict[str, Any], rng: np.random.Generator) -> list[tuple[int, str]]:
    """A patient's slices that show a lesion, the most telling first."""
    pixels: dict[int, dict[str, int]] = {}
    score: dict[int, float] = {}
    for lesion in record["lesions"]:
        largest = max(lesion["slices"].values())
        for key, count in lesion["slices"].items():
            number = int(key)
            kinds = pixels.setdefault(number, {})
            kinds[lesion["lesion_type"]] = kinds.get(lesion["lesion_type"], 0) + count
            score[number] = max(score.get(number, 0.0), count / largest)
    if not pixels:
        raise LiversegError(f"{record['patient']}: no lesion in it; nothing can be annotated")
    jitter = {number: share - 0.25 * rng.random() for number, share in score.items()}
    order = sorted(pixels, key=lambda number: -jitter[number])
    spread: list[int] = []
    rest: list[int] = []
    for number in order:
        seen = score[number] >= _VISIBLE_SHARE
        apart = all(abs(number - other) > 1 for other in spread)
        (spread if seen and apart else rest).append(number)
    return [(number, max(pixels[number], key=lambda kind: pixels[number][kind])) for number in spread + rest]


def _write_csv(path: Path, frame: pd.DataFrame) -> None:
    with atomic_write(path, "phantoms") as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")
