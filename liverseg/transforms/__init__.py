"""Slabs, HU window, resampling, and augmentation: synthetic lesions, views, scanners and noise.

What inference needs is imported at once. The transforms of MONAI's data sets are imported when they are first used.
"""

from typing import TYPE_CHECKING

from liverseg.transforms.hu_window import HUWindow
from liverseg.transforms.pixels import back_to_slice, to_pixel_mm
from liverseg.transforms.slabs import SLAB_SLICES, slab_indices
from liverseg.utils.lazy import lazy_imports

if TYPE_CHECKING:
    from liverseg.transforms.augmentation import SlabAugmentation
    from liverseg.transforms.dictionary import HUWindowd, ResamplePixelsd
    from liverseg.transforms.liver_crop import LiverCropd
    from liverseg.transforms.noise import SALT_AND_PEPPER_SHARE, salt_and_pepper
    from liverseg.transforms.scanner import RandScannerd, ScannerParameters
    from liverseg.transforms.scanner_effects import apply_scanner
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

__getattr__ = lazy_imports(
    __name__,
    {
        "augmentation": ("SlabAugmentation",),
        "dictionary": ("HUWindowd", "ResamplePixelsd"),
        "liver_crop": ("LiverCropd",),
        "noise": ("SALT_AND_PEPPER_SHARE", "salt_and_pepper"),
        "scanner": ("RandScannerd", "ScannerParameters"),
        "scanner_effects": ("apply_scanner",),
        "synthetic_lesions": ("RandSyntheticLesionsd",),
        "views": ("RandSlabViewd", "resample_views"),
    },
)
