"""How evenly do ways to split spread lesion types and lesion load over five folds?

    python benchmarks/split_balance.py               # 40 cohorts of each kind, five minutes
    python benchmarks/split_balance.py --cohorts 5

Cohorts are drawn: 332 slices of 140 patients with three types, where a patient's slices are alike in load, and 131
volumes of which about a tenth hold no lesion. Loads are log-normal. Ways:

- types: scikit-learn's StratifiedGroupKFold on types, as without loads.
- classes: the same on types and classes of load as one stratum.
- classes and types: the same on these strata and on types, which count four times.
- best of 32: of 32 shuffles of one of these, the one of least imbalance. The last row is `assign_folds` with loads.

Spread is the largest fold less the smallest, over the folds' mean; the table holds its mean over cohorts. For type
counts and for mean load within a type it is also the mean over types.
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
    """Annotated slices, mm²; a few patients have many, and some have a slice of another type."""
    types = rng.choice(3, PATIENTS, p=[0.35, 0.2, 0.45])
    size = rng.lognormal(np.log(250), 1.0, PATIENTS) * np.array([0.7, 1.3, 1.0])[types]
    more = rng.multinomial(SLICES - PATIENTS, rng.dirichlet(np.full(PATIENTS, 0.7)))
    groups = np.repeat(np.arange(PATIENTS), 1 + more)
    kinds = np.where(rng.random(SLICES) < 0.92, types[groups], rng.integers(0, 3, SLICES))
    return np.array(LESION_TYPES)[kinds], size[groups] * rng.lognormal(0, 0.6, SLICES), groups


def volumes(rng: np.random.Generator) -> Cohort:
    """Volumes of one patient each, ml, of no known type."""
    loads = rng.lognormal(np.log(20), 1.6, VOLUMES) * (rng.random(VOLUMES) >= 0.1)
    return np.full(VOLUMES, ""), loads, np.arange(VOLUMES)


def ways(cohort: Cohort, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Each way's name and its fold of each item."""
    types, loads, groups = cohort
    classes = np.char.add(types, [f" {number}" for number in load_classes(types, loads, FOLDS)])
    best: list[tuple[str, np.ndarray]] = []
    all_strata: dict[str, Sequence[np.ndarray]] = {
        "types": [types],
        "classes": [classes],
        "classes and types": [classes, *[types] * TYPES_FIRST],
    }
    for name, strata in all_strata.items():
        tried = list(islice(stratified_splits(strata, groups, FOLDS, seed), TRIES))
        yield name, tried[0]
        best.append((f"{name}, best of {TRIES}", min(tried, key=lambda one: imbalance(types, loads, one, FOLDS))))
    yield from best[:-1]
    items = [DataItem("", "", str(who), lesion_type=kind or None) for who, kind in zip(groups, types, strict=True)]
    split = assign_folds(items, FOLDS, seed, [float(load) for load in loads])
    yield f"{best[-1][0]} (`assign_folds`)", np.array([item.fold for item in split])


def spread(values: np.ndarray) -> float:
    """Largest less smallest, over the mean."""
    return float((values.max() - values.min()) / values.mean())


def measured(cohort: Cohort, numbers: np.ndarray) -> list[float]:
    """Spread over the folds: type counts, mean load within a type, mean load, total load, items."""
    types, loads, _ = cohort
    kinds = [types == kind for kind in np.unique(types)]
    counts = [np.bincount(numbers[own], minlength=FOLDS) for own in kinds]
    sums = [np.bincount(numbers[own], loads[own], FOLDS) for own in kinds]
    within = [spread(total / np.maximum(count, 1)) for total, count in zip(sums, counts, strict=True)]
    total, size = np.bincount(numbers, loads, FOLDS), np.bincount(numbers, minlength=FOLDS)
    return [
        float(np.mean([spread(count) for count in counts])),
        float(np.mean(within)),
        spread(total / size),
        spread(total),
        spread(size),
    ]


def main() -> None:
    """Split every cohort in every way and print a table for each kind."""
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
            for name, numbers in ways(cohort, seed):
                found.setdefault(name, []).append(measured(cohort, numbers))
        print(f"\n{title}; spread of\n")
        print("| | types | mean load, a type's | mean load | total load | items |\n|---|---|---|---|---|---|")
        for name, rows in found.items():
            print(f"| {name} | {' | '.join(f'{value:.2f}' for value in np.mean(rows, axis=0))} |")


if __name__ == "__main__":
    main()
