"""Slabs, HU window and intensity augmentation."""

from liverseg.transforms.hu_window import HUWindow
from liverseg.transforms.intensity import HUWindowd, RandSaltAndPepperd
from liverseg.transforms.slabs import SLAB_SLICES, slab_indices

__all__ = ["SLAB_SLICES", "HUWindow", "HUWindowd", "RandSaltAndPepperd", "slab_indices"]
