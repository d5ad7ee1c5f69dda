"""Liver masks from elsewhere, on any grid, resampled to the grid of their CT."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from liverseg.errors import GeometryError, UnreadableError, UsageError
from liverseg.imageio.grid import Grid
from liverseg.imageio.volume import NIFTI_SUFFIXES, Volume, is_nifti, read_grid, read_volume
from liverseg.utils.files import is_dir, is_file, refuse_special

__all__ = ["LiverSource"]

_WITH_LABEL = re.compile(r"(?P<path>.+):(?P<label>\d+)")
_MAX_LABELS_SHOWN = 8


@dataclass(frozen=True)
class LiverSource:
    """The value of `--liver` and of the key `liver`: the source of every case's liver.

    Attributes:
        find: whether the network finds the liver.
        path: a mask, or a folder with a mask for each case's name; None if no mask is given.
        label: the liver's value in the masks; None if every value but 0 is liver.
    """

    find: bool = True
    path: Path | None = None
    label: int | None = None

    @classmethod
    def parse(cls, liver: str | os.PathLike | None) -> LiverSource:
        """Parse the value. The mask need not exist, see `check`.

        Args:
            liver: "auto" (the network finds the liver), "none" or None (the network computes the complete CT), or the
                path of a mask or of a folder of masks, followed by `:5` for label 5. A path that exists under its full
                name has no label.

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

    def check(self, cases: int = 1) -> LiverSource:
        """Return this source if its mask or folder exists and serves as many cases.

        Args:
            cases: number of cases.

        Raises:
            UnreadableError: if the path does not exist.
            UsageError: if there is one mask for several cases.
        """
        if self.path is None or is_dir(self.path):
            return self
        if not is_file(self.path):
            refuse_special(self.path)
            raise UnreadableError(f"liver {self.path}: no such mask or folder; take auto, none or a mask's path")
        if cases > 1:
            raise UsageError(f"liver {self.path}: one mask for {cases} cases; give a folder with a mask for each")
        return self

    def candidates(self, case: str) -> list[Path]:
        """Return the paths a case's mask may have, in the order of the search; empty if no masks are given."""
        if self.path is None:
            return []
        try:
            folder = self.path.is_dir()
        except OSError:  # the name is too long or the folder may not be read: no mask there
            folder = False
        if not folder:
            return [self.path]
        # TotalSegmentator writes <case>/liver.nii.gz
        return [self.path / f"{name}{suffix}" for name in (case, f"{case}/liver") for suffix in NIFTI_SUFFIXES]

    def find_mask(self, case: str) -> Path | None:
        """Return the mask of a case, or None if no masks are given.

        Raises:
            LiversegError: if there is no mask with the case's name.
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

    def check_mask(self, mask: Path, ct: Path) -> None:
        """Refuse a mask that `read` would refuse, without reading the CT's voxels; a DICOM CT's header is not read.

        Raises:
            LiversegError: if a file cannot be read, the mask has no liver or several labels, or its grid is outside
                the CT.
        """
        volume = read_volume(mask)
        self._select_liver(mask, volume.array)
        if is_nifti(ct):
            (low, high), (ct_low, ct_high) = volume.grid.bounds_mm(), read_grid(ct).bounds_mm()
            if (low > ct_high).any() or (high < ct_low).any():
                raise _outside(mask, ct)

    def read(self, mask: Path, volume: Volume) -> np.ndarray:
        """Read a mask on the grid of its CT.

        Returns:
            As `resample`.

        Raises:
            LiversegError: if the mask cannot be read, or from `resample`.
        """
        return self.resample(read_volume(mask), volume)

    def resample(self, mask: Volume, volume: Volume) -> np.ndarray:
        """Resample a mask to the grid of its CT.

        A mask on another grid is resampled to the nearest voxel in the patient's frame, RAS+ mm. If the CT's file
        states no directions, a mask that lies where ITK places the CT is on its grid too.

        Returns:
            True in the liver, in axial order, shape as `volume.axial`.

        Raises:
            LiversegError: if the mask holds several labels and none was chosen, or is outside the CT.
        """
        liver = self._select_liver(mask.path, mask.array)
        grids = (volume.grid, Grid(volume.array.shape, volume.itk_affine))
        same = any(grid.matches(mask.grid) for grid in grids)
        on_grid = liver if same else _resample(liver, mask.affine, volume)
        if not on_grid.any():
            raise _outside(mask.path, volume.path)
        return volume.to_axial(on_grid)

    def _select_liver(self, mask: Path, array: np.ndarray) -> np.ndarray:
        liver = np.asarray(array != 0 if self.label is None else array == self.label)
        if not liver.any():
            raise UnreadableError(f"{mask}: no voxel of it is liver; give the mask of this CT's liver")
        if self.label is None and np.any(liver & (array != array[np.unravel_index(np.argmax(liver), liver.shape)])):
            values = np.unique(array[liver])
            listed = ", ".join(f"{value:g}" for value in values[:_MAX_LABELS_SHOWN])
            more = ", ..." if len(values) > _MAX_LABELS_SHOWN else ""
            raise UnreadableError(f"{mask}: labels {listed}{more}; say which one is the liver, as {mask.name}:5 does")
        return liver


def _outside(mask: Path, ct: Path) -> GeometryError:
    return GeometryError(f"{mask}: is outside {ct}; is it the mask of this CT?")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # the name is too long for a path
        return False


def _resample(liver: np.ndarray, affine: np.ndarray, volume: Volume) -> np.ndarray:
    """Sample the mask at the centres of the CT's voxels, computing only the part of the CT that it may cover."""
    from scipy.ndimage import affine_transform

    to_mask = np.linalg.inv(affine) @ volume.affine
    corners = np.array(list(product(*[(-0.5, length - 0.5) for length in liver.shape])))
    in_volume = (np.linalg.inv(to_mask) @ np.c_[corners, np.ones(8)].T)[:3]
    low = np.clip(np.floor(in_volume.min(axis=1)), 0, volume.array.shape).astype(int)
    high = np.clip(np.ceil(in_volume.max(axis=1)) + 1, low, volume.array.shape).astype(int)
    resampled = np.zeros(volume.array.shape, bool)
    if (high > low).all():
        start = to_mask @ np.append(low, 1.0)
        inside = affine_transform(
            liver.astype(np.uint8), to_mask[:3, :3], start[:3], tuple(high - low), order=0, mode="grid-constant"
        )
        resampled[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = inside > 0
    return resampled
