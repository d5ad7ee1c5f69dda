"""A liver mask made elsewhere, on whatever grid, brought to the CT it belongs to."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from scipy.ndimage import affine_transform

from liverseg.errors import GeometryError, UnreadableError, UsageError
from liverseg.imageio.volume import NIFTI_SUFFIXES, Volume, affine_distance_mm, read_volume
from liverseg.utils.files import is_dir, is_file

__all__ = ["LiverSource", "liver_source"]

_WITH_LABEL = re.compile(r"(?P<path>.+):(?P<label>\d+)")
_LISTED = 8


@dataclass(frozen=True)
class LiverSource:
    """Where the liver of a run's cases comes from.

    Attributes:
        find: the network looks for it.
        path: a mask, or a folder with a mask of each case's name; None where no mask is given.
        label: the liver's value in the masks; None where everything that is not 0 is liver.
    """

    find: bool = True
    path: Path | None = None
    label: int | None = None

    @classmethod
    def parse(cls, liver: str | os.PathLike | None) -> LiverSource:
        """What the value of the key `liver` means, whether or not there is such a mask.

        Args:
            liver: "auto", "none", or the path of a mask or of a folder of masks, with `:5` behind it for label 5.

        Raises:
            UsageError: if it is empty.
        """
        text = str(liver).strip()
        if text.lower() in ("auto", "none"):
            return cls(find=text.lower() == "auto")
        if not text:
            raise UsageError("liver is empty; it must be auto, none or the path of a mask")
        labelled = _WITH_LABEL.fullmatch(text)
        if labelled and not _exists(Path(text)):
            return cls(False, Path(labelled["path"]).absolute(), int(labelled["label"]))
        return cls(False, Path(text).absolute())

    def candidates(self, case: str) -> list[Path]:
        """Where the mask of a case may be, in the order in which they are looked for; none where no masks are given."""
        if self.path is None:
            return []
        try:
            folder = self.path.is_dir()
        except OSError:  # too long a name, or a folder that may not be looked into: no mask there
            folder = False
        if not folder:
            return [self.path]
        # the latter is how TotalSegmentator leaves them
        return [self.path / f"{name}{suffix}" for name in (case, f"{case}/liver") for suffix in NIFTI_SUFFIXES]

    def mask_of(self, case: str) -> Path | None:
        """The mask of a case; None where no masks are given.

        Raises:
            LiversegError: if there is no mask of the case's name.
        """
        if self.path is None or not is_dir(self.path):
            return self.path
        for path in self.candidates(case):
            if is_file(path):
                return path
        raise UnreadableError(
            f"liver {self.path}: no {case}.nii.gz, {case}.nii or {case}/liver.nii.gz in it; masks are named as their "
            "cases"
        )

    def read(self, mask: Path, volume: Volume) -> np.ndarray:
        """The liver on the CT's grid: true in it, in axial order, shape as `volume.axial`.

        A mask on another grid is taken by the voxel nearest in the patient's frame, RAS+ mm.

        Raises:
            LiversegError: if the mask cannot be read, holds several labels and it is not said which is the liver, or
                lies outside the CT.
        """
        found = read_volume(mask)
        liver = self._liver(mask, found.array)
        if not liver.any():
            raise UnreadableError(f"{mask}: no voxel of it is liver; give the mask of this CT's liver")
        same = liver.shape == volume.array.shape and not affine_distance_mm(volume.affine, found.affine, liver.shape)
        own = liver if same else _on_grid(liver, found.affine, volume)
        if not own.any():
            raise GeometryError(f"{mask}: lies outside {volume.path}; is it the mask of this CT?")
        return Volume(own, volume.affine, volume.header, mask).axial

    def _liver(self, mask: Path, array: np.ndarray) -> np.ndarray:
        if self.label is not None:
            return np.asarray(array == self.label)
        liver = np.asarray(array != 0)
        if liver.any() and np.any(liver & (array != array[np.unravel_index(np.argmax(liver), liver.shape)])):
            kinds = np.unique(array[liver])
            listed = ", ".join(f"{value:g}" for value in kinds[:_LISTED]) + (", ..." if len(kinds) > _LISTED else "")
            raise UnreadableError(f"{mask}: labels {listed}; say which one is the liver, as {mask.name}:5 does")
        return liver


def liver_source(liver: str | os.PathLike | None, cases: int = 1) -> LiverSource:
    """What the key `liver` says: "auto" (the network finds it), "none" (all of the CT is computed), or a mask's path.

    A path is a mask or a folder of them, named as the cases; `PATH:5` takes label 5 for the liver.

    Args:
        liver: the key's value; None is a config's way to write none.
        cases: how many cases it is for.

    Raises:
        LiversegError: if the path is not there.
        UsageError: if it is empty, or one mask is given for several cases.
    """
    source = LiverSource.parse(liver)
    if source.path is None or is_dir(source.path):
        return source
    if not is_file(source.path):
        raise UnreadableError(f"liver {liver}: no such mask or folder; take auto, none or a mask's path")
    if cases > 1:
        raise UsageError(f"liver {liver}: one mask for {cases} cases; give a folder with a mask for each")
    return source


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long a name for a path
        return False


def _on_grid(liver: np.ndarray, affine: np.ndarray, volume: Volume) -> np.ndarray:
    """The mask at the centres of the CT's voxels, computed where it can be alone."""
    to_mask = np.linalg.inv(affine) @ volume.affine
    corners = np.array(list(product(*[(-0.5, length - 0.5) for length in liver.shape])))
    there = (np.linalg.inv(to_mask) @ np.c_[corners, np.ones(8)].T)[:3]
    low = np.clip(np.floor(there.min(axis=1)), 0, volume.array.shape).astype(int)
    high = np.clip(np.ceil(there.max(axis=1)) + 1, low, volume.array.shape).astype(int)
    own = np.zeros(volume.array.shape, bool)
    if (high > low).all():
        start = to_mask @ np.append(low, 1.0)
        inside = affine_transform(
            liver.astype(np.uint8), to_mask[:3, :3], start[:3], tuple(high - low), order=0, mode="grid-constant"
        )
        own[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = inside > 0
    return own
