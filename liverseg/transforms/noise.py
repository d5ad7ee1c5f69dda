"""Salt-and-pepper noise on windowed images."""

from __future__ import annotations

import torch

__all__ = ["SALT_AND_PEPPER_SHARE", "salt_and_pepper"]

SALT_AND_PEPPER_SHARE = 0.005
"""Part of an image's pixels that change: ours, the papers do not print it."""


def salt_and_pepper(
    images: torch.Tensor,
    noisy: torch.Tensor,
    share: float = SALT_AND_PEPPER_SHARE,
    before: int = 0,
    among: int | None = None,
) -> torch.Tensor:
    """Set single pixels to the darkest or the brightest value of a windowed image, -1 or 1.

    Random numbers are those of torch's generator of the images' device.

    Args:
        images: (batch, channels, H, W) in [-1, 1]; changed in place where they are contiguous.
        noisy: boolean (batch,), which of them get noise.
        share: part of the pixels that change, half of them to either value.
        before: noisy images of the batch in front of these, where these are only a part of it.
        among: noisy images of the whole batch; numbers are drawn for all of them, whoever has them.
    """
    numbers = noisy.nonzero().to(images.device)
    drawn = len(numbers) if among is None else among
    flat = images.reshape(len(images), -1)
    pixels = flat.shape[1]
    for value in (-1.0, 1.0):
        # with replacement: at these shares a pixel met twice is rare and harmless
        hit = torch.randint(pixels, (drawn, round(share * pixels / 2)), device=images.device)
        flat[numbers, hit[before : before + len(numbers)]] = value
    return flat.reshape(images.shape)
