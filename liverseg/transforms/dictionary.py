"""MONAI's dictionary transforms of the HU window and of resampling to a pixel size."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from liverseg.transforms.hu_window import HUWindow
from liverseg.transforms.pixels import to_pixel_mm

__all__ = ["HUWindowd", "ResamplePixelsd"]


class HUWindowd(MapTransform):
    """Dictionary transform of `HUWindow`.

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


class ResamplePixelsd(MapTransform):
    """Dictionary transform of `to_pixel_mm`, for slabs of a validation, which have no view.

    The data needs `spacing`: mm between slices, rows and columns.

    Args:
        keys: entries to resample, (channels, H, W) in HU. Label maps are not resampled, since scores are computed on
            the slice's own grid.
        pixel_mm: edge of the target pixels in mm; None leaves slices as they are.
    """

    def __init__(self, keys: KeysCollection, pixel_mm: float | None = None, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.pixel_mm = pixel_mm

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        if self.pixel_mm is not None:
            in_plane_mm = torch.as_tensor(out["spacing"]).tolist()[1:]
            for key in self.key_iterator(out):
                out[key] = to_pixel_mm(torch.as_tensor(out[key]), in_plane_mm, self.pixel_mm)
        return out
