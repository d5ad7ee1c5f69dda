"""How long does a CT take from the command to the last file written, and how much memory?

    python benchmarks/inference_speed.py prepare FOLDER            # a CT and a full-size network that knows the liver
    python benchmarks/inference_speed.py measure FOLDER            # all lines of the table but nnU-Net's
    python benchmarks/inference_speed.py memory FOLDER             # peak memory, also of 1000 slices
    python benchmarks/inference_speed.py nnunet FOLDER --python NNUNET_VENV/bin/python

The CT is a phantom of 512 x 512 x 200 voxels of 0.75 x 0.75 x 1.5 mm. The network is the full SE-ResNet-50 of the
pre-training bundle, trained on phantoms for a few epochs: it must find the liver, how well does not matter. Each line
is a process of its own, timed from outside; lines take turns, and figures are medians. `nnunet` needs an environment
of its own with the same torch and nnunetv2; its network is untrained, which changes nothing about its speed.
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
from liverseg.networks import SEResUNet
from liverseg.phantom.patient import Coverage, make_phantom
from liverseg.utils.precision import autocast_dtype

HERE = Path(__file__).parent
SPACING, SLICES, MATRIX = (0.75, 0.75, 1.5), 200, 512
BETWEEN = """
import resource, subprocess, sys, time
start = time.perf_counter()
status = subprocess.run(sys.argv[1:]).returncode
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""
IN_FLOAT32 = "liverseg predict, float32"


@dataclass(frozen=True)
class Run:
    """One process: seconds of wall time and its peak resident memory in MB."""

    seconds: float
    memory_mb: float


def timed(command: Sequence[str | Path]) -> Run:
    """Run a command to its end, its output in the terminal only if it fails.

    A small process between starts and times it: a child of this one would begin with this one's peak of memory.
    """
    between = [sys.executable, "-S", "-c", BETWEEN, *map(str, command)]
    result = subprocess.run(between, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
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
    """The first phantom of 1.5 mm slices, cut or filled to 200, on the stated grid."""
    for seed in range(100):
        phantom = make_phantom(
            np.random.SeedSequence((77, seed)), matrix=MATRIX, coverage=Coverage.ABDOMEN, main_type="metastasis"
        )
        if phantom.facts["thickness_mm"] == SPACING[2]:
            break
    affine = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    lacking = max(0, SLICES - phantom.image.shape[2])
    for name, array in (("ct", phantom.image), ("truth", np.minimum(phantom.label, 2).astype(np.uint8))):
        whole = np.pad(array, ((0, 0), (0, 0), (lacking, 0)), mode="edge")[:, :, -SLICES:]
        nib.save(nib.Nifti1Image(whole, affine), folder / f"{name}.nii.gz")
        if name == "ct":
            nib.save(nib.Nifti1Image(whole[200:264, 200:264, 99:102], affine), folder / "short.nii.gz")


def predict(
    folder: Path, ct: Path | str = "ct.nii.gz", *options: str, device: str = "cpu", output: str = "ours"
) -> list[str | Path]:
    """The command a user types, with the pre-training bundle."""
    command = [Path(sys.executable).parent / "liverseg", "predict", folder / ct, folder / output, "--device", device]
    weights = ["--weights", folder / "full.safetensors", "--bundle", find_bundle("liver_lesion_pretrain")]
    return [*command, *weights, *options]


def floor(folder: Path) -> dict[str, float]:
    """What cannot be saved: decompressing the file, and the network's operations inside the liver's box."""
    start = time.perf_counter()
    with igzip.open(folder / "ct.nii.gz", "rb") as file:
        while file.read(1 << 20):
            pass
    reading = time.perf_counter() - start
    box = bounding_box(np.asarray(nib.load(folder / "truth.nii.gz").dataobj).transpose(2, 1, 0))
    if box is None:
        raise SystemExit(f"{folder / 'truth.nii.gz'}: no liver in it")
    side = 256
    network = SEResUNet("full", out_channels=3).eval()
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        network(torch.zeros(1, 3, side, side))
    operations = counter.get_total_flops() / side**2 * math.prod(box_shape(box))
    rate = best_rate()
    return {"read": reading, "operations": operations, "rate": rate, "seconds": reading + operations / rate}


def best_rate() -> float:
    """Operations a second of this machine's best matrix product, in the format inference would take."""
    best, dtype = 0.0, autocast_dtype("cpu") or torch.float32
    with torch.inference_mode():
        for size in (1024, 2048, 4096):
            one, other = (torch.randn(size, size).to(dtype) for _ in range(2))
            for _ in range(2**32 // size**3 + 6):
                start = time.perf_counter()
                torch.mm(one, other)
                best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def dice(folder: Path, labels: Path, least: int) -> float:
    """Dice of all labels from a least one on, of a label map on the CT's own grid."""
    truth, found = (np.asarray(nib.load(path).dataobj) >= least for path in (folder / "truth.nii.gz", labels))
    return 2 * float((truth & found).sum()) / float(truth.sum() + found.sum())


def alike(folder: Path, labels: Path) -> float:
    """Share of the liver of float32's result (ours, where the CPU has no bfloat16) that has the same labels."""
    reference = next(path for path in (folder / "float32", folder / "ours") if path.is_dir()) / "ct" / "labels.nii.gz"
    expected, found = (np.asarray(nib.load(path).dataobj) for path in (reference, labels))
    return float((found == expected)[expected >= 1].mean())


def measure(folder: Path, rounds: int) -> None:
    """Print the table; conventional inference runs in every other round, for the time it takes."""
    weights, bundle = folder / "full.safetensors", HERE / "conventional_inference.py"
    (folder / "pair").mkdir(exist_ok=True)
    for name in ("one.nii.gz", "two.nii.gz"):
        if not (folder / "pair" / name).exists():
            os.link(folder / "ct.nii.gz", folder / "pair" / name)
    lines = {
        "liverseg predict": predict(folder),
        "conventional MONAI": [sys.executable, bundle, folder / "ct.nii.gz", folder / "conventional", weights],
        "liverseg predict, two CTs": predict(folder, "pair"),
        "liverseg predict, 3 slices of 64 x 64": predict(folder, "short.nii.gz"),
        "import torch, monai": [sys.executable, "-c", "import torch, monai"],
    }
    if autocast_dtype("cpu") is not None:
        lines[IN_FLOAT32] = predict(folder, "ct.nii.gz", "--amp", "false", output="float32")
    if torch.cuda.is_available():
        lines["liverseg predict, GPU"] = predict(folder, device="cuda", output="gpu")
    runs: dict[str, list[Run]] = {name: [] for name in lines}
    floors = []
    for number in range(rounds):
        floors.append(floor(folder))
        for name, command in lines.items():
            if name not in ("conventional MONAI", IN_FLOAT32) or number % 2 == 0:
                runs[name].append(timed(command))
                print(f"round {number + 1}: {name} {runs[name][-1].seconds:.1f} s", file=sys.stderr, flush=True)
    facts = examine()
    print(describe({chapter: facts[chapter] for chapter in ("software", "processor")}))
    for name, command in lines.items():
        print(f"{name}: {shlex.join(map(str, command))}")
    one, conventional, two, short, imports, *_ = (
        statistics.median(run.seconds for run in found) for found in runs.values()
    )
    lowest = statistics.median(one["seconds"] for one in floors)
    rate = statistics.median(one["rate"] for one in floors)
    for name, found in runs.items():
        seconds, memory = ([getattr(run, what) for run in found] for what in ("seconds", "memory_mb"))
        listed = " ".join(f"{value:.1f}" for value in seconds)
        print(f"{name}: {statistics.median(seconds):.1f} s ({listed}), {statistics.median(memory):.0f} MB")
    operations = floors[0]["operations"] / 1e12
    print(f"floor: {lowest:.1f} s, {rate / 1e9:.0f} GFLOP/s, {operations:.2f} TFLOP in the liver's box")
    print(f"conventional / ours {conventional / one:.2f}, wanted >= 12")
    print(f"ours / floor {one / lowest:.2f}, wanted <= 1.8")
    print(f"start-up / imports {short / imports:.2f}, wanted <= 1.5")
    print(f"a second CT {two - one:.1f} s; one less start-up {one - short:.1f} s, wanted no more")
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
            print(f"  of float32's liver labelled alike {alike(folder, labels):.4%}")


def memory(folder: Path) -> None:
    """Print the peak memory of 200 and of 1000 slices, and how it grows with the volume's int16 bytes."""
    tall = folder / "tall.nii.gz"
    if not tall.is_file():
        image = nib.load(folder / "ct.nii.gz")
        parts = [np.asarray(image.dataobj)] * 5  # five bodies one above the other; the largest liver is kept
        nib.save(nib.Nifti1Image(np.concatenate(parts, axis=2), image.affine), tall)
    found = {}
    for slices, ct in ((SLICES, "ct.nii.gz"), (5 * SLICES, "tall.nii.gz")):
        command = predict(folder, ct)
        found[slices] = timed(command).memory_mb
        print(shlex.join(map(str, command)))
        print(f"512 x 512 x {slices}: {found[slices]:.0f} MB at the peak")
    added = MATRIX * MATRIX * 4 * SLICES * 2 / 2**20
    print(f"growth over the int16 bytes added: {(found[5 * SLICES] - found[SLICES]) / added:.2f}, wanted <= 2")


def nnunet(folder: Path, python: Path, rounds: int) -> None:
    """Print the seconds of nnU-Net's default 2-D configuration, with mirroring and without, beside ours."""
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
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["prepare", "measure", "memory", "nnunet"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=12, help="of prepare's training")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--python", type=Path, help="of the environment with nnunetv2")
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
