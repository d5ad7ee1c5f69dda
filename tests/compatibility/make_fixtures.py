"""Write the files of an earlier version that the tests of compatibility read. Run it with that version's code:

    git worktree add /tmp/earlier 1f61592
    PYTHONPATH=/tmp/earlier python tests/compatibility/make_fixtures.py tests/compatibility/data

It runs that version's command line on small CTs, so that today's code writes nothing below `data/`. The path of the
working folder becomes `@FOLDER@`, and that of the checkout `@CHECKOUT@`. Large tensors of checkpoints become zeros, and
weights repeat a short pattern, so that the files are small when compressed.
"""

import io
import json
import lzma
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
import yaml
from liverseg.networks.measuring import MeasuringUNet

import liverseg
from liverseg.labels import JOINT_LABELS, label_names
from liverseg.networks import SEResUNet, SlabInput, WeightsRecord, export_weights, package_versions

TYPES = ("cyst", "hemangioma", "metastasis")
LESION_HU = {"cyst": 5, "hemangioma": 190, "metastasis": 60}
SHAPE, VOXEL_MM = (64, 64, 6), (4.0, 4.0, 5.0)
TIME = 1_700_000_000
"""Modification time of every input in seconds since 1970; a known failure contains the time."""
PATTERN = 61
STEPS = 1000
LARGE = 16
"""Largest number of elements of a checkpoint's tensor that is kept."""


def anatomy(number, depth=SHAPE[2]):
    """Return HU and labels of a body with a liver and one lesion, of the type TYPES[number % 3]."""
    x, y, z = np.meshgrid(*(np.arange(size) for size in (*SHAPE[:2], depth)), indexing="ij")
    body = ((x - 32) / 28) ** 2 + ((y - 32) / 22) ** 2 < 1
    liver = ((x - 24) / 13) ** 2 + ((y - 32) / 14) ** 2 + ((z - depth / 2) / depth) ** 2 < 1
    lesion = (x - 22 - number % 4) ** 2 + (y - 30 - number % 5) ** 2 + (2 * (z - depth // 2)) ** 2 < 30
    kind = TYPES[number % 3]
    hu = np.full(x.shape, -1000)
    for mask, value in ((body, -90), (liver, 115), (lesion, LESION_HU[kind])):
        hu[mask] = value
    labels = liver.astype(np.uint8)
    labels[lesion] = 2 + number % 3
    return (hu + (3 * x + 5 * y + 7 * z) % 9 - 4).astype(np.int16), labels


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([*VOXEL_MM, 1.0])), path)


def cohort(folder):
    """Write twelve patients with a lesion each, and their data list."""
    rows = ["patient,image,mask,slice,lesion_type"]
    for number in range(12):
        hu, labels = anatomy(number)
        save(folder / "images" / f"p{number:02}.nii.gz", hu)
        save(folder / "labels" / f"p{number:02}.nii.gz", labels)
        rows.append(
            f"p{number:02},images/p{number:02}.nii.gz,labels/p{number:02}.nii.gz,{SHAPE[2] // 2},{TYPES[number % 3]}"
        )
    (folder / "slices.csv").write_text("\n".join(rows) + "\n")
    command(
        "datalist",
        "cohort",
        folder,
        "--folds",
        2,
        "--name",
        "hand-made",
        "--from",
        "made by hand",
        "--licence",
        "CC0-1.0",
    )
    return folder


def command(*words):
    """Run the earlier version's `liverseg` and return its exit code."""
    run = subprocess.run([sys.executable, "-m", "liverseg.cli.main", *map(str, words)], check=False)
    print("liverseg", *words, "->", run.returncode, flush=True)
    return run.returncode


def pattern(network):
    """Set a network's weights to a repeated short pattern of numbers, which compresses well."""
    for number, (name, tensor) in enumerate(network.state_dict().items()):
        if not tensor.is_floating_point() or name.endswith(("running_mean", "running_var")):
            continue
        values = np.round(16 * np.random.RandomState(number).standard_normal(PATTERN)) / 16
        values = np.resize(values, tensor.numel()) * ((2 / tensor[0].numel()) ** 0.5 if tensor.ndim > 1 else 0.1)
        if tensor.ndim == 1 and name.endswith("weight"):
            values = 1 + values  # of batch norm
        tensor.copy_(torch.from_numpy(values.astype(np.float32)).reshape(tensor.shape))


def train(network):
    """Train the layers with few weights until the network roughly outlines the lesions of `anatomy`."""
    layers = ("encoder.layer0.", "decoder.stage1.", "decoder.stage2.", "head.")
    trained = [tensor for name, tensor in network.named_parameters() if name.startswith(layers)]
    optimizer = torch.optim.Adam(trained, lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    slices = [(number, index) for number in range(12) for index in range(12)]
    cts = [anatomy(number, depth=12) for number in range(12)]
    network.train()
    for _ in range(STEPS):
        chosen = [slices[at] for at in torch.randperm(len(slices))[:8]]
        slabs = torch.stack([slab(cts[number][0], index) for number, index in chosen])
        labels = torch.from_numpy(np.stack([cts[number][1][:, :, index] for number, index in chosen])).long()
        loss = torch.nn.functional.cross_entropy(network(slabs), labels, weight=torch.tensor([1.0, 1, 2, 2, 2]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    print("loss", float(loss), flush=True)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.bfloat16())


def slab(hu, index):
    """Return three slices as input of the networks; the first and the last slice are repeated outside."""
    near = np.clip([index - 1, index, index + 1], 0, hu.shape[2] - 1)
    window = np.clip((hu[:, :, near] + 200) / 450, 0, 1) * 2 - 1
    return torch.from_numpy(window.astype(np.float32)).permute(2, 0, 1)


def weights(folder):
    """Write exported weights of two networks, and their outputs of a slab."""
    for name, kind in (("joint", SEResUNet), ("ours", MeasuringUNet)):
        network = kind("small", out_channels=5)
        with torch.no_grad():
            pattern(network)
        if name == "joint":
            train(network)
        with torch.no_grad():
            logits = network.eval()(slab(anatomy(1)[0], 3)[None])[..., ::4, ::4]
        record = WeightsRecord(
            kind.__name__, network.arguments(), SlabInput((-200.0, 250.0)), label_names(JOINT_LABELS), "hand-made",
            "ab" * 32, 3, {"val_lesion_dice": 0.5, "val_type_accuracy": float("nan")}, package_versions(), fold=0,
            type_temperature=1.5,
        )  # fmt: skip
        path = folder / f"{name}.safetensors"
        export_weights(path, network.state_dict(), record)
        np.savez_compressed(folder / f"{name}-logits.npz", logits=logits.numpy())


def cases(folder):
    """Write two CTs and a file that is not a CT."""
    for number, name in enumerate(("a", "b")):
        hu, _ = anatomy(number, depth=12)
        save(folder / f"{name}.nii.gz", hu)
    (folder / "broken.nii.gz").write_bytes((folder / "a.nii.gz").read_bytes()[:1000])
    for path in folder.iterdir():
        os.utime(path, (TIME, TIME))


def study(folder, data):
    """Run a study of one fold and one seed, with cells trained for an epoch."""
    content = {
        "name": "hand-made",
        "configs": ["train", "phantom"],
        "dataset_dir": data.name,
        "output_dir": "study",
        "validation_share": 0.5,
        "folds": [0],
        "overrides": {
            "epochs": 1,
            "crop_size": 64,
            "val_interval": 1,
            "device": "cpu",
            "liver_crop": None,
            "cache_dir": None,
        },
        "rows": [{"strategy": ["joint", "ours"], "initialisation": "scratch"}],
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(content))
    command("study", "run", folder / "study.yaml", "--workers", 1)


def without_large_tensors(content):
    """Return the content with zeros in large tensors."""
    if isinstance(content, torch.Tensor):
        return torch.zeros_like(content) if content.numel() > LARGE else content
    if isinstance(content, dict):
        return {key: without_large_tensors(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(map(without_large_tensors, content))
    return content


def copy(folder, target):
    """Copy the files that tests need: texts with the folder's path replaced, weights and checkpoints compressed."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or "cache" in path.parts or "tensorboard" in path.parts or path.suffix == ".lock":
            continue
        place = target / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.name == "checkpoint.pt":
            if "joint-scratch-none" not in path.parts:
                continue
            buffer = io.BytesIO()
            torch.save(without_large_tensors(torch.load(path, weights_only=True)), buffer)
            place.with_name(place.name + ".xz").write_bytes(lzma.compress(buffer.getvalue(), preset=9))
        elif path.suffix == ".safetensors":
            place.with_name(place.name + ".xz").write_bytes(lzma.compress(path.read_bytes(), preset=9))
        elif path.suffix in (".json", ".jsonl", ".csv", ".html", ".yaml", ".log"):
            text = path.read_text(encoding="utf-8").replace(str(folder), "@FOLDER@").replace(sys.executable, "python")
            place.write_text(text.replace(str(Path(liverseg.__file__).parents[1]), "@CHECKOUT@"))
        elif path.suffix != ".pt":
            shutil.copy(path, place)


def main(target):
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve() / "earlier"
        folder.mkdir()
        data = cohort(folder / "cohort")
        weights(folder / "weights")
        cases(folder / "ct")
        given = ("--weights", folder / "weights" / "joint.safetensors", "--device", "cpu")
        command("predict", folder / "ct" / "a.nii.gz", folder / "predict", *given, "--statistics", "--no-preview")
        command("batch", folder / "ct", folder / "batch", *given)
        study(folder, data)
        for path in target.glob("*"):
            if path.is_dir():
                shutil.rmtree(path)
        copy(folder, target)
        (target / "made_with.json").write_text(json.dumps(package_versions()) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
