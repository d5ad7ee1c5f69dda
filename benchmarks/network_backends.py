"""Compare torch with other engines at computing the full network's slabs on this CPU.

    pip install onnx onnxruntime onnxscript openvino
    python benchmarks/network_backends.py [--rows 288 --columns 320] [--rounds 5]

Slabs of a liver's size pass in turns through the network as inference prepares it (batch norm folded, channels_last,
bfloat16 if the CPU supports it), through onnxruntime and through OpenVINO, with the same number of threads. Prints
milliseconds per slab (medians), their ratio to torch's, the seconds from the start to the first slab, and the
differences between the logits. Engines that are not installed are skipped.
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
from liverseg.networks.fusion import fold_batch_norm
from liverseg.utils.precision import autocast, autocast_dtype

BATCH = 2


def network() -> SEResUNet:
    """Return the full network with three labels and random weights, which do not affect its speed."""
    torch.manual_seed(0)
    model = SEResUNet("full", out_channels=3).eval()
    fold_batch_norm(model)
    return model


def torch_engine() -> Callable[[torch.Tensor], np.ndarray]:
    """Return the network in torch as `SlabInferer` runs it."""
    model = network().to(memory_format=torch.channels_last)

    def run(slabs: torch.Tensor) -> np.ndarray:
        with torch.inference_mode(), autocast("cpu"):
            return model(slabs.contiguous(memory_format=torch.channels_last)).float().numpy()

    return run


def onnxruntime_engine(slabs: torch.Tensor) -> Callable[[torch.Tensor], np.ndarray]:
    """Return the network in onnxruntime in float32; its CPU kernels have no faster format here."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        torch.onnx.export(network(), (slabs,), path, dynamo=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda slabs: session.run(None, {name: slabs.numpy()})[0]


def openvino_engine(slabs: torch.Tensor) -> Callable[[torch.Tensor], np.ndarray]:
    """Return the network in OpenVINO, in the number format that inference uses."""
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
    """Time the engines and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=288)
    parser.add_argument("--columns", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    slabs = torch.rand(BATCH, 3, args.rows, args.columns) * 2 - 1
    engines: dict[str, Callable[[torch.Tensor], np.ndarray]] = {}
    startup_seconds: dict[str, float] = {}
    builders = {
        "torch": torch_engine,
        "onnxruntime": lambda: onnxruntime_engine(slabs),
        "openvino": lambda: openvino_engine(slabs),
    }
    for name, build in builders.items():
        start = time.perf_counter()
        try:
            engines[name] = build()
        except ImportError as error:
            print(f"{name}: skipped, {error}")
            continue
        engines[name](slabs)
        startup_seconds[name] = time.perf_counter() - start
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(args.rounds):
        for name, run in engines.items():
            time.sleep(0.5)  # lets the threads of the engine before go idle
            start = time.perf_counter()
            run(slabs)
            seconds[name].append((time.perf_counter() - start) / BATCH)
    reference, torch_seconds = engines["torch"](slabs), statistics.median(seconds["torch"])
    print(f"{args.rows} x {args.columns}, {torch.get_num_threads()} threads, {autocast_dtype('cpu') or torch.float32}")
    for name, run in engines.items():
        median = statistics.median(seconds[name])
        difference = np.abs(run(slabs) - reference).max() / np.abs(reference).max()
        print(
            f"{name:12} {1000 * median:6.0f} ms a slab, {median / torch_seconds:.2f} of torch's; first slab after "
            f"{startup_seconds[name]:.1f} s; logits differ by {difference:.0e}"
        )


if __name__ == "__main__":
    main()
