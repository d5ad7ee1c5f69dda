"""Measure the shapes of synthetic lesions and the speed of synthesis, and draw examples.

    python benchmarks/synthetic_lesions.py shapes
    python benchmarks/synthetic_lesions.py speed LIST [--dataset-dir FOLDER]
    python benchmarks/synthetic_lesions.py pictures LIST picture.png [--dataset-dir FOLDER]

`shapes` prints quantiles of synthetic lesions and of 913 real lesions in 131 outlines of LiTS. `speed` times slabs of a
data list with and without synthesis, and a training step of the small network. `pictures` draws slices of the list:
unchanged, with synthetic lesions, and with labels (green: liver, purple: liver or lesion, otherwise the type's colour).
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from liverseg.datalists import read_datalist
from liverseg.datasets import SlabDataset
from liverseg.labels import JOINT_LABELS, LIVER_OR_LESION
from liverseg.networks import SEResUNet
from liverseg.synthesis import draw_count, draw_diameter, draw_shape
from liverseg.transforms import RandSyntheticLesionsd

_PERCENT = [5, 25, 50, 75, 95]
_REAL = {
    "diameter, mm": [3.0, 6.6, 10.2, 17.4, 41.8],
    "lesions a patient": [1, 1, 4.5, 10, 23],
    "longest / shortest side": [1.09, 1.22, 1.39, 1.82, 4.56],
    "volume / box": [0.20, 0.30, 0.38, 0.45, 0.57],
}
_ROUNDS = 5
_BATCH = 16
_CROP = 192


def main() -> None:
    """Run the chosen task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest="task", required=True)
    tasks.add_parser("shapes")
    for name in ("speed", "pictures"):
        task = tasks.add_parser(name)
        task.add_argument("list", type=Path)
        task.add_argument("--dataset-dir", type=Path)
        if name == "pictures":
            task.add_argument("output", type=Path)
            task.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.task == "shapes":
        shapes()
    elif args.task == "speed":
        speed(slabs(args))
    else:
        pictures(slabs(args), args.seed).save(args.output)


def slabs(args: argparse.Namespace) -> SlabDataset:
    """Return slabs of the list's items with liver masks, read directly from their files."""
    listed = read_datalist(args.list)
    items = [item for item in listed.training if item.label is not None]
    return SlabDataset(items, args.dataset_dir or args.list.parent, None, max(map(int, listed.labels)) + 1)


def shapes() -> None:
    """Print quantiles of synthetic and of real lesions."""
    rng = np.random.default_rng(0)
    drawn: dict[str, list[float]] = {name: [] for name in _REAL}
    drawn["diameter, mm"] = [draw_diameter(rng) for _ in range(5000)]
    drawn["lesions a patient"] = [draw_count(rng) for _ in range(5000)]
    for diameter in drawn["diameter, mm"][:600]:
        if diameter < 8:  # smaller lesions have only a few voxels, whatever their shape
            continue
        shape = draw_shape(rng, diameter)
        thickness, pixel = rng.choice([0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 5.0]), 0.75
        z, y = np.arange(-shape.reach, shape.reach, thickness), np.arange(-shape.reach, shape.reach, pixel)
        found = np.argwhere(shape.distance(shape.round_frame(z, y, y)) < 0)
        box = (found.max(axis=0) - found.min(axis=0) + 1) * (thickness, pixel, pixel)
        drawn["longest / shortest side"].append(box.max() / box.min())
        drawn["volume / box"].append(len(found) * thickness * pixel**2 / box.prod())
    for name, real in _REAL.items():
        synthetic = ", ".join(f"{value:.2f}" for value in np.percentile(drawn[name], _PERCENT))
        print(f"{name}: drawn {synthetic}; real {', '.join(f'{value:g}' for value in real)}")


def speed(data: SlabDataset) -> None:
    """Print milliseconds per slab of reading, of synthesis and of the network's training step."""
    transform = RandSyntheticLesionsd(data.labels, prob=1.0, distractor_prob=1.0)
    numbers = np.random.default_rng(0).permutation(np.flatnonzero(data.may_have_lesion))[:64]
    network = SEResUNet("small", out_channels=data.labels).to(memory_format=torch.channels_last)
    batch = torch.randn(_BATCH, 3, _CROP, _CROP).contiguous(memory_format=torch.channels_last)
    times: dict[str, list[float]] = {"reading": [], "reading and synthesis": [], "training step": []}
    for number in range(_ROUNDS):
        for name, used in (("reading", None), ("reading and synthesis", transform)):
            data.transform = used
            start = time.perf_counter()
            for index in numbers:
                data[(number, int(index))]
            times[name].append((time.perf_counter() - start) / len(numbers))
        start = time.perf_counter()
        loss = sum(out.float().square().mean() for out in network.train()(batch).unbind(1))
        loss.backward()
        times["training step"].append((time.perf_counter() - start) / _BATCH)
    medians = {name: 1000 * statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        print(f"{name}: {median:.1f} ms a slab")
    synthesis = medians["reading and synthesis"] - medians["reading"]
    print(f"synthesis is {synthesis / medians['training step']:.0%} of a training step, float32, of {_CROP}² pixels")


def pictures(data: SlabDataset, seed: int) -> Image.Image:
    """Draw twelve slices in three columns each."""
    colours = {label.index: label.color for label in JOINT_LABELS} | {1: (0, 130, 0), LIVER_OR_LESION: (160, 0, 160)}
    rng = np.random.default_rng(seed)
    tiles = []
    for index in rng.permutation(np.flatnonzero(data.may_have_lesion))[:12]:
        before = data[(seed, int(index))]
        transform = RandSyntheticLesionsd(data.labels, prob=1.0, distractor_prob=0.7)
        after = transform.set_random_state(seed=seed * 1000 + int(index))(before)
        original, changed = (_grey(slab["image"][1].numpy()) for slab in (before, after))
        labelled = changed.copy()
        label = after["label"][0].numpy()
        for value, colour in colours.items():
            if value:
                mask = label == value
                labelled[mask] = (0.6 * labelled[mask] + 0.4 * np.array(colour)).astype(np.uint8)
        tiles.append(np.concatenate([_square(part) for part in (original, changed, labelled)], axis=1))
    rows = [np.concatenate(tiles[start : start + 2], axis=1) for start in range(0, len(tiles) - 1, 2)]
    return Image.fromarray(np.concatenate(rows))


def _grey(hu: np.ndarray) -> np.ndarray:
    return np.repeat(np.clip((hu + 10) / 210 * 255, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def _square(picture: np.ndarray) -> np.ndarray:
    """Return the upper left three quarters, which contain the liver, on 320 x 320 pixels."""
    rows, columns = picture.shape[:2]
    cut = Image.fromarray(picture[rows // 8 : rows * 7 // 8, : columns * 3 // 4])
    return np.asarray(cut.resize((320, 320), Image.Resampling.BICUBIC))


if __name__ == "__main__":
    main()
