"""Print liver Dice per patient and the accuracy of lesion types from an evaluation of the starter weights.

    python -m benchmarks.held_out_patients EVALUATION [--synthetic typed/]

EVALUATION is the folder that `python -m monai.bundle run evaluating` wrote for the held-out fold of the list of `make
starter`. For the weights that come with the software, and in bundles/liver_lesion_joint, that is:

    python -m monai.bundle run evaluating --config_file "['configs/train.yaml','configs/strategies/ours.yaml',
      'configs/real_ct.yaml','configs/evaluate.yaml']" --dataset_dir STARTER --datalist STARTER/joint-list.json
      --cache_dir STARTER/cache --pretrain_weights null --network_size lite --network_def::windows "[5, 11]"
      --network_def::evidence both --weights ../../liverseg/weights/joint.safetensors --output_dir EVALUATION

where STARTER is the absolute path of runs/starter, the output of `make starter`. Slices without typed lesions are the
patients' original slices, with the liver outlined. Slices whose path starts with `--synthetic` are copies with
synthetic lesions. Phantoms are excluded. The liver's Dice is computed over all pixels of a patient's original slices.
The balanced accuracy covers the synthetic lesions that a predicted lesion overlaps, with the type of the prediction
that overlaps best. 95 % intervals are from a bootstrap over patients.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from liverseg.evaluation.intervals import bootstrap, patient_weights
from liverseg.evaluation.lesion_types import balanced_accuracy, confusions


def main() -> None:
    """Print liver Dice and accuracy of types."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("--synthetic", default="typed/", help="prefix of the copies' paths")
    args = parser.parse_args()
    folder = args.evaluation
    units = pd.read_csv(folder / "evaluation.csv", dtype={"patient": str})
    own = units[units["true_type"].isna() & units["lesion_true"].isna()]
    pixels = own.groupby("patient")[["liver_hit", "liver_pred", "liver_true"]].sum()
    dice = 2 * pixels["liver_hit"] / (pixels["liver_pred"] + pixels["liver_true"])
    by_patient = np.column_stack([dice, np.ones(len(dice))])
    mean = bootstrap(lambda sums: sums[..., 0] / sums[..., 1], by_patient, patient_weights(len(dice)))
    print(f"liver Dice of {len(dice)} patients, {len(own)} slices: median {dice.median():.3f}")
    print(f"  mean {mean.value:.3f} ({mean.lower:.3f} to {mean.upper:.3f})")
    for patient, value in dice.sort_values().items():
        print(f"  {patient} {value:.3f}")
    lesions = pd.read_csv(folder / "lesions.csv", dtype={"patient": str})
    true = lesions[(lesions["side"] == "true") & lesions["image"].str.startswith(args.synthetic)]
    found = true[true["hit"].astype(bool) & true["pred_type"].notna()]
    print(f"synthetic lesions: {len(true)}, overlapped {int(true['hit'].sum())}, named {len(found)}")
    print(pd.crosstab(found["true_type"], found["pred_type"]))
    counts = pd.DataFrame(confusions(found["true_type"].tolist(), found["pred_type"].tolist()))
    sums = counts.groupby(found["patient"].to_numpy()).sum().to_numpy(np.float64)
    result = bootstrap(balanced_accuracy, sums, patient_weights(len(sums)))
    print(f"balanced accuracy given detection: {result.value:.3f} ({result.lower:.3f} to {result.upper:.3f})")


if __name__ == "__main__":
    main()
