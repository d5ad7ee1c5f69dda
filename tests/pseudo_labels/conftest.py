"""Two networks trained to outline the liver on CTs of `liver_cts`."""

import numpy as np
import pytest
from liver_cts import SHAPE, SPACING, ct_of


@pytest.fixture(scope="session")
def liver_weights(made_once):
    """Return a folder with weights of two small pre-training networks: `a.safetensors` and `b.safetensors`.

    The second is the first after further training; their outlines differ in a few per cent of the liver.
    """
    return made_once("liver-weights", _train)


def _train(folder):
    import torch

    from liverseg.labels import PRETRAIN_LABELS, label_names
    from liverseg.networks import SEResUNet, SlabInput, WeightsRecord, export_weights, package_versions
    from liverseg.transforms import HUWindow, slab_indices

    torch.manual_seed(0)
    random = np.random.default_rng(0)
    network = SEResUNet("small", out_channels=3)
    optimizer = torch.optim.Adam(network.parameters())
    window = HUWindow(-200, 250)

    def logits_and_liver(step):
        hu, liver = ct_of((0, step), random.uniform((9, 19, 12), (14, 26, 34)))
        slices = random.choice(SHAPE[0], 8, replace=False)
        slabs = hu[slab_indices(slices, SHAPE[0], slice_mm=SPACING[0], slab_spacing_mm=None)]
        return network(window(torch.from_numpy(slabs))), torch.from_numpy(liver[slices].astype(int))

    def train(steps, rate):
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
        for step in range(steps):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(*logits_and_liver(step)).backward()
            optimizer.step()
            schedule.step()

    record = WeightsRecord(
        "SEResUNet", network.arguments(), SlabInput((-200.0, 250.0)), label_names(PRETRAIN_LABELS), "ellipsoids",
        "ab" * 32, 1, {}, package_versions(),
    )  # fmt: skip
    for name, steps, rate in (("a", 100, 5e-3), ("b", 10, 1e-3)):
        train(steps, rate)
        for part in network.modules():  # statistics of the trained network, not of earlier steps
            if isinstance(part, torch.nn.BatchNorm2d):
                part.reset_running_stats()
                part.momentum = None
        with torch.no_grad():
            for step in range(1000, 1010):
                logits_and_liver(step)
        export_weights(folder / f"{name}.safetensors", network.state_dict(), record)
