"""Compare the time that networks with different type heads take for a CT.

    python -m benchmarks.type_head_speed CT.nii.gz joint/model.pt regions/model.pt [--threads 2] [--rounds 5]

Each network is prepared as for inference and labels the box of the liver that the first one finds. Networks take turns,
and figures are medians. The cells of a study have such weights, `cells/joint-lits-none/fold0-seed0/model.pt`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from liverseg.imageio.boxes import bounding_box, box_shape, pad_box
from liverseg.imageio.volume import read_volume
from liverseg.inference.inferer import SlabInferer
from liverseg.labels import JOINT_LABELS, LESION, LIVER
from liverseg.networks import load_weights, recorded_settings
from liverseg.networks.fusion import optimize_for_inference


def main() -> None:
    """Time every network and print its ratio to the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path)
    parser.add_argument("weights", type=Path, nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    volume = read_volume(args.ct)
    networks = {}
    for path in args.weights:
        settings = recorded_settings(path)
        network = settings.network_class(size=settings.network_size, in_channels=3, out_channels=len(JOINT_LABELS))
        inferer = SlabInferer(hu_window=settings.hu_window, slab_spacing_mm=settings.slab_spacing_mm, batch_size=4)
        load_weights(network, path, input_spec=inferer.input_spec)
        network = network.eval().to(memory_format=torch.channels_last)
        optimize_for_inference(network)
        networks[path] = network, inferer
    box, times = None, {path: [] for path in networks}
    for number in range(args.rounds + 1):  # the first round warms up
        for path, (network, inferer) in networks.items():
            start = time.perf_counter()
            found = inferer(volume.axial, network, slice_mm=volume.axial_spacing[0], box=box)
            if number:
                times[path].append(time.perf_counter() - start)
            elif box is None:
                liver = bounding_box(found.labels >= LIVER)
                box = pad_box(liver, 8, volume.axial.shape)
            else:
                lesion = int((found.inside >= LESION).sum())
                print(f"{path}: {type(network).__name__}, {lesion} lesion voxels in a box of {box_shape(box)}")
    first = statistics.median(times[args.weights[0]])
    for path, seconds in times.items():
        median = statistics.median(seconds)
        print(f"{path}: {median:.2f} s ({min(seconds):.2f} to {max(seconds):.2f}), {median / first:.2f} x the first")


if __name__ == "__main__":
    main()
