"""Measure time and memory of a CT's segmentation, from the command to the last written file.

    python benchmarks/inference_speed.py prepare FOLDER            # a CT and a full-size network that finds the liver
    python benchmarks/inference_speed.py measure FOLDER            # all rows of the table except nnU-Net's
    python benchmarks/inference_speed.py memory FOLDER             # peak memory, also of 1000 slices and false lesions
    python benchmarks/inference_speed.py nnunet FOLDER --python NNUNET_VENV/bin/python

The CT is a phantom of 512 x 512 x 200 voxels of 0.75 x 0.75 x 1.5 mm. The network is the full SE-ResNet-50 of the
pre-training bundle, trained on phantoms for a few epochs. It must find the liver, but need not do it well. Each row is
a separate process, timed from outside. Rows take turns, and figures are medians. `nnunet` needs a separate environment
with the same torch and nnunetv2. Its network is untrained, which does not affect its speed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from isal import igzip
from torch.utils.flop_counter import FlopCounterMode

from liverseg.bundle.commands import bundle_command
from liverseg.cli.doctor import describe, examine
from liverseg.cli.main import main as liverseg
from liverseg.imageio.boxes import bounding_box, box_shape
from liverseg.inference import find_bundle
from liverseg.labels import LESION
from liverseg.networks import SEResUNet, export_weights, read_record, read_weights
from liverseg.phantom.patient import Coverage, make_phantom
from liverseg.utils.precision import autocast_dtype

HERE = Path(__file__).parent
SPACING, SLICES, MATRIX = (0.75, 0.75, 1.5), 200, 512
TIMER = """
import resource, subprocess, sys, time
start = time.perf_counter()
status = subprocess.run(sys.argv[1:]).returncode
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""
IN_FLOAT32 = "liverseg predict, float32"
RAISED_BY = 4.0
"""Logits: a voxel with a probability of lesion of 2 % is labelled as lesion."""
EVERY_LESION = ("--min-lesion-ml", "0", "--lesion-threshold", "0", "--min-liver-contact", "0")


@dataclass(frozen=True)
class Run:
    """Wall time in seconds and peak resident memory in MB of one process."""

    seconds: float
    memory_mb: float


def timed(command: Sequence[str | Path]) -> Run:
    """Run a command and print its output only if it fails.

    An intermediate small process starts and times it, because a direct child would inherit this process's peak memory.
    """
    timer = [sys.executable, "-S", "-c", TIMER, *map(str, command)]
    result = subprocess.run(timer, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode:
        raise SystemExit(f"{shlex.join(map(str, command))}\n{result.stdout}")
    seconds, kilobytes = map(float, result.stdout.split()[-2:])
    return Run(seconds, kilobytes / 1024)


def prepare(folder: Path, epochs: int) -> None:
    """Write ct.nii.gz, truth.nii.gz, short.nii.gz (its middle 3 slices, 64 x 64) and full.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "truth.nii.gz").is_file():
        write_ct(folder)
    data = folder / "phantoms"
    exit_code = liverseg(["phantom", str(data), "--kind", "lits", "--volumes", "6", "--matrix", str(MATRIX)])
    exit_code += liverseg(["datalist", "lits", str(data / "lits")])
    if exit_code:
        raise SystemExit(exit_code)
    bundle, output = find_bundle("liver_lesion_pretrain"), str((folder / "training").absolute())
    training = {
        "dataset_dir": str((data / "lits").absolute()),
        "output_dir": output,
        "ckpt_dir": output,
        "network_size": "full",
        "deep_supervision": False,
        "crop_size": 160,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "epochs": epochs,
        "val_every": 100,
        "val_batch_size": 2,
    }
    subprocess.run(bundle_command("training", ["train", "phantom"], training), cwd=bundle, check=True)
    exported = {"ckpt_dir": output, "exported": str((folder / "full.safetensors").absolute())}
    subprocess.run(bundle_command("export", ["export"], exported), cwd=bundle, check=True)


def write_ct(folder: Path) -> None:
    """Write the first phantom of 1.5 mm slices, cropped or padded to 200 slices, on the stated grid."""
    for seed in range(100):
        phantom = make_phantom(
            np.random.SeedSequence((77, seed)), matrix=MATRIX, coverage=Coverage.ABDOMEN, main_type="metastasis"
        )
        if phantom.facts["thickness_mm"] == SPACING[2]:
            break
    affine = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    missing = max(0, SLICES - phantom.image.shape[2])
    for name, array in (("ct", phantom.image), ("truth", np.minimum(phantom.label, 2).astype(np.uint8))):
        padded = np.pad(array, ((0, 0), (0, 0), (missing, 0)), mode="edge")[:, :, -SLICES:]
        nib.save(nib.Nifti1Image(padded, affine), folder / f"{name}.nii.gz")
        if name == "ct":
            nib.save(nib.Nifti1Image(padded[200:264, 200:264, 99:102], affine), folder / "short.nii.gz")


def predict(
    folder: Path, ct: Path | str = "ct.nii.gz", *options: str, device: str = "cpu", output: str = "ours"
) -> list[str | Path]:
    """Return a user's command, with the pre-training bundle."""
    command = [Path(sys.executable).parent / "liverseg", "predict", folder / ct, folder / output, "--device", device]
    weights = ["--weights", folder / "full.safetensors", "--bundle", find_bundle("liver_lesion_pretrain")]
    return [*command, *weights, *options]


def lower_bound(folder: Path) -> dict[str, float]:
    """Return the unavoidable cost: decompressing the file, and the network's operations inside the liver's box."""
    start = time.perf_counter()
    with igzip.open(folder / "ct.nii.gz", "rb") as file:
        while file.read(1 << 20):
            pass
    reading = time.perf_counter() - start
    box = bounding_box(np.asarray(nib.load(folder / "truth.nii.gz").dataobj).transpose(2, 1, 0))
    if box is None:
        raise SystemExit(f"{folder / 'truth.nii.gz'}: it contains no liver")
    side = 256
    network = SEResUNet("full", out_channels=3).eval()
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        network(torch.zeros(1, 3, side, side))
    operations = counter.get_total_flops() / side**2 * math.prod(box_shape(box))
    rate = best_rate()
    return {"read": reading, "operations": operations, "rate": rate, "seconds": reading + operations / rate}


def best_rate() -> float:
    """Return operations per second of this machine's best matrix product, in the number format of inference."""
    best, dtype = 0.0, autocast_dtype("cpu") or torch.float32
    with torch.inference_mode():
        for size in (1024, 2048, 4096):
            left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
            for _ in range(2**32 // size**3 + 6):
                start = time.perf_counter()
                torch.mm(left, right)
                best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def dice(folder: Path, labels: Path, first: int) -> float:
    """Return Dice of all labels from `first` on, of a label map on the CT's grid."""
    truth, found = (np.asarray(nib.load(path).dataobj) >= first for path in (folder / "truth.nii.gz", labels))
    return 2 * float((truth & found).sum()) / float(truth.sum() + found.sum())


def agreement(folder: Path, labels: Path) -> float:
    """Return the share of the float32 result's liver (of ours if the CPU has no bfloat16) that has the same labels."""
    reference = next(path for path in (folder / "float32", folder / "ours") if path.is_dir()) / "ct" / "labels.nii.gz"
    expected, found = (np.asarray(nib.load(path).dataobj) for path in (reference, labels))
    return float((found == expected)[expected >= 1].mean())


def measure(folder: Path, rounds: int) -> None:
    """Print the table; conventional and float32 inference run in every other round only, since they are slow."""
    weights, script = folder / "full.safetensors", HERE / "conventional_inference.py"
    (folder / "pair").mkdir(exist_ok=True)
    for name in ("one.nii.gz", "two.nii.gz"):
        if not (folder / "pair" / name).exists():
            os.link(folder / "ct.nii.gz", folder / "pair" / name)
    lines = {
        "liverseg predict": predict(folder),
        "conventional MONAI": [sys.executable, script, folder / "ct.nii.gz", folder / "conventional", weights],
        "liverseg predict, two CTs": predict(folder, "pair"),
        "liverseg predict, 3 slices of 64 x 64": predict(folder, "short.nii.gz"),
        "import torch, monai": [sys.executable, "-c", "import torch, monai"],
    }
    if autocast_dtype("cpu") is not None:
        lines[IN_FLOAT32] = predict(folder, "ct.nii.gz", "--amp", "false", output="float32")
    if torch.cuda.is_available():
        lines["liverseg predict, GPU"] = predict(folder, device="cuda", output="gpu")
    runs: dict[str, list[Run]] = {name: [] for name in lines}
    bounds = []
    for number in range(rounds):
        bounds.append(lower_bound(folder))
        for name, command in lines.items():
            if name not in ("conventional MONAI", IN_FLOAT32) or number % 2 == 0:
                runs[name].append(timed(command))
                print(f"round {number + 1}: {name} {runs[name][-1].seconds:.1f} s", file=sys.stderr, flush=True)
    facts = examine()
    print(describe({chapter: facts[chapter] for chapter in ("software", "processor")}))
    for name, command in lines.items():
        print(f"{name}: {shlex.join(map(str, command))}")
    single, conventional, pair, short, imports, *_ = (
        statistics.median(run.seconds for run in found) for found in runs.values()
    )
    bound = statistics.median(bound["seconds"] for bound in bounds)
    rate = statistics.median(bound["rate"] for bound in bounds)
    for name, found in runs.items():
        seconds, memory = ([getattr(run, field) for run in found] for field in ("seconds", "memory_mb"))
        listed = " ".join(f"{value:.1f}" for value in seconds)
        print(f"{name}: {statistics.median(seconds):.1f} s ({listed}), {statistics.median(memory):.0f} MB")
    operations = bounds[0]["operations"] / 1e12
    print(f"lower bound: {bound:.1f} s, {rate / 1e9:.0f} GFLOP/s, {operations:.2f} TFLOP in the liver's box")
    print(f"conventional / ours {conventional / single:.2f}, target >= 12")
    print(f"ours / lower bound {single / bound:.2f}, target <= 1.8")
    print(f"start-up / imports {short / imports:.2f}, target <= 1.5")
    print(f"a second CT {pair - single:.1f} s, target at most one CT without start-up, {single - short:.1f} s")
    record = json.loads((folder / "ours" / "ct" / "record.json").read_text(encoding="utf-8"))
    print(
        "stages of the last run:", ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in record["seconds"].items())
    )
    results = {"ours": folder / "ours" / "ct" / "labels.nii.gz"}
    results["conventional"] = next((folder / "conventional").rglob("*.nii.gz"))
    results |= {name: folder / name / "ct" / "labels.nii.gz" for name in ("float32", "gpu")}
    for name, labels in results.items():
        if labels.is_file():
            print(f"Dice, {name}: liver {dice(folder, labels, 1):.3f}, lesions {dice(folder, labels, 2):.3f}")
            print(f"  share of float32's liver with equal labels {agreement(folder, labels):.4%}")


def memory(folder: Path) -> None:
    """Print the peak memory of 200 and of 1000 slices, and its growth relative to the volume's int16 bytes."""
    tall = folder / "tall.nii.gz"
    if not tall.is_file():
        image = nib.load(folder / "ct.nii.gz")
        parts = [np.asarray(image.dataobj)] * 5  # five bodies stacked; only the largest liver is kept
        nib.save(nib.Nifti1Image(np.concatenate(parts, axis=2), image.affine), tall)
    found = {}
    for slices, ct in ((SLICES, "ct.nii.gz"), (5 * SLICES, "tall.nii.gz")):
        command = predict(folder, ct)
        found[slices] = timed(command).memory_mb
        print(shlex.join(map(str, command)))
        print(f"512 x 512 x {slices}: {found[slices]:.0f} MB at the peak")
    added = MATRIX * MATRIX * 4 * SLICES * 2 / 2**20
    print(f"growth relative to the added int16 bytes: {(found[5 * SLICES] - found[SLICES]) / added:.2f}, target <= 1.2")
    weights = ("--weights", str(over_segmenting(folder)))  # argparse takes the last of an option's values
    command = predict(folder, "ct.nii.gz", *weights, *EVERY_LESION, output="false_lesions")
    run = timed(command)
    lesions = len((folder / "false_lesions" / "ct" / "lesions.csv").read_text(encoding="utf-8").splitlines()) - 1
    print(shlex.join(map(str, command)))
    print(f"{lesions} lesions: {run.memory_mb:.0f} MB, {run.memory_mb / found[SLICES]:.2f} times as much, target < 3")


def over_segmenting(folder: Path) -> Path:
    """Write the weights of a network that labels hundreds of false lesions, and return their path.

    Its logit of lesions is raised, so that every voxel with a small probability of lesion becomes one.
    """
    path, tensors = folder / "over_segmenting.safetensors", read_weights(folder / "full.safetensors")
    tensors["head.bias"] = tensors["head.bias"] + torch.tensor([0.0] * LESION + [RAISED_BY])
    export_weights(path, tensors, read_record(folder / "full.safetensors"))
    return path


def nnunet(folder: Path, python: Path, rounds: int) -> None:
    """Print the seconds of nnU-Net's default 2-D configuration, with and without mirroring, relative to ours."""
    lines = {
        "liverseg predict": predict(folder),
        "nnU-Net 2-D": [python, HERE / "nnunet_inference.py", folder],
        "nnU-Net 2-D, no mirroring": [python, HERE / "nnunet_inference.py", folder, "--no-mirroring"],
    }
    runs: dict[str, list[float]] = {name: [] for name in lines}
    for name, command in lines.items():
        print(f"{name}: {shlex.join(map(str, command))}")
    for number in range(rounds):
        for name, command in lines.items():
            runs[name].append(timed(command).seconds)
            print(f"round {number + 1}: {name} {runs[name][-1]:.1f} s", file=sys.stderr, flush=True)
    ours = statistics.median(runs["liverseg predict"])
    for name, seconds in runs.items():
        print(f"{name:40} {statistics.median(seconds):7.1f} s   {statistics.median(seconds) / ours:7.2f} of ours")


def main() -> None:
    """Run the chosen task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["prepare", "measure", "memory", "nnunet"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=8, help="epochs of training in prepare")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--python", type=Path, help="Python of the environment with nnunetv2")
    args = parser.parse_args()
    if args.task == "prepare":
        prepare(args.folder, args.epochs)
    elif args.task == "measure":
        measure(args.folder, args.rounds)
    elif args.task == "memory":
        memory(args.folder)
    elif args.python is None:
        parser.error("nnunet needs --python")
    else:
        nnunet(args.folder, args.python, args.rounds)


if __name__ == "__main__":
    main()
