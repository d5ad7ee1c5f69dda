"""How hard is the phantom cohort? Prints the table in docs/phantom.md.

    python benchmarks/phantom_difficulty.py COHORT        # a folder written by `liverseg phantom ... --kind cohort`

All classifiers are cross-validated with patients kept apart, five folds, ten shuffles.
"""

from __future__ import annotations

import argparse
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

from liverseg.labels import LESION, LESION_TYPES, LIVER
from liverseg.volumes import read_volume

SHUFFLES = 10
FOLDS = 5


def accuracy(
    model: object, features: np.ndarray, kinds: np.ndarray, patients: np.ndarray, shuffles: int = SHUFFLES
) -> tuple[float, float]:
    """Mean accuracy and its standard deviation over shuffles of patient-grouped folds."""
    rng = np.random.default_rng(0)
    names = np.unique(patients)
    scores = []
    for _ in range(shuffles):
        number = dict(zip(names, rng.permutation(len(names)), strict=True))
        groups = np.array([number[name] for name in patients])
        right = np.zeros(len(kinds), dtype=bool)
        for train, test in GroupKFold(FOLDS, shuffle=True, random_state=int(rng.integers(1 << 30))).split(
            features, kinds, groups
        ):
            right[test] = model.fit(features[train], kinds[train]).predict(features[test]) == kinds[test]  # type: ignore[attr-defined]
        scores.append(right.mean())
    return float(np.mean(scores)), float(np.std(scores))


def slice_features(root: Path, slices: pd.DataFrame) -> pd.DataFrame:
    """What could be measured on each annotated slice inside the true mask of its type, HU relative to the liver."""
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


def main() -> None:
    """Measure a cohort and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("cohort", type=Path)
    root = parser.parse_args().cohort
    warnings.filterwarnings("ignore", category=FutureWarning)
    lesions, slices = pd.read_csv(root / "lesions.csv"), pd.read_csv(root / "slices.csv")
    kinds, patients = lesions["lesion_type"].to_numpy(), lesions["patient"].to_numpy()
    simple = np.stack([lesions["mean_hu"], np.log(lesions["volume_ml"])], axis=1)
    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    forest = RandomForestClassifier(200, min_samples_leaf=2, random_state=0, n_jobs=1)

    print(f"| {lesions.patient.nunique()} patients | {len(lesions)} lesions, {len(slices)} slices |\n|---|---|")

    def tell(name: str, value: str) -> None:
        print(f"| {name} | {value} |", flush=True)

    share = lesions["lesion_type"].value_counts(normalize=True)
    tell("lesions by type", ", ".join(f"{kind} {share[kind]:.2f}" for kind in LESION_TYPES))
    share = slices["lesion_type"].value_counts(normalize=True)
    tell("slices by type", ", ".join(f"{kind} {share[kind]:.2f}" for kind in LESION_TYPES))
    mixed = lesions.groupby("patient")["lesion_type"].nunique().gt(1).mean()
    tell("lesions a patient; patients of mixed types", f"{len(lesions) / lesions.patient.nunique():.2f}; {mixed:.2f}")
    low, middle, high = lesions["diameter_mm"].quantile([0.05, 0.5, 0.95])
    tell("diameter, mm: 5 %, median, 95 %", f"{low:.0f}, {middle:.0f}, {high:.0f}")
    hidden = lesions["contrast_to_noise"] < 1.5
    tell("lesions with contrast-to-noise below 1.5", f"{hidden.mean():.2f}")
    by_kind = lesions.assign(hidden=hidden).groupby("lesion_type")["hidden"].mean()
    tell("... by type", ", ".join(f"{kind} {by_kind[kind]:.2f}" for kind in LESION_TYPES))
    tell("... share of lesion volume", f"{lesions.loc[hidden, 'volume_ml'].sum() / lesions['volume_ml'].sum():.2f}")
    for kind in LESION_TYPES:
        of = lesions.loc[lesions["lesion_type"] == kind, "mean_hu"].quantile([0.05, 0.5, 0.95])
        tell(f"mean HU of {kind}: 5 %, median, 95 %", ", ".join(f"{value:.0f}" for value in of))
    mean, spread = accuracy(regression, simple, kinds, patients)
    majority = lesions["lesion_type"].value_counts(normalize=True).max()
    tell("type from mean HU and log volume, a lesion (majority class)", f"{mean:.3f} ± {spread:.3f} ({majority:.2f})")
    mean, spread = accuracy(regression, simple[:, :1], kinds, patients)
    tell("type from mean HU alone, a lesion", f"{mean:.3f} ± {spread:.3f}")
    features = slice_features(root, slices)
    on_slices = slices["lesion_type"].to_numpy(), slices["patient"].to_numpy()
    mean, spread = accuracy(regression, features[["mean", "log_area"]].to_numpy(), *on_slices)
    majority = slices["lesion_type"].value_counts(normalize=True).max()
    tell("type from mean HU and log area, a slice (majority class)", f"{mean:.3f} ± {spread:.3f} ({majority:.2f})")
    mean, spread = accuracy(forest, features.to_numpy(), *on_slices, shuffles=2)
    tell("type from eleven measurements of appearance, a slice (forest)", f"{mean:.3f}")


if __name__ == "__main__":
    main()
