"""HU windowing of CT for the networks' input."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["HUWindow"]


@dataclass(frozen=True)
class HUWindow:
    """Clip to [lower, upper] HU, then centre and scale to [-1, 1].

    The limits -200 and 250 are the paper's (Heker & Greenspan 2020). It is our reading that "centred and scaled" refers
    to the window's centre and half width, not to mean and standard deviation of a data set.

    Args:
        lower: HU mapped to -1.
        upper: HU mapped to 1.

    Raises:
        ValueError: if lower is not below upper.
    """

    lower: float = -200.0
    upper: float = 250.0

    def __post_init__(self) -> None:
        if not self.lower < self.upper:
            raise ValueError(f"HU window [{self.lower}, {self.upper}]: the lower limit must be below the upper")

    def __call__(self, hu: torch.Tensor) -> torch.Tensor:
        """Map HU of any dtype and shape to [-1, 1]; integers become float32, floats keep their dtype."""
        values = hu if hu.is_floating_point() else hu.float()
        center, half_width = (self.upper + self.lower) / 2, (self.upper - self.lower) / 2
        return values.clamp(self.lower, self.upper).sub_(center).div_(half_width)
