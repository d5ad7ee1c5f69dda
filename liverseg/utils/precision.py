"""Which number format a network is computed in, decided once for training and inference."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from liverseg.errors import UsageError

__all__ = ["autocast", "autocast_dtype"]


def autocast_dtype(device: torch.device | str, amp: bool | str = "auto") -> torch.dtype | None:
    """The format mixed precision would use on a device.

    bfloat16 is taken for its range, that of float32: no loss scaling is needed, so one code path serves every device.

    Args:
        device: where the network runs.
        amp: "auto" (mixed precision where the hardware computes bfloat16), True (the same, and an error where it does
            not), False (float32).

    Returns:
        `torch.bfloat16`, or None for plain float32.

    Raises:
        UsageError: if `amp` is another word, or True where the hardware has no bfloat16.
    """
    wanted = str(amp).lower()
    if wanted not in ("auto", "true", "false"):
        raise UsageError(f"amp is {amp!r}; it must be auto, true or false")
    if wanted == "false":
        return None
    kind = torch.device(device).type
    if kind == "cuda":
        able = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = kind == "cpu" and torch.cpu._is_avx512_bf16_supported()
    if not able and wanted == "true":
        raise UsageError(f"amp is true, but {kind} has no bfloat16 here; take auto or false")
    return torch.bfloat16 if able else None


def autocast(device: torch.device | str, amp: bool | str = "auto") -> AbstractContextManager:
    """The context a forward pass runs in: autocast to `autocast_dtype`, or nothing."""
    dtype = autocast_dtype(device, amp)
    return torch.autocast(torch.device(device).type, dtype=dtype) if dtype is not None else nullcontext()
