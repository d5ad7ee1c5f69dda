"""The tables of a cohort: annotated slices, and lesions."""

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
"""Smallest section of a lesion on a slice preferred for annotation, as a share of its largest section."""

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
        LiversegError: if fewer than `slices` slices show a lesion.
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
    """Choose slices to annotate as a reader would: those that show lesions well and are not next to each other.

    Each patient gets its best slice first. Then slices go to the patient and type with the fewest, one at a time, so
    that types stay balanced.

    Args:
        records: one record per patient, with `lesions` that have `lesion_type` and `slices` (pixels by slice number).
        slices: number of slices of all patients together.
        seed: seed of the choice between similar slices.

    Returns:
        For each patient, (slice number, type with most pixels there), in slice order.

    Raises:
        LiversegError: if fewer than `slices` slices show a lesion.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, _SEED_WORD)))
    candidates = [_rank_slices(record, rng) for record in records]
    total = sum(len(ranked) for ranked in candidates)
    if slices > total:
        raise LiversegError(
            f"slices {slices}: only {total} slices of these {len(records)} patients show a lesion; ask for no more"
        )
    chosen: list[list[tuple[int, str]]] = [[] for _ in records]
    counts = dict.fromkeys(LESION_TYPES, 0)

    def take(patient: int, rank: int) -> None:
        number, kind = candidates[patient].pop(rank)
        chosen[patient].append((number, kind))
        counts[kind] += 1

    for patient in range(len(records)):
        take(patient, 0)
    for _ in range(slices - len(records)):
        fewest = min(counts.values())
        best: tuple[float, int, int] | None = None
        for patient, ranked in enumerate(candidates):
            for rank, (_, kind) in enumerate(ranked):
                cost = len(chosen[patient]) + 0.25 * rank + 0.4 * (counts[kind] - fewest)
                if best is None or cost < best[0]:
                    best = (cost, patient, rank)
        if best is None:  # impossible, since the total was checked
            break
        take(best[1], best[2])
    return [sorted(rows) for rows in chosen]


def _rank_slices(record: dict[str, Any], rng: np.random.Generator) -> list[tuple[int, str]]:
    """Rank a patient's slices with a lesion, those that show it best first, and their most frequent type."""
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
    preferred: list[int] = []
    rest: list[int] = []
    for number in order:
        visible = score[number] >= _VISIBLE_SHARE
        separate = all(abs(number - other) > 1 for other in preferred)
        (preferred if visible and separate else rest).append(number)
    return [(number, max(pixels[number], key=lambda kind: pixels[number][kind])) for number in preferred + rest]


def _write_csv(path: Path, frame: pd.DataFrame) -> None:
    with atomic_write(path, "phantoms") as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")
