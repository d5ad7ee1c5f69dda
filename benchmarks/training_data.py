"""Measure whether training waits for its data: slabs, epochs and memory on twenty volumes of 512 x 512 x 200.

    liverseg phantom PHANTOMS --kind lits --volumes 4
    python benchmarks/training_data.py PHANTOMS/lits SCRATCH

The twenty volumes repeat the phantoms' slices forwards and backwards up to 200 slices. Each volume is shifted by a
different number of pixels. They are written as LiTS files into SCRATCH (about 1 GB) unless they exist, and prepared.

Slabs: read three slices and a label, crop to 320 x 320 and apply the window, relative to only decompressing the same
chunks from the page cache, in random and in sequential order.
Epochs: steps of the pre-training bundle's small network with its loader and augmentation, relative to the same number
of steps on a batch in memory, for a crop of 320 with batch 8, and for the crop and batch size of the phantom overlay,
which is made for smaller slices. Both without validation.
Memory: peak of a process that reads every slab of 5 and of 20 volumes and trains the same number of steps.

Figures are medians of five rounds, and the compared variants take turns.
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
    """Write the volumes, their labels and a data list."""
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
            order = np.abs((np.arange(SLICES) + depth - 1) % (2 * depth - 2) - (depth - 1))  # forwards and backwards
            shifted = np.roll(volume.array[..., order], (3 * number, 5 * number), (0, 1)).astype(dtype)
            content = nib.Nifti1Image(shifted, volume.affine).to_bytes()
            target.write_bytes(igzip.compress(content, compresslevel=2))
    build_datalist("lits", root)


def medians(measurements: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Run the measurements in turns and return the median result of each, after one warm-up round."""
    results: dict[str, list[float]] = {name: [] for name in measurements}
    for _ in range(ROUNDS + 1):
        for name, measurement in measurements.items():
            results[name].append(measurement())
    return {name: statistics.median(values[1:]) for name, values in results.items()}


def slab_rates(dataset: SlabDataset) -> None:
    """Print slabs per second, also relative to decompressing their chunks."""
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
    found = medians(
        {
            "decompress only, random": rate(bare.read, True),
            "decompress only, sequential": rate(bare.read, False),
            "slabs, random": rate(slab, True),
            "slabs, sequential": rate(slab, False),
        }
    )
    print("\n| | slabs/s | relative to decompressing |\n|---|---|---|")
    for name, value in found.items():
        reference = found["decompress only, " + name.split(", ")[1]]
        print(f"| {name} | {value:.0f} | {value / reference:.2f} |")
    print(f"\nrandom / sequential: {found['slabs, random'] / found['slabs, sequential']:.2f}")


class Chunks:
    """Chunks of every slice, located in the files as `SliceFile` does and read without verification."""

    def __init__(self, dataset: SlabDataset) -> None:
        self.volumes = [dataset.store[item] for item in dataset.data]
        self.files = {
            slices.path: slices.path.open("rb") for stored in self.volumes for slices in (stored.image, stored.label)
        }

    def read(self, volume: int, middle: int) -> None:
        """Decompress a slab's three slices and its label."""
        stored = self.volumes[volume]
        numbers = [max(0, middle - 1), middle, min(stored.depth - 1, middle + 1)]
        for slices, chosen in ((stored.image, numbers), (stored.label, [middle])):
            assert isinstance(slices, SliceFile)
            target = np.empty(slices.shape[1:], slices.dtype)
            for number in chosen:
                start, end = slices._starts[number], slices._starts[number + 1]
                self.files[slices.path].seek(start)
                blosc.decompress(self.files[slices.path].read(end - start), target)


def workflow(root: Path, scratch: Path, **overrides: Any) -> ConfigWorkflow:
    """Return the initialised pre-training with the phantom overlay."""
    folder = find_bundle("liver_lesion_pretrain")
    training = ConfigWorkflow(
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
    training.initialize()
    return training


class Steps:
    """Loader of the first batches of another loader, or of its first batch repeatedly."""

    def __init__(self, loader: Any, repeat: bool = False) -> None:
        self.loader, self.repeat = loader, repeat

    def __len__(self) -> int:
        return STEPS

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(iter(self.loader)):
            if self.repeat:
                yield from [batch] * STEPS
                return
            if number == STEPS:
                return
            yield batch


def epoch_ratio(root: Path, scratch: Path, crop_size: int, batch_size: int) -> None:
    """Print seconds of an epoch from the cache, relative to steps on one batch in memory."""
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

    found = medians(
        {
            "one batch in memory": seconds(Steps([ready], repeat=True), lambda batch, *_, **__: batch),
            "from the cache, augmented": seconds(Steps(loader), prepare),
        }
    )
    reference = found["one batch in memory"]
    print(f"\n| {STEPS} steps, crop {crop_size}, batch {batch_size} | seconds | ratio |\n|---|---|---|")
    for name, value in found.items():
        print(f"| {name} | {value:.2f} | {value / reference:.3f} |")


def print_peak_memory(root: Path, scratch: Path, volumes: int) -> None:
    """Read every slab of the first volumes, train some steps and print this process's peak memory in MB."""
    datalist = scratch / f"first-{volumes}.json"
    content = json.loads((root / "datalist.json").read_text())
    content["training"] = content["training"][:volumes]
    datalist.write_text(json.dumps(content))
    training = workflow(root, scratch, datalist=str(datalist), lesion_free=0.15)
    parser = training.parser
    loader, prepare = parser.get_parsed_content("train::dataloader"), parser.get_parsed_content("train::prepare_batch")
    dataset = parser.get_parsed_content("train::dataset")
    for number in range(len(dataset)):
        dataset[number]  # training on every slab would take long, so they are only read
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
    """Print peak memory of trainings on few and on many volumes, each in a separate process."""

    def peak(volumes: int) -> float:
        command = [sys.executable, __file__, str(phantoms), str(scratch), "--train", str(volumes)]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return float(output.split("PEAK ")[1])

    found = {volumes: statistics.median(peak(volumes) for _ in range(ROUNDS)) for volumes in (5, VOLUMES)}
    print("\n| volumes | peak, MB |\n|---|---|")
    for volumes, value in found.items():
        print(f"| {volumes} | {value:.0f} |")
    print(f"\n{VOLUMES} relative to 5: {found[VOLUMES] / found[5]:.3f}")


def main() -> None:
    """Write and prepare the volumes, then run the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lits", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--train", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    root, scratch = args.scratch / "lits", args.scratch
    if args.train:
        print_peak_memory(root, scratch, args.train)
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
