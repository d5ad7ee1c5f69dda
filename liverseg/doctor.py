"""What machine, backends and versions there are, for a person whose run is slow or fails, and for whoever helps."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from liverseg import __version__
from liverseg.bundle.paths import STARTER_FOLDER, WEIGHTS_VARIABLE, default_weights, find_bundle
from liverseg.errors import LiversegError
from liverseg.networks import read_record
from liverseg.utils.precision import autocast_dtype

__all__ = ["describe", "examine"]

_PACKAGES = ("torch", "monai", "pytorch-ignite", "numpy", "nibabel", "SimpleITK", "itk", "highdicom", "pydicom")
_GIB = 2**30


def examine() -> dict[str, dict[str, Any]]:
    """Facts by chapter: software, processor, graphics, backends, bundles and weights. Nothing is written or loaded."""
    return {
        "software": _software(),
        "processor": _processor(),
        "graphics": _graphics(),
        "backends": _backends(),
        "bundles": {name: _bundle(name) for name in ("liver_lesion_pretrain", "liver_lesion_joint")},
        "weights": _weights(),
    }


def describe(facts: Mapping[str, Mapping[str, Any]]) -> str:
    """The facts as lines to read; what is missing is said."""
    lines = []
    for chapter, known in facts.items():
        lines.append(chapter)
        width = max(map(len, known))
        for name, value in known.items():
            told = "none" if value is None else ("yes" if value else "no") if isinstance(value, bool) else value
            lines.append(f"  {name:<{width}}  {told}")
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
        "model": _cpu_model(),
        "cores usable": f"{count}, {quota:.1f} in this container" if quota and count and quota < count else count,
        "threads of torch": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "precision": "bfloat16" if autocast_dtype("cpu") else "float32, for want of bfloat16 instructions",
        "memory": _memory(),
    }


def _graphics() -> dict[str, Any]:
    if not torch.cuda.is_available():
        built = "this torch is built for the CPU alone" if torch.version.cuda is None else "no usable CUDA GPU"
        return {"GPU": f"none: {built}"}
    facts: dict[str, Any] = {}
    for number in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(number)
        precision = "bfloat16" if autocast_dtype(f"cuda:{number}") else "float32"
        facts[f"cuda:{number}"] = f"{device.name}, {device.total_memory / _GIB:.0f} GiB, {precision}"
    return facts


def _backends() -> dict[str, Any]:
    """What can compute a network here, and for what it is used."""
    onnx = _version("onnxruntime")
    return {
        "torch": f"{torch.__version__}, for training and predict",
        "onnx": f"onnxruntime {onnx}, for exported networks" if onnx else "none; liverseg[onnx] exports networks to it",
    }


def _bundle(name: str) -> str | None:
    try:
        return str(find_bundle(name))
    except LiversegError:
        return None


def _weights() -> dict[str, Any]:
    """The weights `predict` takes when it is not given others, and what they are."""
    given, bundle = os.environ.get(WEIGHTS_VARIABLE), _bundle("liver_lesion_joint")
    try:
        path = Path(given) if given else None if bundle is None else Path(default_weights(bundle))
    except LiversegError as error:
        return {"default": f"none: {error}"}
    starter = path is not None and path.parent == STARTER_FOLDER
    where = f"${WEIGHTS_VARIABLE}" if given else "with the software" if starter else "the joint bundle"
    if path is None or not path.is_file():
        return {"default": f"none: {where} has none; give --weights, or train some"}
    facts: dict[str, Any] = {"default": f"{path} ({where})"}
    try:
        record = read_record(path)
    except LiversegError as error:
        return {**facts, "usable": f"no: {error}"}
    if record is not None:
        facts |= {
            "network": f"{record.network}, {record.arguments['size']}",
            "trained on": f"{record.datalist_name}, {record.epoch} epochs",
            "names": ", ".join(record.labels),
        }
    return facts


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory() -> str:
    if not hasattr(os, "sysconf"):
        return "not known"
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _container_limit()
    told = f"{total / _GIB:.1f} GiB"
    return f"{told}, {limit / _GIB:.1f} GiB in this container" if limit and limit < total else told


def _container_cores() -> float | None:
    """Cores' worth of time a container may use, by its control group; None where there is no limit."""
    try:
        time, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return int(time) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max" is no number
        return None


def _container_limit() -> int | None:
    """Bytes a container may use, by its control group; None where there is no limit."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            return int(Path(path).read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
    return None
