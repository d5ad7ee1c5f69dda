"""Intensity transforms that MONAI does not have: the shared HU window, and salt-and-pepper noise."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform

from liverseg.transforms.hu_window import HUWindow

__all__ = ["HUWindowd", "RandSaltAndPepperd"]


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


class RandSaltAndPepperd(RandomizableTransform, MapTransform):
    """Set single pixels to the darkest or the brightest value of the windowed image, -1 or 1.

    One of the authors' augmentations; the share of pixels is our choice, as the papers do not print it.

    Args:
        keys: windowed entries of shape (channels, H, W).
        prob: how often an image gets any noise.
        share: part of the pixels that change when it does; half of them to either value.
    """

    def __init__(
        self, keys: KeysCollection, prob: float = 0.5, share: float = 0.005, allow_missing_keys: bool = False
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.share = share

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return out
        for key in self.key_iterator(out):
            image = torch.as_tensor(out[key]).clone()
            pixels = image.numel()
            # with replacement: at these shares a pixel met twice is rare and harmless
            hit = torch.from_numpy(self.R.randint(0, pixels, size=round(self.share * pixels)))
            image.view(-1)[hit] = torch.from_numpy(self.R.choice(np.array([-1.0, 1.0], np.float32), size=len(hit)))
            out[key] = image
        return out
