"""Mixed precision: the data type of a network's computation, for training and inference alike."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from liverseg.errors import UsageError

__all__ = ["autocast", "autocast_dtype"]


def autocast_dtype(device: torch.device | str, amp: bool | str = "auto") -> torch.dtype | None:
    """Return the data type for autocast on a device.

    bfloat16 has the range of float32 and needs no loss scaling, so all devices share one code path.

    Args:
        device: device of the network.
        amp: "auto" (bfloat16 if the hardware computes it), True (bfloat16, or an error without such hardware), or
            False (float32).

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
