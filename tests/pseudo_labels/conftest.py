"""CTs of an ellipsoid body with one bright liver, and two networks that have learnt to outline it."""

import numpy as np
import pytest

SHAPE, SPACING = (24, 48, 48), (8.0, 6.0, 6.0)
"""Slices, rows and columns, and their mm."""


def ct_of(seed, centre=(12.0, 22.0, 14.0), liver=110):
    """A CT and its liver in axial order: 288 mm of body, a liver of about 1.4 l on the patient's right."""
    random = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    hu = np.full(SHAPE, -1000.0)
    hu[((y - 23.5) / 17) ** 2 + ((x - 23.5) / 22) ** 2 < 1] = 20
    inside = sum(
        ((axis - middle) / radius) ** 2 for axis, middle, radius in zip((z, y, x), centre, (8, 11, 11), strict=True)
    )
    hu[inside < 1] = liver
    return (hu + random.normal(0, 5, SHAPE)).astype(np.int16), inside < 1


def to_file(path, axial, mirrored=False):
    """Write an array in axial order as NIfTI: its own axes towards the patient's left, back and head (LPS+)."""
    import nibabel as nib

    affine = np.diag([1.0 if mirrored else -1.0, -1.0, 1.0, 1.0]) @ np.diag([*SPACING[::-1], 1.0])
    nib.save(nib.Nifti1Image(np.ascontiguousarray(axial.transpose(2, 1, 0)), affine), path)
    return path


@pytest.fixture(scope="session")
def liver_weights(made_once):
    """Weights of two small pre-training networks that outline the liver of such CTs: `a.safetensors`, `b.safetensors`.

    The second is the first, trained on: it differs in a few per cent of the liver.
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
        for part in network.modules():  # statistics of the trained network alone, not of the way there
            if isinstance(part, torch.nn.BatchNorm2d):
                part.reset_running_stats()
                part.momentum = None
        with torch.no_grad():
            for step in range(1000, 1010):
                logits_and_liver(step)
        export_weights(folder / f"{name}.safetensors", network.state_dict(), record)
