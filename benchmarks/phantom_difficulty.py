"""Measure the difficulty of phantom cohorts and print the table in docs/phantom.md, one column per cohort.

    python benchmarks/phantom_difficulty.py COHORT ...    # folders written by `liverseg phantom ... --kind cohort`

All classifiers are cross-validated in five folds grouped by patient, with ten shuffles.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from liverseg.imageio.volume import read_volume
from liverseg.labels import LESION, LESION_TYPES, LIVER

SHUFFLES = 10
FOLDS = 5


def accuracy(
    model: object, features: np.ndarray, types: np.ndarray, patients: np.ndarray, shuffles: int = SHUFFLES
) -> tuple[float, float]:
    """Return mean accuracy and its standard deviation over shuffles of patient-grouped folds."""
    rng = np.random.default_rng(0)
    names = np.unique(patients)
    scores = []
    for _ in range(shuffles):
        number = dict(zip(names, rng.permutation(len(names)), strict=True))
        groups = np.array([number[name] for name in patients])
        right = np.zeros(len(types), dtype=bool)
        for train, test in GroupKFold(FOLDS, shuffle=True, random_state=int(rng.integers(1 << 30))).split(
            features, types, groups
        ):
            right[test] = model.fit(features[train], types[train]).predict(features[test]) == types[test]  # type: ignore[attr-defined]
        scores.append(right.mean())
    return float(np.mean(scores)), float(np.std(scores))


def slice_features(root: Path, slices: pd.DataFrame) -> pd.DataFrame:
    """Measure the true mask of each annotated slice's type; HU are relative to the liver's, except in `mean`."""
    rows = []
    for (image_name, mask_name), group in slices.groupby(["image", "mask"], sort=False):
        image, mask = read_volume(root / image_name), read_volume(root / mask_name)
        for row in group.itertuples():
            plane = np.take(image.array, row.slice, image.slice_axis).astype(np.float32)
            label = np.take(mask.array, row.slice, mask.slice_axis)
            lesion = label == LESION + LESION_TYPES.index(row.lesion_type)
            liver_hu = float(np.median(plane[label == LIVER])) if (label == LIVER).any() else 100.0
            smooth = ndimage.gaussian_filter(plane, 0.8)
            depth = ndimage.distance_transform_edt(lesion)
            ring, core = lesion & (depth <= 1.5), lesion & (depth >= 0.6 * depth.max())
            near = ndimage.binary_dilation(lesion, iterations=2) & (label == LIVER)
            slope = np.hypot(ndimage.sobel(smooth, 0), ndimage.sobel(smooth, 1))
            values = smooth[lesion]
            rows.append(
                {
                    "mean": float(plane[lesion].mean()),
                    "log_area": float(np.log(lesion.sum())),
                    "against_liver": values.mean() - liver_hu,
                    "low": np.quantile(values, 0.1) - liver_hu,
                    "high": np.quantile(values, 0.9) - liver_hu,
                    "spread": values.std(),
                    "ring": smooth[ring].mean() - liver_hu,
                    "ring_spread": smooth[ring].std(),
                    "core": smooth[core].mean() - liver_hu,
                    "around": (smooth[near].mean() if near.any() else liver_hu) - liver_hu,
                    "slope": slope[ring].mean(),
                }
            )
    return pd.DataFrame(rows)


def quantiles(values: pd.Series, digits: int = 0) -> str:
    """Format the 5 % quantile, the median and the 95 % quantile."""
    return ", ".join(f"{value:.{digits}f}" for value in values.quantile([0.05, 0.5, 0.95]))


def shares(types: pd.Series) -> str:
    """Format the share of each lesion type."""
    share = types.value_counts(normalize=True)
    return ", ".join(f"{kind} {share.get(kind, 0.0):.2f}" for kind in LESION_TYPES)


def describe(root: Path, lesions: pd.DataFrame, slices: pd.DataFrame) -> dict[str, str]:
    """Return the table's rows on patients, acquisition and lesions."""
    facts = pd.DataFrame([json.loads(path.read_text())["facts"] for path in sorted((root / "records").glob("*.json"))])
    hidden = lesions["contrast_to_noise"] < 1.5
    by_kind = lesions.assign(hidden=hidden).groupby("lesion_type")["hidden"].mean()
    types = lesions.groupby("patient")["lesion_type"].nunique()
    rows = {
        "patients, lesions, slices": f"{lesions['patient'].nunique()}, {len(lesions)}, {len(slices)}",
        "lesions by type": shares(lesions["lesion_type"]),
        "slices by type": shares(slices["lesion_type"]),
        "lesions a patient; patients of mixed types": f"{len(lesions) / len(types):.2f}; {types.gt(1).mean():.2f}",
        "slice thickness, mm: 5 %, median, 95 %": quantiles(facts["thickness_mm"], 1),
        "noise, HU": quantiles(facts["noise_hu"]),
        "liver before noise, HU": quantiles(facts["liver_hu"]),
        "liver volume, ml": quantiles(facts["liver_ml"]),
        "subcutaneous fat at the flank, mm": quantiles(facts["subcutaneous_fat_mm"]),
        "lesion diameter, mm": quantiles(lesions["diameter_mm"]),
        "lesions with contrast-to-noise below 1.5": f"{hidden.mean():.2f}",
        "... by type": ", ".join(f"{kind} {by_kind[kind]:.2f}" for kind in LESION_TYPES),
        "... share of lesion volume": f"{lesions.loc[hidden, 'volume_ml'].sum() / lesions['volume_ml'].sum():.2f}",
    }
    for kind in LESION_TYPES:
        rows[f"mean HU of {kind}"] = quantiles(lesions.loc[lesions["lesion_type"] == kind, "mean_hu"])
    return rows


def classify(root: Path, lesions: pd.DataFrame, slices: pd.DataFrame) -> dict[str, str]:
    """Return accuracy of predicting the type from simple measurements: mean ± standard deviation over shuffles."""
    lesion_truth = lesions["lesion_type"].to_numpy(), lesions["patient"].to_numpy()
    slice_truth = slices["lesion_type"].to_numpy(), slices["patient"].to_numpy()
    simple = np.stack([lesions["mean_hu"], np.log(lesions["volume_ml"])], axis=1)
    features = slice_features(root, slices)
    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    forest = RandomForestClassifier(200, min_samples_leaf=2, random_state=0, n_jobs=1)

    def regress(values: np.ndarray, truth: tuple[np.ndarray, np.ndarray]) -> str:
        return "{:.3f} ± {:.3f}".format(*accuracy(regression, values, *truth))

    def majority(types: pd.Series) -> str:
        return f"{types.value_counts(normalize=True).max():.2f}"

    return {
        "a lesion's type from its mean HU and log volume": regress(simple, lesion_truth),
        "... from its mean HU alone": regress(simple[:, :1], lesion_truth),
        "... always the most frequent type": majority(lesions["lesion_type"]),
        "a slice's type from mean HU and log area": regress(features[["mean", "log_area"]].to_numpy(), slice_truth),
        "... from eleven measurements of appearance (forest)": "{:.3f} ± {:.3f}".format(
            *accuracy(forest, features.to_numpy(), *slice_truth, shuffles=2)
        ),
        "... always the most frequent type, a slice": majority(slices["lesion_type"]),
    }


def main() -> None:
    """Measure cohorts and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("cohort", type=Path, nargs="+")
    warnings.filterwarnings("ignore", category=FutureWarning)
    columns = {}
    for root in parser.parse_args().cohort:
        settings = json.loads((root / "phantom.json").read_text())
        lesions, slices = pd.read_csv(root / "lesions.csv"), pd.read_csv(root / "slices.csv")
        name = f"matrix {settings['matrix']}, seed {settings['seed']}"
        columns[name] = describe(root, lesions, slices) | classify(root, lesions, slices)
    table = pd.DataFrame(columns)
    print(f"| | {' | '.join(table.columns)} |\n|---|{'---|' * len(table.columns)}")
    for name, row in table.iterrows():
        print(f"| {name} | {' | '.join(row)} |")


if __name__ == "__main__":
    main()
