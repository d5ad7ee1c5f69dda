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

_PACKAGE = "liverseg.transforms"
__getattr__ = lazy_imports(
    __name__,
    {
        "HUWindowd": f"{_PACKAGE}.dictionary",
        "LiverCropd": f"{_PACKAGE}.liver_crop",
        "RandScannerd": f"{_PACKAGE}.scanner",
        "RandSlabViewd": f"{_PACKAGE}.views",
        "RandSyntheticLesionsd": f"{_PACKAGE}.synthetic_lesions",
        "ResamplePixelsd": f"{_PACKAGE}.dictionary",
        "SALT_AND_PEPPER_SHARE": f"{_PACKAGE}.noise",
        "ScannerParameters": f"{_PACKAGE}.scanner",
        "SlabAugmentation": f"{_PACKAGE}.augmentation",
        "apply_scanner": f"{_PACKAGE}.scanner_effects",
        "resample_views": f"{_PACKAGE}.views",
        "salt_and_pepper": f"{_PACKAGE}.noise",
    },
)
