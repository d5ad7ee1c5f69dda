"""Compare torch with other engines at computing the full network's slabs on this CPU.

    pip install onnx onnxruntime onnxscript openvino
    python benchmarks/network_backends.py [--size full] [--rows 288 --columns 320] [--rounds 5]

Slabs of a liver's size pass in turns through the network as inference prepares it (`optimize_for_inference`), as torch
computes it without this (batch norm folded, under autocast), as `torch.compile` does (it needs a C++ compiler), and
through onnxruntime (in float32, and quantised to int8) and OpenVINO, with the same number of threads. Prints
milliseconds per slab (medians), their ratio to those of inference, the seconds from the start to the first slab, and
the share of pixels with the same label. Engines that are not installed are skipped.
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

from liverseg.networks import SIZES, SEResUNet
from liverseg.networks.fusion import fold_batch_norm, optimize_for_inference
from liverseg.utils.precision import autocast, autocast_dtype

BATCH = 4


def network(size: str) -> SEResUNet:
    """Return a network with three labels and random weights, which do not affect its speed."""
    torch.manual_seed(0)
    return SEResUNet(size, out_channels=3).eval().to(memory_format=torch.channels_last)


def inference_engine(size: str) -> Callable[[torch.Tensor], np.ndarray]:
    """Return the network as `SlabInferer` runs it."""
    model, dtype = network(size), autocast_dtype("cpu") or torch.float32
    optimize_for_inference(model, dtype)

    def run(slabs: torch.Tensor) -> np.ndarray:
        with torch.inference_mode():
            return model(slabs.to(dtype, memory_format=torch.channels_last)).float().numpy()

    return run


def torch_engine(size: str, compiled: bool = False) -> Callable[[torch.Tensor], np.ndarray]:
    """Return the network in torch without `optimize_for_inference`, or compiled by it."""
    model = network(size)
    fold_batch_norm(model)
    call = torch.compile(model) if compiled else model

    def run(slabs: torch.Tensor) -> np.ndarray:
        with torch.no_grad(), autocast("cpu"):
            return call(slabs.contiguous(memory_format=torch.channels_last)).float().numpy()

    return run


def folded(size: str) -> SEResUNet:
    """Return the network as the engines other than torch get it."""
    model = network(size)
    fold_batch_norm(model)
    return model


def onnxruntime_engine(size: str, slabs: torch.Tensor, int8: bool = False) -> Callable[[torch.Tensor], np.ndarray]:
    """Return the network in onnxruntime, in float32, or in int8 with ranges calibrated on the slabs."""
    import onnxruntime
    from onnxruntime import quantization

    class Slabs(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(slabs.split(1))

        def get_next(self) -> dict[str, np.ndarray] | None:
            slab = next(self.left, None)
            return None if slab is None else {"slabs": slab.expand(len(slabs), -1, -1, -1).numpy()}

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        torch.onnx.export(folded(size), (slabs,), path, dynamo=True, input_names=["slabs"])
        if int8:
            quantization.quantize_static(path, path, Slabs(), per_channel=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda slabs: session.run(None, {"slabs": slabs.numpy()})[0]


def openvino_engine(size: str, slabs: torch.Tensor) -> Callable[[torch.Tensor], np.ndarray]:
    """Return the network in OpenVINO, in the number format that inference uses."""
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": "f32" if autocast_dtype("cpu") is None else "bf16",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    converted = openvino.convert_model(folded(size), example_input=slabs, input=[list(slabs.shape)])
    model = openvino.Core().compile_model(converted, "CPU", settings)
    return lambda slabs: model(slabs.numpy())[0]


def main() -> None:
    """Time the engines and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--rows", type=int, default=288)
    parser.add_argument("--columns", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    slabs = torch.rand(BATCH, 3, args.rows, args.columns) * 2 - 1
    engines: dict[str, Callable[[torch.Tensor], np.ndarray]] = {}
    startup_seconds: dict[str, float] = {}
    builders = {
        "inference": lambda: inference_engine(args.size),
        "torch": lambda: torch_engine(args.size),
        "torch.compile": lambda: torch_engine(args.size, compiled=True),
        "onnxruntime": lambda: onnxruntime_engine(args.size, slabs),
        "int8": lambda: onnxruntime_engine(args.size, slabs, int8=True),
        "openvino": lambda: openvino_engine(args.size, slabs),
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
    reference, ours = engines["inference"](slabs), statistics.median(seconds["inference"])
    threads, precision = torch.get_num_threads(), autocast_dtype("cpu") or torch.float32
    print(f"{args.size}, {args.rows} x {args.columns}, {threads} threads, {precision}")
    for name, run in engines.items():
        median = statistics.median(seconds[name])
        agreement = (run(slabs).argmax(axis=1) == reference.argmax(axis=1)).mean()
        print(
            f"{name:13} {1000 * median:6.0f} ms a slab, {median / ours:.2f} of inference; first slab after "
            f"{startup_seconds[name]:.1f} s; {agreement:.2%} of labels agree"
        )


if __name__ == "__main__":
    main()
