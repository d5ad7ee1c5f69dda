"""Slabs, HU window, cropping and augmentation."""

from liverseg.transforms.hu_window import HUWindow
from liverseg.transforms.slabs import SLAB_SLICES, slab_indices

__all__ = ["SLAB_SLICES", "HUWindow", "slab_indices"]
