"""Does training wait for its data? Slabs, epochs and memory on twenty volumes of 512 x 512 x 200.

    liverseg phantom PHANTOMS --kind lits --volumes 4
    python benchmarks/training_data.py PHANTOMS/lits SCRATCH

The twenty volumes are the phantoms' slices, to and fro until there are 200, in each volume shifted by another number of
pixels; they are written as LiTS files into SCRATCH (about 1 GB) unless they are there, and prepared.

Slabs: three slices and a label read, cut to 320 x 320 and windowed, against decompressing the same chunks from the page
cache and doing nothing with them; in random and in sequential order.
Epochs: steps of the pre-training bundle's small network with its own loader and augmentation, against the same number
on a batch that lies ready, for the bundle's own crop and batch and for those of the phantom overlay, which is made for
smaller slices. Both without validation.
Memory: peak of a process that reads every slab of 5 and of 20 volumes and trains those steps.

Medians of five rounds, what is compared taking turns.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from isal import igzip
from monai.bundle import ConfigWorkflow
from monai.engines import SupervisedTrainer
from numcodecs import blosc

from liverseg.datalists import build_datalist, read_datalist
from liverseg.datasets import SlabDataset
from liverseg.datasets.prepare import prepare_datalist
from liverseg.datasets.slice_readers import SliceFile
from liverseg.imageio.volume import read_volume
from liverseg.inference import find_bundle
from liverseg.transforms import HUWindow

VOLUMES, SLICES, ROUNDS, READS, CROP, STEPS = 20, 200, 5, 400, 320, 30


def make_tree(phantoms: Path, root: Path) -> None:
    """Write the volumes, the labels with them."""
    sources = sorted(phantoms.glob("volume-*.nii.gz"), key=lambda path: path.name)
    if not sources:
        raise SystemExit(f"{phantoms}: no volume-N.nii.gz; make phantoms first")
    root.mkdir(parents=True, exist_ok=True)
    for number in range(VOLUMES):
        source = sources[number % len(sources)]
        for kind, dtype in (("volume", np.int16), ("segmentation", np.uint8)):
            target = root / f"{kind}-{number}.nii.gz"
            if target.exists():
                continue
            volume = read_volume(source.with_name(source.name.replace("volume", kind)))
            depth = volume.array.shape[2]
            order = np.abs((np.arange(SLICES) + depth - 1) % (2 * depth - 2) - (depth - 1))  # to and fro
            moved = np.roll(volume.array[..., order], (3 * number, 5 * number), (0, 1)).astype(dtype)
            content = nib.Nifti1Image(moved, volume.affine).to_bytes()
            target.write_bytes(igzip.compress(content, compresslevel=2))
    build_datalist("lits", root)


def in_turn(ways: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Median of what each way returns, after one round that does not count."""
    results: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS + 1):
        for name, way in ways.items():
            results[name].append(way())
    return {name: statistics.median(measured[1:]) for name, measured in results.items()}


def slab_rates(dataset: SlabDataset) -> None:
    """Slabs a second, against decompressing their chunks."""
    window = HUWindow()
    depth = dataset.store[dataset.data[0]].depth
    rng = np.random.default_rng(0)

    def places(shuffled: bool) -> list[tuple[int, int]]:
        if shuffled:
            return [(int(rng.integers(VOLUMES)), int(rng.integers(depth))) for _ in range(READS)]
        start = int(rng.integers(len(dataset) - READS))
        return [divmod(start + step, depth) for step in range(READS)]

    def slab(volume: int, middle: int) -> torch.Tensor:
        element = dataset[volume * depth + middle]
        top, left = rng.integers(element["image"].shape[1] - CROP + 1, size=2)
        crop = slice(int(top), int(top) + CROP), slice(int(left), int(left) + CROP)
        return window(element["image"][:, crop[0], crop[1]])

    def rate(read: Callable[[int, int], Any], shuffled: bool) -> Callable[[], float]:
        def measured() -> float:
            chosen = places(shuffled)
            start = time.perf_counter()
            for volume, middle in chosen:
                read(volume, middle)
            return READS / (time.perf_counter() - start)

        return measured

    bare = Chunks(dataset)
    found = in_turn(
        {
            "decompress only, random": rate(bare.read, True),
            "decompress only, sequential": rate(bare.read, False),
            "slabs, random": rate(slab, True),
            "slabs, sequential": rate(slab, False),
        }
    )
    print("\n| | slabs/s | of decompressing |\n|---|---|---|")
    for name, value in found.items():
        against = found["decompress only, " + name.split(", ")[1]]
        print(f"| {name} | {value:.0f} | {value / against:.2f} |")
    print(f"\nrandom / sequential: {found['slabs, random'] / found['slabs, sequential']:.2f}")


class Chunks:
    """The chunks of every slice as they lie in the files, found the way `SliceFile` does, read without any check."""

    def __init__(self, dataset: SlabDataset) -> None:
        self.volumes = [dataset.store[item] for item in dataset.data]
        self.files = {slices.path: slices.path.open("rb") for one in self.volumes for slices in (one.image, one.label)}

    def read(self, volume: int, middle: int) -> None:
        """Decompress a slab's three slices and its label."""
        stored = self.volumes[volume]
        numbers = [max(0, middle - 1), middle, min(stored.depth - 1, middle + 1)]
        for slices, wanted in ((stored.image, numbers), (stored.label, [middle])):
            assert isinstance(slices, SliceFile)
            target = np.empty(slices.shape[1:], slices.dtype)
            for number in wanted:
                start, end = slices._starts[number], slices._starts[number + 1]
                self.files[slices.path].seek(start)
                blosc.decompress(self.files[slices.path].read(end - start), target)


def workflow(root: Path, scratch: Path, **overrides: Any) -> ConfigWorkflow:
    """The pre-training of the phantom overlay, initialised."""
    folder = find_bundle("liver_lesion_pretrain")
    made = ConfigWorkflow(
        [str(folder / "configs" / f"{name}.yaml") for name in ("train", "phantom")],
        workflow_type="train",
        logging_file=False,
        bundle_root=str(folder),
        dataset_dir=str(root),
        cache_dir=str(scratch / "cache"),
        output_dir=str(scratch / "run"),
        ckpt_dir=str(scratch / "run" / "models"),
        progress=False,
        **overrides,
    )
    made.initialize()
    return made


class Steps:
    """The first batches of a loader, as a loader of its own; or one batch again and again."""

    def __init__(self, loader: Any, again: bool = False) -> None:
        self.loader, self.again = loader, again

    def __len__(self) -> int:
        return STEPS

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(iter(self.loader)):
            if self.again:
                yield from [batch] * STEPS
                return
            if number == STEPS:
                return
            yield batch


def epoch_ratio(root: Path, scratch: Path, crop_size: int, batch_size: int) -> None:
    """Seconds of an epoch from the cache, against steps on one batch that lies ready."""
    parser = workflow(root, scratch, crop_size=crop_size, batch_size=batch_size).parser
    loader = parser.get_parsed_content("train::dataloader")
    prepare = parser.get_parsed_content("train::prepare_batch")
    ready = prepare(next(iter(loader)), "cpu")
    common = {
        "device": torch.device("cpu"),
        "max_epochs": 1,
        "network": parser.get_parsed_content("network"),
        "optimizer": parser.get_parsed_content("optimizer"),
        "loss_function": parser.get_parsed_content("loss"),
        "inferer": parser.get_parsed_content("train::inferer"),
        "decollate": False,
    }

    def seconds(data: Any, prepare_batch: Callable) -> Callable[[], float]:
        def measured() -> float:
            trainer = SupervisedTrainer(train_data_loader=data, prepare_batch=prepare_batch, **common)
            start = time.perf_counter()
            trainer.run()
            return time.perf_counter() - start

        return measured

    found = in_turn(
        {
            "one batch that lies ready": seconds(Steps([ready], again=True), lambda batch, *_, **__: batch),
            "from the cache, augmented": seconds(Steps(loader), prepare),
        }
    )
    first = found["one batch that lies ready"]
    print(f"\n| {STEPS} steps, crop {crop_size}, batch {batch_size} | seconds | ratio |\n|---|---|---|")
    for name, value in found.items():
        print(f"| {name} | {value:.2f} | {value / first:.3f} |")


def train_and_tell(root: Path, scratch: Path, volumes: int) -> None:
    """Train an epoch of every slab of the first volumes; print this process's peak memory in MB."""
    datalist = scratch / f"first-{volumes}.json"
    content = json.loads((root / "datalist.json").read_text())
    content["training"] = content["training"][:volumes]
    datalist.write_text(json.dumps(content))
    made = workflow(root, scratch, datalist=str(datalist), lesion_free=0.15)
    parser = made.parser
    loader, prepare = parser.get_parsed_content("train::dataloader"), parser.get_parsed_content("train::prepare_batch")
    dataset = parser.get_parsed_content("train::dataset")
    for number in range(len(dataset)):
        dataset[number]  # a whole epoch of every slab would take long; what it reads is read here
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=Steps(loader),
        network=parser.get_parsed_content("network"),
        optimizer=parser.get_parsed_content("optimizer"),
        loss_function=parser.get_parsed_content("loss"),
        inferer=parser.get_parsed_content("train::inferer"),
        prepare_batch=prepare,
        decollate=False,
    )
    trainer.run()
    print(f"PEAK {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}")


def memory(phantoms: Path, scratch: Path) -> None:
    """Peak memory of trainings on few and on many volumes, each in a process of its own."""

    def peak(volumes: int) -> float:
        command = [sys.executable, __file__, str(phantoms), str(scratch), "--train", str(volumes)]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return float(told.split("PEAK ")[1])

    found = {volumes: statistics.median(peak(volumes) for _ in range(ROUNDS)) for volumes in (5, VOLUMES)}
    print("\n| volumes | peak, MB |\n|---|---|")
    for volumes, value in found.items():
        print(f"| {volumes} | {value:.0f} |")
    print(f"\n{VOLUMES} against 5: {found[VOLUMES] / found[5]:.3f}")


def main() -> None:
    """Make what is needed, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lits", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--train", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    root, scratch = args.scratch / "lits", args.scratch
    if args.train:
        train_and_tell(root, scratch, args.train)
        return
    make_tree(args.lits, root)
    print(prepare_datalist(root / "datalist.json", root, scratch / "cache", progress=False).describe())
    items = sorted(read_datalist(root / "datalist.json").training, key=lambda item: item.patient)
    slab_rates(SlabDataset(items, root, scratch / "cache", labels=3, progress=False))
    epoch_ratio(root, scratch, crop_size=320, batch_size=8)
    epoch_ratio(root, scratch, crop_size=128, batch_size=16)
    memory(args.lits, scratch)


if __name__ == "__main__":
    main()
