"""Measure how evenly methods of splitting spread lesion types and lesion load over five folds.

    python benchmarks/split_balance.py               # 40 cohorts of each kind, five minutes
    python benchmarks/split_balance.py --cohorts 5

Cohorts are random: 332 slices of 140 patients with three types, where the slices of a patient have similar loads, and
131 volumes, about a tenth of them without lesions. Loads are log-normal. Methods:

- types: scikit-learn's StratifiedGroupKFold on types, as for lists without loads.
- classes: the same on combinations of type and class of load.
- classes and types: the same on these combinations and on types, which count four times.
- best of 32: the least imbalanced of 32 shuffles of one of these. The last row is `assign_folds` with loads.

Spread is (largest fold - smallest fold) / mean of the folds. The table has its mean over cohorts, for type counts and
for mean load within a type also over types.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np

from liverseg.datalists import DataItem, assign_folds
from liverseg.datalists.splits import imbalance, load_classes, stratified_splits
from liverseg.labels import LESION_TYPES

FOLDS, TRIES, TYPES_FIRST = 5, 32, 4
PATIENTS, SLICES, VOLUMES = 140, 332, 131

Cohort = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Type, load and patient of each item."""


def slices(rng: np.random.Generator) -> Cohort:
    """Draw annotated slices, mm²: a few patients have many, and some have a slice of another type."""
    types = rng.choice(3, PATIENTS, p=[0.35, 0.2, 0.45])
    size = rng.lognormal(np.log(250), 1.0, PATIENTS) * np.array([0.7, 1.3, 1.0])[types]
    more = rng.multinomial(SLICES - PATIENTS, rng.dirichlet(np.full(PATIENTS, 0.7)))
    groups = np.repeat(np.arange(PATIENTS), 1 + more)
    kinds = np.where(rng.random(SLICES) < 0.92, types[groups], rng.integers(0, 3, SLICES))
    return np.array(LESION_TYPES)[kinds], size[groups] * rng.lognormal(0, 0.6, SLICES), groups


def volumes(rng: np.random.Generator) -> Cohort:
    """Draw volumes of one patient each, ml, without types."""
    loads = rng.lognormal(np.log(20), 1.6, VOLUMES) * (rng.random(VOLUMES) >= 0.1)
    return np.full(VOLUMES, ""), loads, np.arange(VOLUMES)


def splits(cohort: Cohort, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each method's name and its fold of each item."""
    types, loads, groups = cohort
    classes = np.char.add(types, [f" {number}" for number in load_classes(types, loads, FOLDS)])
    best: list[tuple[str, np.ndarray]] = []
    all_strata: dict[str, Sequence[np.ndarray]] = {
        "types": [types],
        "classes": [classes],
        "classes and types": [classes, *[types] * TYPES_FIRST],
    }
    for name, strata in all_strata.items():
        candidates = list(islice(stratified_splits(strata, groups, FOLDS, seed), TRIES))
        yield name, candidates[0]
        best.append(
            (f"{name}, best of {TRIES}", min(candidates, key=lambda folds: imbalance(types, loads, folds, FOLDS)))
        )
    yield from best[:-1]
    items = [
        DataItem("", "", str(patient), lesion_type=kind or None) for patient, kind in zip(groups, types, strict=True)
    ]
    split = assign_folds(items, FOLDS, seed, [float(load) for load in loads])
    yield f"{best[-1][0]} (`assign_folds`)", np.array([item.fold for item in split])


def spread(values: np.ndarray) -> float:
    """Return (largest - smallest) / mean."""
    return float((values.max() - values.min()) / values.mean())


def spreads(cohort: Cohort, folds: np.ndarray) -> list[float]:
    """Return spreads over the folds: type counts, mean load within a type, mean load, total load, items."""
    types, loads, _ = cohort
    masks = [types == kind for kind in np.unique(types)]
    counts = [np.bincount(folds[mask], minlength=FOLDS) for mask in masks]
    sums = [np.bincount(folds[mask], loads[mask], FOLDS) for mask in masks]
    within = [spread(total / np.maximum(count, 1)) for total, count in zip(sums, counts, strict=True)]
    total, size = np.bincount(folds, loads, FOLDS), np.bincount(folds, minlength=FOLDS)
    return [
        float(np.mean([spread(count) for count in counts])),
        float(np.mean(within)),
        spread(total / size),
        spread(total),
        spread(size),
    ]


def main() -> None:
    """Split every cohort with every method and print a table for each kind of cohort."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", type=int, default=40)
    cohorts = parser.parse_args().cohorts
    makers: dict[str, Callable[[np.random.Generator], Cohort]] = {
        f"{SLICES} slices of {PATIENTS} patients": slices,
        f"{VOLUMES} volumes": volumes,
    }
    for title, make in makers.items():
        found: dict[str, list[list[float]]] = {}
        for seed in range(cohorts):
            cohort = make(np.random.default_rng(seed))
            for name, folds in splits(cohort, seed):
                found.setdefault(name, []).append(spreads(cohort, folds))
        print(f"\n{title}; spread of\n")
        print("| | types | mean load, a type's | mean load | total load | items |\n|---|---|---|---|---|---|")
        for name, rows in found.items():
            print(f"| {name} | {' | '.join(f'{value:.2f}' for value in np.mean(rows, axis=0))} |")


if __name__ == "__main__":
    main()
