"""Slabs, HU window, resampling, and augmentation: synthetic lesions, views, scanners and noise."""

from liverseg.transforms.augmentation import SlabAugmentation
from liverseg.transforms.hu_window import HUWindow, HUWindowd
from liverseg.transforms.liver_crop import LiverCropd
from liverseg.transforms.noise import SALT_AND_PEPPER_SHARE, salt_and_pepper
from liverseg.transforms.pixels import ResamplePixelsd, back_to_slice, to_pixel_mm
from liverseg.transforms.scanner import RandScannerd, ScannerParameters
from liverseg.transforms.scanner_effects import apply_scanner
from liverseg.transforms.slabs import SLAB_SLICES, slab_indices
from liverseg.transforms.synthetic_lesions import RandSyntheticLesionsd
from liverseg.transforms.views import RandSlabViewd, resample_views

__all__ = [
    "SALT_AND_PEPPER_SHARE",
    "SLAB_SLICES",
    "HUWindow",
    "HUWindowd",
    "LiverCropd",
    "RandScannerd",
    "RandSlabViewd",
    "RandSyntheticLesionsd",
    "ResamplePixelsd",
    "ScannerParameters",
    "SlabAugmentation",
    "apply_scanner",
    "back_to_slice",
    "resample_views",
    "salt_and_pepper",
    "slab_indices",
    "to_pixel_mm",
]
