"""Salt-and-pepper noise on windowed images."""

from __future__ import annotations

import torch

__all__ = ["SALT_AND_PEPPER_SHARE", "salt_and_pepper"]

SALT_AND_PEPPER_SHARE = 0.005
"""Share of an image's pixels that change: ours, the papers do not publish it."""


def salt_and_pepper(
    images: torch.Tensor,
    noisy: torch.Tensor,
    share: float = SALT_AND_PEPPER_SHARE,
    before: int = 0,
    among: int | None = None,
) -> torch.Tensor:
    """Set single pixels to the darkest or the brightest value of a windowed image, -1 or 1.

    Random numbers come from torch's generator of the images' device.

    Args:
        images: (batch, channels, H, W) in [-1, 1]; changed in place if they are contiguous.
        noisy: boolean (batch,), which images get noise.
        share: share of the pixels that change, half of them to either value.
        before: number of noisy images of the global batch before these, if these are a part of it.
        among: number of noisy images of the global batch; random numbers are drawn for all of them. None for those of
            `noisy`.
    """
    rows = noisy.nonzero().to(images.device)
    count = len(rows) if among is None else among
    flat = images.reshape(len(images), -1)
    pixels = flat.shape[1]
    for value in (-1.0, 1.0):
        # drawn with replacement: at these shares a pixel is rarely drawn twice, which does no harm
        drawn = torch.randint(pixels, (count, round(share * pixels / 2)), device=images.device)
        flat[rows, drawn[before : before + len(rows)]] = value
    return flat.reshape(images.shape)
