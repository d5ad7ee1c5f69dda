"""Count joint trainings that outline no lesion, by the rule that decides whether a pixel is a lesion.

    liverseg phantom DATA --kind cohort --patients 140 --slices 332 --matrix 256 --seed 101
    liverseg datalist cohort DATA/cohort --folds 7 --test 0.33 --from "liverseg phantom" --licence CC0-1.0
    python -m benchmarks.training_stability DATA/cohort OUTPUT [--seeds 20] [--first 0] [--KEY VALUE ...]

Trains the joint bundle with the phantom overlay and the study's numbers (15 epochs, crops of 96, as many slices as in a
cell of the study), from scratch unless `--pretrain_weights` is given. Other options are keys of the bundle. The rule
changes nothing while a network is trained, so each training is scored with both: lesion where all types together are
likelier than liver and background (`sum_types`), and where a single type is, as in the paper. Each rule takes the
validated epoch with the best class-aware Dice. All patients who are not trained on are scored.

One training takes about a minute and a half on a core. Its rows are appended to `training_stability.csv` in OUTPUT, and
a seed that has them is not trained again. Use one OUTPUT for one set of keys.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from ignite.engine import Events
from monai.bundle import ConfigWorkflow

from liverseg.labels import LESION
from liverseg.training import SlabScores

_BUNDLE = Path(__file__).absolute().parent.parent / "bundles" / "liver_lesion_joint"
_CONFIGS = ["configs/train.yaml", "configs/phantom.yaml"]
_STUDY = {
    "epochs": 15,
    "crop_size": 96,
    "pretrain_weights": "null",
    "validate::dataset::data": "$@data.validation + @data.test",
}
_SCORES = ("lesion_dice", "class_aware_dice", "type_accuracy", "prediction_rate")


def main() -> None:
    """Train every seed and print its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    args, words = parser.parse_known_args()
    keys = {key.removeprefix("--"): yaml.safe_load(value) for key, value in zip(words[::2], words[1::2], strict=True)}
    data, output = args.data.absolute(), args.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    os.chdir(_BUNDLE)
    path = output / "training_stability.csv"
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    for seed in range(args.first, args.first + args.seeds):
        if not any(row["seed"] == seed for row in rows):
            rows += train(data, output / f"seed{seed}", seed, keys)
            pd.DataFrame(rows).to_csv(path, index=False, float_format="%.4f")
    table = pd.DataFrame(rows)
    print(table[table["seed"].between(args.first, args.first + args.seeds - 1)].to_string(index=False))
    for rule, part in table.groupby("rule"):
        found = part[part["prediction_rate"] > 0]
        medians = ", ".join(f"{name} {found[name].median():.3f}" for name in _SCORES[:3])
        print(f"{rule}: {len(part) - len(found)} of {len(part)} outline no lesion; medians of the others: {medians}")


def train(data: Path, folder: Path, seed: int, keys: dict[str, Any]) -> list[dict[str, Any]]:
    """Train one seed and return a row for each rule."""
    settings = {
        "dataset_dir": str(data), "cache_dir": str(data.parent / "cache"), "output_dir": str(folder),
        "ckpt_dir": str(folder), "seed": seed, "progress": False, "resume": False, **_STUDY, **keys,
    }  # fmt: skip
    workflow = ConfigWorkflow(_CONFIGS, workflow_type="train", logging_file=False, run_id="training", **settings)
    workflow.initialize()
    validator = workflow.parser.get_parsed_content("validate::evaluator")
    single = _SingleTypeScores("class_aware_dice", prefix="single_")
    single.attach(validator, "single")
    found: list[dict[str, float]] = []

    @validator.on(Events.COMPLETED)
    def _keep(engine: Any) -> None:
        found.append({"epoch": engine.state.epoch, **engine.state.metrics})

    workflow.run()
    rows = []
    for rule, prefix in (("all types together", "val_"), ("a single type, as in the paper", "single_")):
        best = max(found, key=lambda scores: scores[f"{prefix}class_aware_dice"])
        rows.append({"seed": seed, "rule": rule, "epoch": best["epoch"]} | {n: best[prefix + n] for n in _SCORES})
    return rows


class _SingleTypeScores(SlabScores):
    """Scores of the map without `sum_types`, computed from the map with it by inverting `join_types`."""

    def update(self, output: Any) -> None:
        maps = output["pred"]
        types = maps[:, LESION:]
        excess = torch.logsumexp(types - types.amax(dim=1, keepdim=True), dim=1, keepdim=True)
        super().update({**output, "pred": torch.cat([maps[:, :LESION], types - excess], dim=1)})


if __name__ == "__main__":
    main()
