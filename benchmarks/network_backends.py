"""Would another engine compute the full network's slabs faster on this CPU than torch does?

    pip install onnx onnxruntime onnxscript openvino
    python benchmarks/network_backends.py [--rows 288 --columns 320] [--rounds 5]

Slabs of a liver's size go through the network as inference prepares it (batch norm folded, channels_last, bfloat16
where the CPU has it), through onnxruntime and through OpenVINO in the same number of threads, in turns. Printed are
milliseconds a slab (medians), their ratio to torch's, the seconds until the first slab that a run has to wait for, and
how far the logits are apart. An engine that is not installed is left out.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from liverseg.networks import SEResUNet
from liverseg.networks.blocks import fold_batch_norm
from liverseg.utils.precision import autocast, autocast_dtype

BATCH = 2


def network() -> SEResUNet:
    """The full network with three labels; its weights are random, which changes nothing about its speed."""
    torch.manual_seed(0)
    built = SEResUNet("full", out_channels=3).eval()
    fold_batch_norm(built)
    return built


def by_torch() -> Callable[[torch.Tensor], np.ndarray]:
    """As `SlabInferer` does it."""
    model = network().to(memory_format=torch.channels_last)

    def run(slabs: torch.Tensor) -> np.ndarray:
        with torch.inference_mode(), autocast("cpu"):
            return model(slabs.contiguous(memory_format=torch.channels_last)).float().numpy()

    return run


def by_onnxruntime(slabs: torch.Tensor) -> Callable[[torch.Tensor], np.ndarray]:
    """In float32: onnxruntime's CPU kernels know no other format that is faster here."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        torch.onnx.export(network(), (slabs,), path, dynamo=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda slabs: session.run(None, {name: slabs.numpy()})[0]


def by_openvino(slabs: torch.Tensor) -> Callable[[torch.Tensor], np.ndarray]:
    """In the format inference would take."""
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": "f32" if autocast_dtype("cpu") is None else "bf16",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    converted = openvino.convert_model(network(), example_input=slabs, input=[list(slabs.shape)])
    model = openvino.Core().compile_model(converted, "CPU", settings)
    return lambda slabs: model(slabs.numpy())[0]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=288)
    parser.add_argument("--columns", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    slabs = torch.rand(BATCH, 3, args.rows, args.columns) * 2 - 1
    engines: dict[str, Callable[[torch.Tensor], np.ndarray]] = {}
    ready: dict[str, float] = {}
    builders = {
        "torch": by_torch,
        "onnxruntime": lambda: by_onnxruntime(slabs),
        "openvino": lambda: by_openvino(slabs),
    }
    for name, build in builders.items():
        start = time.perf_counter()
        try:
            engines[name] = build()
        except ImportError as error:
            print(f"{name}: left out, {error}")
            continue
        engines[name](slabs)
        ready[name] = time.perf_counter() - start
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(args.rounds):
        for name, run in engines.items():
            time.sleep(0.5)  # until the threads of the one before have gone to sleep
            start = time.perf_counter()
            run(slabs)
            seconds[name].append((time.perf_counter() - start) / BATCH)
    reference, torchs = engines["torch"](slabs), statistics.median(seconds["torch"])
    print(f"{args.rows} x {args.columns}, {torch.get_num_threads()} threads, {autocast_dtype('cpu') or torch.float32}")
    for name, run in engines.items():
        median, apart = statistics.median(seconds[name]), np.abs(run(slabs) - reference).max() / np.abs(reference).max()
        print(
            f"{name:12} {1000 * median:6.0f} ms a slab, {median / torchs:.2f} of torch's; first slab after "
            f"{ready[name]:.1f} s; logits {apart:.0e} apart"
        )


if __name__ == "__main__":
    main()
