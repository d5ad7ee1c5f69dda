"""Move sheared slices onto a rectangular grid, and labels back onto the slices.

With a tilted gantry, each slice is displaced within its own plane against the one before. The stack is a
parallelepiped, which neither NIfTI's qform nor ITK can describe. Each slice is moved within its plane until all lie
above each other. Nothing is interpolated between slices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["SliceShifts"]

_ROUNDING = 1e-3
"""Part of a pixel that is taken as rounding of tags."""


@dataclass(frozen=True, eq=False)
class SliceShifts:
    """Where the slices of a stack lie on a rectangular grid.

    Attributes:
        shifts: position of each slice's first pixel on the grid, 0 or more, in pixels, shape (slices, 2): column, row.
        size: (columns, rows) of a slice.
    """

    shifts: np.ndarray
    size: tuple[int, int]

    @classmethod
    def from_offsets(cls, offsets: np.ndarray, size: tuple[int, int]) -> tuple[SliceShifts, np.ndarray]:
        """Return the shifts, and the position of the grid's first pixel, for slices at given places.

        Args:
            offsets: of each slice's first pixel from any point of its plane, in pixels, shape (slices, 2): column, row.
            size: (columns, rows) of a slice.
        """
        first = np.floor(offsets.min(axis=0) + _ROUNDING)
        shifts = np.maximum(offsets - first, 0.0)
        rounded = np.rint(shifts)
        return cls(np.where(np.abs(shifts - rounded) <= _ROUNDING, rounded, shifts), size), first

    @property
    def grid_size(self) -> tuple[int, int]:
        """(columns, rows) of the grid, which holds all slices completely."""
        columns, rows = np.ceil(self.shifts.max(axis=0) - _ROUNDING).astype(int) + np.array(self.size)
        return int(columns), int(rows)

    def to_grid(self, plane: np.ndarray, number: int, fill: float) -> np.ndarray:
        """Return a slice on the grid, interpolated linearly between its pixels; its edge repeats the outermost ones.

        Args:
            plane: values of the slice, shape (row, column).
            number: of the slice.
            fill: value of the grid outside the slice.

        Returns:
            Shape (row, column) of the grid; integers stay integers.
        """
        columns, rows = self.grid_size
        column, row = self.shifts[number]
        moved = plane.astype(np.float32)
        for axis, part in enumerate((row % 1, column % 1)):
            if part > _ROUNDING:
                before, after = [(0, 0), (0, 0)], [(0, 0), (0, 0)]
                before[axis], after[axis] = (1, 0), (0, 1)
                moved = (1 - part) * np.pad(moved, after, "edge") + part * np.pad(moved, before, "edge")
        if plane.dtype.kind in "iu":
            moved = np.rint(moved)
        grid = np.full((rows, columns), fill, plane.dtype)
        grid[int(row) : int(row) + moved.shape[0], int(column) : int(column) + moved.shape[1]] = moved
        return grid

    def from_grid(self, labels: np.ndarray) -> np.ndarray:
        """Return labels of the grid on the slices' own pixels: each slice moves by the nearest number of pixels.

        Args:
            labels: shape (slice, row, column) of the grid.

        Returns:
            Shape (slice, row, column) of the slices; nothing is interpolated.
        """
        columns, rows = self.size
        out = np.zeros((len(labels), rows, columns), labels.dtype)
        for number, (column, row) in enumerate(np.minimum(np.rint(self.shifts), self._largest).astype(int)):
            out[number] = labels[number, row : row + rows, column : column + columns]
        return out

    @property
    def _largest(self) -> np.ndarray:
        return np.array(self.grid_size) - np.array(self.size)
