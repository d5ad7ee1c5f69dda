"""The HU window: what the networks see of a CT."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

__all__ = ["HUWindow", "HUWindowd"]


@dataclass(frozen=True)
class HUWindow:
    """Clip to [lower, upper] HU, then centre and scale to [-1, 1].

    The limits -200 and 250 are the paper's (Heker & Greenspan 2020); that "centred and scaled" means the window's
    middle and half width, and not a data set's mean and deviation, is our reading.

    Args:
        lower: HU that becomes -1.
        upper: HU that becomes 1.

    Raises:
        ValueError: if lower is not below upper.
    """

    lower: float = -200.0
    upper: float = 250.0

    def __post_init__(self) -> None:
        if not self.lower < self.upper:
            raise ValueError(f"HU window [{self.lower}, {self.upper}]: the lower limit must be below the upper")

    def __call__(self, hu: torch.Tensor) -> torch.Tensor:
        """HU of any number type and shape to float in [-1, 1] (float32 unless a float type came in)."""
        values = hu if hu.is_floating_point() else hu.float()
        middle, half = (self.upper + self.lower) / 2, (self.upper - self.lower) / 2
        return values.clamp(self.lower, self.upper).sub_(middle).div_(half)


class HUWindowd(MapTransform):
    """Dictionary form of `HUWindow`: HU of any number type to float32 in [-1, 1].

    Args:
        keys: entries to window.
        window: lower and upper limit in HU.
    """

    def __init__(self, keys: KeysCollection, window: tuple[float, float], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.window = HUWindow(*window)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        for key in self.key_iterator(out):
            out[key] = self.window(torch.as_tensor(out[key]))
        return out
