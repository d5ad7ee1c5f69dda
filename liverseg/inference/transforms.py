"""The steps before and after the network, as MONAI dictionary transforms a bundle's config can name.

A case is a dictionary: `image` (path, then HU in axial order), `volume` (the CT on its own grid), `warnings` (sentences
for its record), `pred` (the network's prediction, then the lesions found in it) and `lesions` (their table).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform

from liverseg.ct_check import check_ct
from liverseg.errors import UsageError
from liverseg.inference.components import keep_largest_liver
from liverseg.inference.lesions import find_lesions
from liverseg.inference.measure import lesion_table
from liverseg.labels import labels_for
from liverseg.volumes import read_volume

__all__ = ["FindLesionsd", "KeepLargestLiverd", "MeasureLesionsd", "ReadCTd"]


class ReadCTd(MapTransform):
    """Read a CT from its path, refuse what is none, and present it in axial order without copying or resampling.

    Adds `volume` and `warnings`; the entry itself becomes HU of shape (slice, row, column), a view in the file's own
    number type.

    Args:
        keys: the entry with the path.

    Raises:
        LiversegError: from `read_volume` and `check_ct`.
    """

    def __init__(self, keys: KeysCollection = "image", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        for key in self.key_iterator(out):
            volume = read_volume(out[key])
            out["warnings"] = check_ct(volume)
            out["volume"] = volume
            out[key] = volume.axial
        return out


class KeepLargestLiverd(MapTransform):
    """Dictionary form of `keep_largest_liver`.

    Args:
        keys: entries with a `SlabPrediction`.
    """

    def __init__(self, keys: KeysCollection = "pred", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        for key in self.key_iterator(out):
            out[key] = keep_largest_liver(out[key])
        return out


class FindLesionsd(MapTransform):
    """Dictionary form of `find_lesions`: a `SlabPrediction` becomes a `LesionMap`.

    Args:
        keys: entries with a `SlabPrediction`.
        min_lesion_ml: smallest lesion that is kept.

    Raises:
        UsageError: if that is not a number of at least 0.
    """

    def __init__(
        self, keys: KeysCollection = "pred", min_lesion_ml: float = 0.03, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if isinstance(min_lesion_ml, bool) or not isinstance(min_lesion_ml, int | float) or not min_lesion_ml >= 0:
            raise UsageError(f"min_lesion_ml is {min_lesion_ml!r}; it must be a volume in ml, 0 or more")
        self.min_lesion_ml = float(min_lesion_ml)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        for key in self.key_iterator(out):
            out[key] = find_lesions(out[key], out["volume"].voxel_ml, self.min_lesion_ml)
        return out


class MeasureLesionsd(MapTransform):
    """Dictionary form of `lesion_table`: adds the table as `lesions`.

    Args:
        keys: the entry with a `LesionMap`.
        num_channels: channels of the network, which say what its label table is.
    """

    def __init__(self, keys: KeysCollection = "pred", num_channels: int = 5, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.labels = labels_for(num_channels)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        for key in self.key_iterator(out):
            out["lesions"] = lesion_table(out[key], out["volume"], self.labels)
        return out
