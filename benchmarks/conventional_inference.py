"""Reference for timing: the same network in the usual form of MONAI's bundles (complete volume, resampled, float32).

    python benchmarks/conventional_inference.py CT.nii.gz OUTPUT WEIGHTS.safetensors

Steps: LoadImaged, Orientationd, Spacingd to the CT's own spacing (which favours this form: no voxel is added),
SliceInferer over every slice, argmax, Invertd to the file's grid, SaveImaged. See inference_speed.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from monai.data import DataLoader, Dataset, decollate_batch
from monai.inferers import SliceInferer
from monai.transforms import (
    AsDiscreted,
    Compose,
    EnsureChannelFirstd,
    EnsureTyped,
    Invertd,
    Lambdad,
    LoadImaged,
    Orientationd,
    SaveImaged,
    ScaleIntensityRanged,
    Spacingd,
)

from liverseg.networks import SEResUNet, load_weights


def with_neighbours(volume: torch.Tensor) -> torch.Tensor:
    """Return slabs (3, x, y, z) of a volume (1, x, y, z): channels are the slices below, at and above each slice."""
    below = torch.cat([volume[..., :1], volume[..., :-1]], dim=-1)
    above = torch.cat([volume[..., 1:], volume[..., -1:]], dim=-1)
    return torch.cat([below, volume, above])


def main() -> None:
    """Label one CT."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("weights", type=Path)
    args = parser.parse_args()
    network = SEResUNet("full", out_channels=3)
    load_weights(network, args.weights)
    network.eval()
    preprocessing = Compose(
        [
            LoadImaged(keys="image"),
            EnsureChannelFirstd(keys="image"),
            # rows to the back and columns to the left, as in training
            Orientationd(keys="image", axcodes="PLS", labels=None),
            Spacingd(keys="image", pixdim=(0.75, 0.75, 1.5), mode="bilinear"),
            ScaleIntensityRanged(keys="image", a_min=-200, a_max=250, b_min=-1, b_max=1, clip=True),
            EnsureTyped(keys="image"),
        ]
    )
    postprocessing = Compose(
        [
            AsDiscreted(keys="pred", argmax=True),
            Invertd(keys="pred", transform=preprocessing, orig_keys="image", nearest_interp=True, to_tensor=True),
            SaveImaged(
                keys="pred",
                output_dir=args.output,
                output_postfix="labels",
                output_dtype=np.uint8,
                resample=False,
                print_log=False,
            ),
        ]
    )
    slabs = Compose([Lambdad(keys="slabs", func=with_neighbours)])
    inferer = SliceInferer(roi_size=(512, 512), sw_batch_size=4, spatial_dim=2, progress=False)
    loader = DataLoader(Dataset([{"image": str(args.ct)}], transform=preprocessing), batch_size=1)
    with torch.no_grad():
        for batch in loader:
            inputs = slabs({"slabs": batch["image"][0]})["slabs"][None]
            batch["pred"] = inferer(inputs, network)
            for case in decollate_batch(batch):
                postprocessing(case)


if __name__ == "__main__":
    main()
