"""Script that test_distributed.py runs in two processes: `torchrun ... two_processes.py TREE FOLDER`.

Each process writes its results into FOLDER/0.pt or 1.pt. The same functions, called in the single process of the tests,
compute the expected values.
"""

import sys
from pathlib import Path

import torch
from ignite.engine import Engine
from monai.engines import SupervisedEvaluator
from monai.losses import DiceCELoss
from torch import nn
from torch.utils.data import DataLoader

import liverseg.bundle.setup as bundle
from liverseg.datalists import read_datalist
from liverseg.datasets import SlabDataset, SlabSampler
from liverseg.errors import LiversegError
from liverseg.networks import (
    LesionTypeUNet,
    RegionTypeUNet,
    SEResUNet,
    SlabClassifier,
    SlabInput,
    WeightsRecord,
    YNet,
    package_versions,
    save_state,
)
from liverseg.training import (
    AugmentedBatch,
    CPUSyncBatchNorm,
    DistributedBatchSampler,
    DistributedFoldSampler,
    EpochSeed,
    GlobalBatchLoss,
    GloballySeededNoise,
    PrefetchDataLoader,
    SlabLoss,
    SlabScores,
    StackedDeepSupervisionLoss,
    TypeTemperature,
    fill_cache_once,
    pad_collate,
    sum_over_ranks,
)
from liverseg.transforms import RandScannerd, RandSlabViewd, SlabAugmentation
from liverseg.utils.distributed import barrier, init_process_group, rank, report_once, world_size

GLOBAL_BATCH_SIZE = 8
NETWORKS = {
    "joint": lambda: SEResUNet("small", out_channels=5, deep_supervision=True),
    "ynet": lambda: YNet("small", deep_supervision=True, branch="strong"),
    "classification": lambda: SlabClassifier("small"),
    "ours": lambda: LesionTypeUNet("small", deep_supervision=True),
    "regions": lambda: RegionTypeUNet("small", deep_supervision=True),
}


class WideDeepSupervision(nn.Module):
    """Deep supervision with halving weights in the maps' own dtype; MONAI's converts to float32."""

    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def forward(self, maps, labels):
        return sum(self.loss(logits, labels) / 2**number for number, logits in enumerate(maps.unbind(1)))


def train_steps(kind, slabs, wide=True):
    """Losses and gradients of three steps of a network, the last on the remaining slabs, and its final state."""
    torch.manual_seed(3)
    network = NETWORKS[kind]()
    images, labels = torch.randn(slabs, 3, 64, 64), torch.randint(0, 5, (slabs, 1, 16, 16))
    labels = labels.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    labels[::3] %= 2  # slabs without lesion
    if wide:
        network, images = network.double(), images.double()
    channels = 5 if kind in ("joint", "regions") else 3
    weight = torch.tensor([0.05, 0.3, 1, 0.7, 1.2][:channels], dtype=images.dtype)
    of_map = DiceCELoss(
        softmax=True, to_onehot_y=True, include_background=False, batch=True, weight=weight, lambda_dice=0.5
    )
    loss = SlabLoss((WideDeepSupervision if wide else StackedDeepSupervisionLoss)(of_map), type_weight=0.7)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9)
    losses, gradients, order, run = [], [], range(slabs), network
    if world_size() > 1:
        order = DistributedBatchSampler(range(slabs), GLOBAL_BATCH_SIZE // world_size())
        run, loss = sum_over_ranks(network, torch.device("cpu"), order, some_frozen=True), GlobalBatchLoss(loss, order)
    batches = list(order) if world_size() > 1 else [*torch.arange(slabs).split(GLOBAL_BATCH_SIZE)]

    def step(engine, rows):
        network.freeze(("encoder.layer0", "encoder.layer1") if engine.state.iteration == 2 else ())
        run.train()
        optimizer.zero_grad()
        arguments = {"outlines": labels[rows]} if kind == "regions" else {}
        value = loss(run(images[rows], **arguments), labels[rows])
        value.backward()
        optimizer.step()
        losses.append(value.detach())
        gradients.append({name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None})

    trainer = Engine(step)
    if world_size() > 1:
        order.attach(trainer)
    trainer.run(batches, max_epochs=1)
    return {"losses": torch.stack(losses), "gradients": gradients, "state": network.state_dict()}


def load_batches(tree, remainder, cache):
    """Image, label and unit of each slab of two epochs by step; the last batch of an epoch has `remainder` slabs."""
    items = read_datalist(tree / "datalist.json").training
    scanner = RandScannerd(noise_prob=0.7, blur_prob=0.5, contrast_prob=0.5)
    augmentation = SlabAugmentation([RandSlabViewd(32, [0.5, 1, 1]), scanner])
    dataset = SlabDataset(items, tree, cache, 3, transform=augmentation, seed=5, progress=False)
    sampler = SlabSampler(dataset, lesion_free=1, seed=5)
    sampler.lesion_free = sampler.lesion_free[
        : (remainder - len(sampler.lesion)) % GLOBAL_BATCH_SIZE + GLOBAL_BATCH_SIZE
    ]
    sampler.lesion_free_count = len(sampler.lesion_free)
    batch_sampler = DistributedBatchSampler(sampler, GLOBAL_BATCH_SIZE // world_size())
    loader = PrefetchDataLoader(dataset, batch_sampler=batch_sampler, collate_fn=pad_collate)
    prepare, steps = AugmentedBatch(32, [-200, 250], GloballySeededNoise(batch_sampler)), []
    if world_size() == 1:
        loader = PrefetchDataLoader(dataset, sampler=sampler, batch_size=GLOBAL_BATCH_SIZE, collate_fn=pad_collate)
        prepare = AugmentedBatch(32, [-200, 250])

    trainer = Engine(lambda _, batch: steps.append((*prepare(batch, "cpu"), batch["unit"])))
    EpochSeed(sampler, 5).attach(trainer)
    if world_size() > 1:
        batch_sampler.attach(trainer)
    trainer.run(loader, max_epochs=2, epoch_length=len(loader))
    return steps


def normalise():
    """Output and gradient of a bfloat16 batch through batch norm, the rows of this process."""
    torch.manual_seed(1)
    x, weights = torch.randn(6, 4, 5, 5) + 3, torch.randn(6, 4, 5, 5)
    layer = nn.BatchNorm2d(4)
    rows = slice(0, 6)
    if world_size() > 1:
        batch_sampler = DistributedBatchSampler(range(6), 3)
        layer, rows = CPUSyncBatchNorm(layer, batch_sampler), slice(3 * rank(), 3 * rank() + 3)
    local = x[rows].bfloat16().requires_grad_()
    out = layer(local)
    (out.float() * weights[rows]).sum().backward()
    return {"out": out.detach(), "gradient": local.grad, "variance": layer.running_var}


def score():
    """Scores of seven slabs of three units, in batches of two."""
    torch.manual_seed(2)
    slabs = [
        {"pred": torch.randn(5, 8, 8), "label": torch.randint(0, 5, (1, 8, 8)), "unit": n % 3, "lesion_type": n % 3}
        for n in range(7)
    ]
    evaluator = Engine(lambda _, batch: {"pred": batch["pred"], "label": batch["label"]})
    SlabScores().attach(evaluator, "key")
    evaluator.run(DataLoader(slabs, 2, sampler=DistributedFoldSampler(slabs)))
    return evaluator.state.metrics


def calibrate(folder):
    """Fit the temperature of weights that predict a cyst everywhere, on 30 slabs of which a third are cysts."""
    network = SEResUNet("small", out_channels=5)
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.copy_(torch.tensor([0.0, 0, 9, 0, 0]))
    record = WeightsRecord(
        "SEResUNet", network.arguments(), SlabInput((-200.0, 250.0)),
        ("background", "liver", "cyst", "hemangioma", "metastasis"), "none", "ab" * 32, 3, {}, package_versions(),
    )  # fmt: skip
    if rank() == 0:
        save_state(folder / "model.pt", network.state_dict(), record)
    barrier()
    slabs = []
    for number in range(30):
        label = torch.ones(1, 32, 32)
        label[0, 4:9, 4:9] = 2 + number % 3
        slabs.append({"image": torch.randn(3, 32, 32), "label": label})
    loader = DataLoader(slabs, 4, sampler=DistributedFoldSampler(slabs))
    evaluator = SupervisedEvaluator(device="cpu", val_data_loader=loader, network=network.eval(), decollate=False)
    handler = TypeTemperature(network, folder / "model.pt", evaluator)
    handler(evaluator)


def main(tree, folder):
    init_process_group("cpu", wait_minutes=2)
    fill_cache_once(read_datalist(tree / "datalist.json").training, tree, folder / "cache", 3, progress=False)
    result = {
        "cached": len(list((folder / "cache").glob("*.slices"))),
        "batches": {remainder: load_batches(tree, remainder, folder / "cache") for remainder in (1, 5)},
        "float64": {(kind, slabs): train_steps(kind, slabs) for kind, slabs in (("joint", 17), ("ynet", 21))},
        "float32": {kind: train_steps(kind, 21, wide=False) for kind in ("classification", "ours", "regions")},
        "normalised": normalise(),
        "scores": score(),
        "reported": [report_once("an error of all processes"), report_once(f"an error of process {rank()}")],
        "threads": torch.get_num_threads(),
    }
    calibrate(folder)
    torch.save(result, folder / f"{rank()}.pt")
    barrier()
    if rank() == 1:
        raise LiversegError("slice 5 is not what was written")
    barrier()  # waits for the process that failed


if __name__ == "__main__":
    sys.argv[0] = "monai/bundle/__main__.py"  # so that errors are reported in one line
    sys.argv.insert(1, "run")
    bundle.install_excepthook()
    main(Path(sys.argv[2]), Path(sys.argv[3]))
