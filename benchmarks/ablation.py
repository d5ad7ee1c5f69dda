"""Measure what each part of the training on patients contributes: train on without the part and compare scores.

    python -m benchmarks.ablation runs/starter cases.csv OUTPUT [--epochs 7] [--only NAME ...]

The first folder is the output of `make starter`; its lists and cache are used. cases.csv is the table that
`benchmarks.real_ct` reads. Each training starts from the joint network that comes with the software and uses the
patients' slices without the phantoms, with smaller crops and batches. All trainings have the same seed. A network
trained from scratch finds no lesion in such a time, so the benchmark measures the loss when a part is missing. This is
less than the part contributes to a training from scratch. Each network is scored on the held-out patients of the
starter's list (liver and synthetic lesions) and on the cases. A complete training is not repeated. Prints one row per
training and writes `ablation.csv`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from liverseg.bundle.paths import STARTER_FOLDER
from liverseg.networks import read_record

_BUNDLE = Path(__file__).absolute().parent.parent / "bundles" / "liver_lesion_joint"
_CONFIGS = "['configs/train.yaml','configs/strategies/ours.yaml','configs/real_ct.yaml']"
_SHORT = {
    "pretrain_weights": STARTER_FOLDER / "joint.safetensors", "carry_heads": "True", "head_factor": "1",
    "type_head_factor": "1", "learning_rate": "0.0005", "network_def::windows": "[5, 11]",
    "network_def::evidence": "both", "batch_size": "16", "repeats": "1", "lesion_free": "0.3", "crop_size": "128",
    "liver_crop": "128",
}  # fmt: skip
_EXPORT = {"voxel_threshold": "0.1", "lesion_threshold": "0.8"}
_VARIANTS: dict[str, dict[str, str]] = {
    "all": {},
    "no lesions": {"synthetic_lesions#prob": "0"},
    "no distractors": {"synthetic_lesions#distractor_prob": "0"},
    "no normal liver": {"synthetic_lesions#normal_liver": "False"},
    "exact outlines": {"synthetic_lesions#outline_margin_mm": "[0, 0]"},
    "no scanner augmentation": {"scanner_augmentation": "null"},
}


def main() -> None:
    """Train and score the variants and print their rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("starter", type=Path)
    parser.add_argument("cases", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--only", nargs="+", choices=_VARIANTS, default=list(_VARIANTS))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    datalist = args.output.absolute() / "patients.json"
    write_patients(args.starter / "joint-list.json", datalist)
    rows = []
    for name in args.only:
        folder = (args.output / name.replace(" ", "_")).absolute()
        train(args.starter.absolute(), datalist, folder, args.epochs, _VARIANTS[name])
        rows.append(row := {"training": name, **scores(folder, args.cases.absolute())})
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    pd.DataFrame(rows).to_csv(args.output / "ablation.csv", index=False)


def write_patients(joined: Path, datalist: Path) -> None:
    """Write the data list without its phantoms."""
    content = json.loads(joined.read_text(encoding="utf-8"))
    content["training"] = [item for item in content["training"] if not item["image"].startswith("phantoms/")]
    content["numTraining"] = len(content["training"])
    datalist.write_text(json.dumps(content), encoding="utf-8")


def train(starter: Path, datalist: Path, folder: Path, epochs: int, overrides: dict[str, str]) -> None:
    """Train and export, unless the exported weights exist."""
    if (folder / "joint.safetensors").is_file():
        return
    settings = {
        "dataset_dir": starter, "datalist": datalist, "cache_dir": starter / "cache",
        "output_dir": folder, "ckpt_dir": folder, "epochs": epochs, "val_interval": epochs, "progress": "False",
        **_SHORT, **overrides,
    }  # fmt: skip
    for step, config, keys in (
        ("training", _CONFIGS, settings),
        ("export", "configs/export.yaml", {"output_dir": folder, "ckpt_dir": folder, **_EXPORT}),
    ):
        options = [word for key, value in keys.items() for word in (f"--{key}", str(value))]
        command = [sys.executable, "-m", "monai.bundle", "run", step, "--config_file", config, *options]
        subprocess.run(command, cwd=_BUNDLE, check=True)


def scores(folder: Path, cases: Path) -> dict[str, Any]:
    """Return the metrics on the held-out patients and the results of `benchmarks.real_ct` on the cases."""
    weights = folder / "joint.safetensors"
    record = read_record(weights)
    command = [sys.executable, "-m", "benchmarks.real_ct", str(cases), str(folder / "real"), "--weights", str(weights)]
    subprocess.run([*command, "--bundle", str(_BUNDLE)], check=True, stdout=subprocess.DEVNULL)
    real = pd.read_csv(folder / "real" / "real_ct.csv")
    row: dict[str, Any] = {}
    if record is not None:
        row |= {name: round(value, 3) for name, value in record.metrics.items()}
    for case in real.to_dict("records"):
        values = {key: value for key, value in case.items() if key in _SHOWN and value == value}
        row[case["case"]] = json.dumps(values)
    return row


_SHOWN = ("liver_dice", "found", "false", "lesion_dice", "lesions")

if __name__ == "__main__":
    main()
