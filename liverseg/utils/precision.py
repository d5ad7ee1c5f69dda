"""Device and data type of a network's computation, for training and inference alike."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from liverseg.errors import UsageError

__all__ = ["autocast", "autocast_dtype", "get_device"]


def autocast_dtype(device: torch.device | str, amp: bool | str = "auto") -> torch.dtype | None:
    """Return the data type for autocast on a device.

    bfloat16 has the range of float32 and needs no loss scaling, so all devices share one code path.

    Args:
        device: device of the network.
        amp: "auto" (bfloat16 if the hardware computes it: a GPU, or a CPU with AMX or AVX-512's bfloat16), True
            (bfloat16, or an error without such hardware), or False (float32).

    Returns:
        `torch.bfloat16`, or None for float32.

    Raises:
        UsageError: if `amp` is another word, or True on hardware without bfloat16.
    """
    mode = str(amp).lower()
    if mode not in ("auto", "true", "false"):
        raise UsageError(f"amp is {amp!r}; it must be auto, true or false")
    if mode == "false":
        return None
    kind = torch.device(device).type
    if kind == "cuda":
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        supported = kind == "cpu" and torch.cpu._is_avx512_bf16_supported()
    if not supported and mode == "true":
        raise UsageError(f"amp is true, but {kind} has no bfloat16 here; take auto or false")
    return torch.bfloat16 if supported else None


def autocast(device: torch.device | str, amp: bool | str = "auto") -> AbstractContextManager:
    """Return the context of a forward pass: autocast to `autocast_dtype`, or no effect."""
    dtype = autocast_dtype(device, amp)
    return torch.autocast(torch.device(device).type, dtype=dtype) if dtype is not None else nullcontext()


def get_device(name: Any = None) -> torch.device:
    """Return a device by name. Without a name, or for "auto", it is the first GPU if there is one, else the CPU.

    Raises:
        UsageError: if the name is not that of a CPU or CUDA device, or this machine has no such GPU.
    """
    if name is None or str(name) == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    unknown = f"device {name!r} is not known; take auto, cpu, cuda or cuda:N"
    try:
        device = torch.device(str(name))
    except RuntimeError as error:
        raise UsageError(unknown) from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(unknown)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise UsageError(f"device {name!r}: this machine has no usable CUDA GPU; take cpu")
        if (device.index or 0) >= count:
            raise UsageError(f"device {name!r}: this machine has cuda:0 to cuda:{count - 1}; take one of them")
    return device
