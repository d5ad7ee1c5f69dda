from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from liverseg.followup.examination import Examination, Identity
from liverseg.imageio.boxes import bounding_box
from liverseg.imageio.volume import Volume
from liverseg.inference import SlabPrediction
from liverseg.inference.lesions import find_lesions
from liverseg.inference.measurements import lesion_table
from liverseg.labels import result_labels

LABELS = result_labels(5)


def ball(shape, affine, centre, radius):
    """Return the voxels of a ball: centre and radius in RAS+ mm."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    points = index @ affine[:3, :3].T + affine[:3, 3]
    return ((points - centre) ** 2).sum(axis=-1) <= radius**2


@pytest.fixture(scope="session")
def make_scan():
    """Return a function that makes a CT with an egg-shaped liver and balls as lesions, and its label map.

    Lesions are (x, y, z, radius, label), RAS+ mm from the liver's middle; the middle itself moves by `shift`.
    """

    def make(lesions=(), shift=(0, 0, 0), spacing=(2.0, 2.0, 3.0), shape=(96, 80, 50), seed=1, first=-75.0):
        affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
        affine[:3, 3] = (shape[0] * spacing[0] / 2, shape[1] * spacing[1] / 2, first)
        index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
        x, y, z = np.moveaxis(index @ affine[:3, :3].T + affine[:3, 3] - shift, -1, 0)
        hu = np.full(shape, -1000.0)
        hu[(x / 85) ** 2 + (y / 72) ** 2 < 1] = 20
        hu[np.hypot(x + 10, y + 55) < 14] = 300  # spine
        liver = ((x - 12) / 55) ** 2 + (y / (38 + 0.15 * x)) ** 2 + ((z - 0.1 * x) / 45) ** 2 < 1
        hu[liver] = 105
        for begin, end in (((12, 0, 30), (30, 20, -10)), ((12, 0, 30), (-10, -10, -25)), ((30, 10, 0), (50, -10, -20))):
            line = np.linspace(begin, end, 40)
            for point in line:
                hu[((x - point[0]) ** 2 + (y - point[1]) ** 2 + (z - point[2]) ** 2 < 16) & liver] = 160
        label = liver.astype(np.uint8)
        for *centre, radius, kind in lesions:
            inside = ball(shape, affine, np.add(centre, shift), radius) & liver
            hu[inside], label[inside] = (10 if kind == 2 else 55), kind
        hu += np.random.default_rng(seed).normal(0, 8, shape)
        image = hu.round().astype(np.int16)
        return SimpleNamespace(image=image, label=label, affine=affine)

    return make


@pytest.fixture(scope="session")
def make_examination(make_scan):
    """Return a function that makes an `Examination` in memory, with arguments of `make_scan`."""

    def make(lesions=(), name="case", identity=None, weights="ab" * 32, sha256=None, labels=LABELS, **scan):
        made = make_scan(lesions, **scan)
        header = nib.Nifti1Image(made.label, made.affine).header
        volume = Volume(made.image, made.affine, header, Path(f"{name}.nii.gz"))
        axial = np.ascontiguousarray(volume.to_axial(made.label))
        box = bounding_box(axial)
        shares = np.eye(3, dtype=np.float32)[axial[axial >= 2] - 2]
        prediction = SlabPrediction(axial, shares)
        found = find_lesions(prediction, volume.voxel_ml, min_lesion_ml=0.0)
        assert box is not None
        table = lesion_table(found, volume, labels)
        record = {
            "case": name,
            "input": {"path": f"{name}.nii.gz", "sha256": sha256 or name},
            "weights": {"sha256": weights},
            "files": {},
            "warnings": [],
        }
        return Examination(Path(name), record, volume, found, table, labels, identity or Identity(), None)

    return make


@pytest.fixture(scope="session")
def write_case():
    """Return a function that writes a CT's case folder as `liverseg predict` does, with a given label map."""

    def write(path, output, case, label, keep_identifiers=False, weights="ab" * 32):
        import torch

        from liverseg.inference import ReadCTd
        from liverseg.inference.output.case_writer import CaseWriter
        from liverseg.inference.output.record import RunMetadata
        from liverseg.inference.plausibility import check_plausibility

        data = ReadCTd(keep_identifiers=keep_identifiers)({"image": str(path), "case": case})
        volume = data["volume"]
        axial = np.ascontiguousarray(volume.to_axial(label))
        shares = np.eye(3, dtype=np.float32)[axial[axial >= 2] - 2]
        data["pred"] = find_lesions(SlabPrediction(axial, shares), volume.voxel_ml, min_lesion_ml=0.0)
        data["lesions"] = lesion_table(data["pred"], volume, LABELS)
        data["plausibility"] = check_plausibility(data["image"], data["pred"], volume.axial_spacing)
        data["seconds"] = {}
        run = RunMetadata(Path("joint.safetensors"), weights, None, torch.device("cpu"), "float32")
        CaseWriter(output, preview=False)(case, data, run, LABELS)
        return output / case

    return write
