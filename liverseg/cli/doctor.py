"""`liverseg doctor`: show machine, backends, versions, bundles and weights."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from liverseg import __version__
from liverseg.bundle.paths import STARTER_FOLDER, WEIGHTS_VARIABLE, default_weights, find_bundle
from liverseg.bundle.weights_files import RENAMED_NETWORKS, read_record_content
from liverseg.errors import ExitCode, LiversegError

__all__ = ["add_arguments", "describe", "examine", "run"]

_PACKAGES = ("torch", "monai", "pytorch-ignite", "numpy", "nibabel", "SimpleITK", "itk", "highdicom", "pydicom")
_GIB = 2**30
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""Flags of x86 processors that decide how fast a network is."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--torch", action="store_true", help="also show threads, precision and GPUs of torch")


def run(args: argparse.Namespace) -> ExitCode:
    """Run the subcommand and return its exit code."""
    facts = examine(args.torch)
    print(json.dumps(facts, indent=1, ensure_ascii=False) if args.json else describe(facts))
    return ExitCode.DONE


def examine(with_torch: bool = False) -> dict[str, dict[str, Any]]:
    """Return facts by section: software, processor, graphics, backends, bundles and weights.

    Nothing is written, and no weights are loaded.

    Args:
        with_torch: import torch, which takes seconds, for a section `torch`.
    """
    facts = {
        "software": _software(),
        "processor": _processor(),
        "graphics": _graphics(),
        "backends": _backends(),
        "bundles": {name: _bundle(name) for name in ("liver_lesion_pretrain", "liver_lesion_joint")},
        "weights": _weights(),
    }
    return {**facts, "torch": _torch()} if with_torch else facts


def describe(facts: Mapping[str, Mapping[str, Any]]) -> str:
    """Format facts as lines, missing ones as none."""
    lines = []
    for section, entries in facts.items():
        lines.append(section)
        width = max(map(len, entries))
        for name, value in entries.items():
            text = "none" if value is None else ("yes" if value else "no") if isinstance(value, bool) else value
            lines.append(f"  {name:<{width}}  {text}")
    return "\n".join(lines)


def _software() -> dict[str, Any]:
    return {
        "liverseg": __version__,
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        **{package: _version(package) for package in _PACKAGES},
    }


def _processor() -> dict[str, Any]:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _container_cores()
    return {
        "model": _cpu_field("model name") or platform.processor() or platform.machine(),
        "cores usable": f"{count}, {quota:.1f} in this container" if quota and count and quota < count else count,
        "instructions": ", ".join(flag for flag in _INSTRUCTIONS if flag in _cpu_field("flags").split()) or None,
        "memory": _memory(),
    }


def _graphics() -> dict[str, Any]:
    """Return the GPUs that NVIDIA's driver lists; whether torch can use them is known to torch alone."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return {"GPU": None}
    query = [command, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=5, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return {"GPU": "not known: nvidia-smi failed; --torch asks torch"}
    return {f"GPU {number}": line for number, line in enumerate(listed)} or {"GPU": None}


def _torch() -> dict[str, Any]:
    """Return what torch says of this machine."""
    import torch

    from liverseg.utils.precision import autocast_dtype

    facts = {
        "version": torch.__version__,
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "precision": "bfloat16" if autocast_dtype("cpu") else "float32; the processor has no bfloat16",
    }
    if not torch.cuda.is_available():
        built = "this torch is built for CPUs only" if torch.version.cuda is None else "no usable CUDA GPU"
        return {**facts, "GPU": f"none: {built}"}
    for number in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(number)
        precision = "bfloat16" if autocast_dtype(f"cuda:{number}") else "float32"
        facts[f"cuda:{number}"] = f"{device.name}, {device.total_memory / _GIB:.0f} GiB, {precision}"
    return facts


def _backends() -> dict[str, Any]:
    """Return the backends that can run networks, and their use."""
    onnx = _version("onnxruntime")
    return {
        "torch": f"{_version('torch')}, for training and predict",
        "onnx": f"onnxruntime {onnx}, for exported networks"
        if onnx
        else "none; liverseg[onnx] installs one, for exported networks",
    }


def _bundle(name: str) -> str | None:
    try:
        return str(find_bundle(name))
    except LiversegError:
        return None


def _weights() -> dict[str, Any]:
    """Describe the default weights of `predict`."""
    variable, bundle = os.environ.get(WEIGHTS_VARIABLE), _bundle("liver_lesion_joint")
    try:
        path = Path(variable) if variable else None if bundle is None else Path(default_weights(bundle))
    except LiversegError as error:
        return {"default": f"none: {error}"}
    starter = path is not None and path.parent == STARTER_FOLDER
    where = f"${WEIGHTS_VARIABLE}" if variable else "with the software" if starter else "the joint bundle"
    if path is None or not path.is_file():
        return {"default": f"none: {where} has none; give --weights, or train some"}
    facts: dict[str, Any] = {"default": f"{path} ({where})"}
    try:
        record = read_record_content(path)
        if record is not None:
            name = str(record["network"])
            facts |= {
                "network": f"{RENAMED_NETWORKS.get(name, name)}, {record['arguments']['size']}",
                "trained on": f"{record['datalist_name']}, {record['epoch']} epochs",
                "names": ", ".join(record["labels"]),
            }
    except LiversegError as error:
        return {**facts, "usable": f"no: {error}"}
    except (KeyError, TypeError):
        return {**facts, "usable": f"no: {path}: its record is not one of liverseg weights"}
    return facts


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_field(name: str) -> str:
    """Return a field of the first processor in Linux's list; empty if there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(name)), "")


def _memory() -> str:
    if not hasattr(os, "sysconf"):
        return "not known"
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _container_limit()
    text = f"{total / _GIB:.1f} GiB"
    return f"{text}, {limit / _GIB:.1f} GiB in this container" if limit and limit < total else text


def _container_cores() -> float | None:
    """Return the processor limit of the container's control group, in cores; None without a limit."""
    try:
        time, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return int(time) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # the file may say "max"
        return None


def _container_limit() -> int | None:
    """Return the memory limit of the container's control group, in bytes; None without a limit."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            return int(Path(path).read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
    return None
