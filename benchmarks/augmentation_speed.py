"""Time the augmentation for real CT relative to a training step.

    python benchmarks/augmentation_speed.py [--crop 224] [--batch 8] [--rounds 5]

The training step is one of the joint bundle's small network on one batch (forward, loss with deep supervision,
backward, Adam; channels_last, bfloat16 if the CPU supports it). In turns with it, `RandScannerd` draws and
`apply_scanner` computes augmentations of a batch of the same size: with the settings of the overlay real_ct, with
every part for every slab, and with the overlay's settings for slabs that are already clipped to [0, 255] HU. Each
augmentation is the mean of ten batches. Prints medians in ms and their ratio to the step's, and the same for the time
of all processors, which other programs on the machine influence less.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from monai.bundle import ConfigParser

from liverseg.bundle.paths import find_bundle
from liverseg.networks import SEResUNet
from liverseg.training import MarginalDiceCELoss, SlabBatchInferer, StackedDeepSupervisionLoss
from liverseg.transforms import RandScannerd, apply_scanner
from liverseg.utils.precision import autocast_dtype

BATCHES = 10


def training_step(batch: int, crop: int) -> Callable[[], None]:
    """Return a function that trains the small network for one step, as the bundle's trainer does."""
    torch.manual_seed(0)
    network = SEResUNet("small", out_channels=5, deep_supervision=True).to(memory_format=torch.channels_last).train()
    map_loss = MarginalDiceCELoss(
        weight=torch.ones(5), softmax=True, to_onehot_y=True, include_background=False, batch=True, lambda_dice=1.0
    )
    loss, inferer = StackedDeepSupervisionLoss(map_loss), SlabBatchInferer("auto")
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    images, labels = torch.rand(batch, 3, crop, crop) * 2 - 1, torch.randint(0, 5, (batch, 1, crop, crop))

    def step() -> None:
        optimizer.zero_grad()
        loss(inferer(images, network), labels).backward()
        optimizer.step()

    return step


def augmentation(scanner: RandScannerd, batch: int, crop: int, clipped: bool) -> Callable[[], None]:
    """Return a function that draws and applies the augmentation of ten batches."""
    scanner.set_random_state(seed=0)
    # smooth, so that clipped pixels form regions as in fat and air
    coarse = torch.randn(batch, 3, crop // 16, crop // 16) * 200
    images = torch.nn.functional.interpolate(coarse, (crop, crop), mode="bilinear")
    hu_range = torch.tensor([[0.0, 255.0]] * batch) if clipped else None
    images = images.clamp(0, 255) if clipped else images
    offset = torch.zeros(batch)

    def augment() -> None:
        for _ in range(BATCHES):
            drawn = torch.stack([scanner({})["scanner"] for _ in range(batch)])
            apply_scanner(images, drawn, hu_range, offset)

    return augment


def main() -> None:
    """Time the step and the augmentations and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    config = ConfigParser.load_config_file(find_bundle("liver_lesion_joint") / "configs" / "real_ct.yaml")
    overlay = {key: value for key, value in config["scanner_augmentation"].items() if key != "_target_"}
    always = {key: 1 for key in overlay if key.endswith("_prob")} | {"sharpen_prob": 0, "volume_end_prob": 0}
    size = args.batch, args.crop
    variants = {
        "training step": (training_step(*size), 1),
        "numbers of real_ct": (augmentation(RandScannerd(**overlay), *size, clipped=False), BATCHES),
        "every part, every slab": (augmentation(RandScannerd(**{**overlay, **always}), *size, clipped=False), BATCHES),
        "numbers of real_ct, clipped before": (augmentation(RandScannerd(**overlay), *size, clipped=True), BATCHES),
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for _ in range(args.rounds + 1):  # the first round is a warm-up
        for name, (run, repeats) in variants.items():
            start = time.perf_counter(), time.process_time()
            run()
            seconds[name].append(
                ((time.perf_counter() - start[0]) / repeats, (time.process_time() - start[1]) / repeats)
            )
    medians = {name: [*map(statistics.median, zip(*times[1:], strict=True))] for name, times in seconds.items()}
    print(
        f"{args.batch} x 3 x {args.crop} x {args.crop}, {torch.get_num_threads()} threads, "
        f"{autocast_dtype('cpu') or torch.float32}"
    )
    step = medians["training step"]
    for name, (wall, processors) in medians.items():
        print(
            f"{name:35} {1000 * wall:7.1f} ms, {wall / step[0]:.3f} of a step; processors "
            f"{1000 * processors:7.1f} ms, {processors / step[1]:.3f}"
        )


if __name__ == "__main__":
    main()
