"""Divide the images of a DICOM series into stacks of slices, and count what belongs to none.

A series may hold more than one volume: localisers, screen captures, the slices that monitor the arrival of the contrast
medium, projections, a second phase, and copies of its own files. A stack has one size, orientation and pixel size, its
slices lie on one line, and no two of them are at one position unless no tag distinguishes them. Of slices with the same
pixels at one position, one is taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from liverseg.imageio.dicom_header import Slice
from liverseg.imageio.dicom_pixels import read_plane

__all__ = [
    "TOLERANCE",
    "SliceStack",
    "along_normal",
    "are_copies",
    "describe_left_out",
    "divide",
    "is_usable",
    "normal_of",
]

TOLERANCE = 1e-3
"""Difference between equal positions and pixel sizes, in mm, and between components of equal unit vectors."""

_LINE_MM = 0.5
"""Distance of a slice from its stack's line. Rounded tags stay below; monitoring slices have another field of view."""
_FEW_POSITIONS, _FEW_SHARE = 3, 0.2
_FAR_GAPS, _FAR_MM = 5.0, 20.0
"""A few slices farther from the stack than both, in slice spacings and in mm, are not its continuation."""
_MIN_POSITIONS, _MIN_SHARE = 3, 0.3
"""An acquisition has at least so many positions, and the largest so many of all positions: tags that change with every
slice, or with every rotation, distinguish no acquisitions."""
_PAUSE_SECONDS, _PAUSE_STEPS = 5.0, 5.0
"""Phases are further apart in time than both, in seconds and in usual steps from slice to slice."""
_EVEN = 0.1

_ACQUISITION_TAGS = (
    *("AcquisitionNumber", "FrameAcquisitionNumber", "TemporalPositionIdentifier", "TemporalPositionIndex"),
    *("StackID", "TriggerTime"),
)
_ACQUISITION_TIMES = ("AcquisitionTime", "FrameAcquisitionDateTime")

_PLURALS = {
    "localiser": "localisers",
    "screen capture": "screen captures",
    "projection": "projections",
    "copy of a slice": "copies of slices",
    "slice apart from the stack": "slices apart from the stack",
    "slice of another stack": "slices of other stacks",
}


@dataclass(frozen=True)
class SliceStack:
    """Slices that form one volume, sorted along their normal, and how many images of their series do not.

    Attributes:
        slices: of the stack.
        left_out: number of the series' other images, by kind.
        other_kinds: those of them that state to be no slices, such as localisers.
    """

    slices: tuple[Slice, ...]
    left_out: dict[str, int]
    other_kinds: tuple[Slice, ...] = ()

    @property
    def extent_mm(self) -> float:
        """Distance from the first to the last slice."""
        along = along_normal(self.slices)
        return float(along[-1] - along[0])


def describe_left_out(left_out: dict[str, int]) -> str:
    """Describe images that were left out, without text of their headers.

    Example:
        >>> describe_left_out({"localiser": 2, "screen capture": 1})
        '2 localisers, 1 screen capture'
    """
    return ", ".join(f"{count} {_PLURALS[kind] if count > 1 else kind}" for kind, count in left_out.items())


def normal_of(item: Slice) -> np.ndarray:
    """Return the unit normal of a slice, in LPS+."""
    normal = np.cross(item.orientation[:3], item.orientation[3:])
    return normal / max(float(np.linalg.norm(normal)), 1e-9)  # an unusable orientation is refused later


def along_normal(slices: Sequence[Slice]) -> np.ndarray:
    """Return the positions of slices in mm along the normal of the first, shape (slices,)."""
    return np.array([item.position for item in slices]) @ normal_of(slices[0])


def is_usable(item: Slice) -> bool:
    """Return whether position, orientation and pixel size of a slice can place it."""
    axes = item.orientation.reshape(2, 3)
    square = np.abs(axes @ axes.T - np.eye(2)).max() <= 10 * TOLERANCE  # False for NaN
    return bool(square and item.pixel_spacing.min() > 0 and not np.isnan(item.position).any())


def divide(images: Sequence[Slice]) -> list[SliceStack]:
    """Divide the images of a series into stacks, those with most positions first; empty if none is a slice.

    Slices whose tags cannot place them are one stack with the others, for the reader of the stack to refuse.

    Args:
        images: of one series, in any order.

    Raises:
        UnreadableError: if the pixels of two files with one SOPInstanceUID, or at one position, cannot be compared.
    """
    not_slices = tuple(item for item in images if item.kind)
    other_kinds = Counter(item.kind for item in not_slices)
    volume = [item for item in images if not item.kind]
    if not volume:
        return []
    if not all(map(is_usable, volume)):
        return [SliceStack(tuple(volume), dict(other_kinds), not_slices)]
    kept, copies = _without_copies(volume)
    stacks = []
    for group in _by_geometry(kept):
        for line in _by_line(group):
            for part in _by_distance(line):
                for acquisition in _by_acquisition(part):
                    for stack in _by_distance(acquisition):
                        alone, more = _without_repeats(stack)
                        stacks.append(alone)
                        copies += more
    if copies:
        other_kinds["copy of a slice"] += copies
    stacks.sort(key=lambda stack: (-_count_positions(stack), -len(stack)))
    found = []
    for number, stack in enumerate(stacks):
        left_out = Counter(other_kinds)
        for other in stacks[:number] + stacks[number + 1 :]:
            few = _count_positions(other) <= _FEW_POSITIONS < _count_positions(stack)
            left_out["slice apart from the stack" if few else "slice of another stack"] += len(other)
        counts = {kind: left_out[kind] for kind in _PLURALS if left_out[kind]}
        found.append(SliceStack(tuple(_sorted(stack)), counts, not_slices))
    return found


def are_copies(slices: Sequence[Slice], others: Sequence[Slice]) -> bool:
    """Return whether slices have the places and the values of others, whatever their UIDs are.

    Args:
        slices: of a stack, sorted.
        others: likewise.

    Raises:
        UnreadableError: if pixels cannot be read.
    """
    if len(slices) != len(others) or not all(map(is_usable, (*slices, *others))):
        return False
    pairs = list(zip(slices, others, strict=True))
    return all(_is_same_place(*pair) for pair in pairs) and all(_is_copy(*pair) for pair in pairs)


def _sorted(slices: Sequence[Slice]) -> list[Slice]:
    return [slices[number] for number in np.argsort(along_normal(slices), kind="stable")]


def _without_copies(slices: Sequence[Slice]) -> tuple[list[Slice], int]:
    """Leave out files that repeat the SOPInstanceUID, the place and the pixels of another; return how many they are."""
    kept: dict[tuple[str, int | None], list[Slice]] = {}
    copies = 0
    for item in slices:
        same = kept.setdefault((item.instance, item.frame), [])
        if item.instance and any(_is_copy(item, other) for other in same):
            copies += 1
        else:
            same.append(item)
    return [item for same in kept.values() for item in same], copies


def _without_repeats(stack: Sequence[Slice]) -> tuple[list[Slice], int]:
    """Leave out slices with the place and the values of another in their stack; return how many they are.

    Stops at the first position with different values, for which the stack is refused if it is read: a perfusion scan
    has dozens of slices at each. Slices are compared within a stack only: where nobody is, those of two phases may be
    equal.
    """
    by_position: dict[int, list[Slice]] = {}
    for item, position in zip(stack, _positions(stack), strict=True):
        by_position.setdefault(position, []).append(item)
    alone: list[Slice] = []
    stopped = False
    for _, same in sorted(by_position.items()):
        kept = same[:1]
        for item in same[1:]:
            if stopped or not any(_is_copy(item, other) for other in kept):
                kept.append(item)
        stopped |= len(kept) > 1
        alone += kept
    return alone, len(stack) - len(alone)


def _is_copy(item: Slice, other: Slice) -> bool:
    return _is_same_place(item, other) and bool(np.array_equal(read_plane(item), read_plane(other)))


def _is_same_place(item: Slice, other: Slice) -> bool:
    return (
        item.size == other.size
        and bool(np.abs(item.position - other.position).max() <= TOLERANCE)
        and bool(np.abs(item.pixel_spacing - other.pixel_spacing).max() <= TOLERANCE)
        and bool(np.abs(item.orientation - other.orientation).max() <= TOLERANCE)
    )


def _by_geometry(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Group slices of one size, pixel size and orientation."""
    groups: list[list[Slice]] = []
    for item in slices:
        for group in groups:
            first = group[0]
            if (
                item.size == first.size
                and np.abs(item.pixel_spacing - first.pixel_spacing).max() <= TOLERANCE
                and np.abs(item.orientation - first.orientation).max() <= TOLERANCE
            ):
                group.append(item)
                break
        else:
            groups.append([item])
    return groups


def _by_line(slices: Sequence[Slice]) -> Iterator[list[Slice]]:
    """Group slices that lie on parallel lines, along their normal or, with a tilted gantry, at an angle to it."""
    along = along_normal(slices)
    axes = slices[0].orientation.reshape(2, 3)
    within = np.array([item.position for item in slices]) @ axes.T
    order = np.argsort(along, kind="stable")
    gaps = np.diff(along[order])
    steps = gaps > TOLERANCE
    shears = [np.zeros(2)]
    if steps.any():
        slopes = np.diff(within[order], axis=0)[steps] / gaps[steps, None]
        shears.append(np.median(slopes, axis=0))
    best = max((_line_groups(within - along[:, None] * shear) for shear in shears), key=lambda groups: len(groups[0]))
    for numbers in best:
        yield [slices[number] for number in numbers]


def _line_groups(places: np.ndarray) -> list[np.ndarray]:
    """Return the numbers of places within half a millimetre of each other's middle, the largest group first."""
    if np.abs(places - np.median(places, axis=0)).max() <= _LINE_MM / 2:
        return [np.arange(len(places))]
    left, groups = np.arange(len(places)), []
    while len(left):
        near = np.abs(places[left][:, None] - places[left][None]).max(axis=2) <= _LINE_MM
        chosen = near[int(np.argmax(near.sum(axis=1)))]
        groups.append(left[chosen])
        left = left[~chosen]
    return sorted(groups, key=len, reverse=True)


def _by_distance(slices: Sequence[Slice]) -> Iterator[list[Slice]]:
    """Separate slices that are far from the others and few, or of other acquisitions; other gaps are missing slices."""
    ordered = _sorted(slices)
    along = along_normal(ordered)
    gaps = np.diff(along)
    positive = gaps[gaps > TOLERANCE]
    if not len(positive):
        yield ordered
        return
    far = gaps > max(_FAR_GAPS * float(np.median(positive)), _FAR_MM)
    parts = [list(part) for part in np.split(np.arange(len(ordered)), np.flatnonzero(far) + 1)]
    main = max(parts, key=len)
    together = [ordered[number] for number in main]
    for part in parts:
        if part is main:
            continue
        own = [ordered[number] for number in part]
        few = _count_positions(own) <= _FEW_POSITIONS and len(own) < _FEW_SHARE * len(main) + 1
        one_position = _count_positions(own) == 1 and _count_positions(together) > 1
        if few or one_position or _acquisitions_differ(own, together):
            yield own
        else:
            together += own
    yield _sorted(together)


def _acquisitions_differ(slices: Sequence[Slice], others: Sequence[Slice]) -> bool:
    first, second = ({item.acquisition.get("AcquisitionNumber") for item in group} for group in (slices, others))
    return len(first) == len(second) == 1 and None not in first | second and first != second


def _by_acquisition(slices: list[Slice]) -> list[list[Slice]]:
    """Divide slices by the first tag that distinguishes acquisitions in them."""
    positions = _positions(slices)
    repeated = len(set(positions)) < len(positions)
    for parts, may_interleave in _partitions(slices, positions):
        if len(parts) < 2:
            continue
        counts = [len({positions[number] for number in part}) for part in parts]
        if max(counts) < max(_MIN_POSITIONS, _MIN_SHARE * len(set(positions))):
            continue
        fewer = sum(len(part) - count for part, count in zip(parts, counts, strict=True))
        if (repeated and fewer < len(positions) - len(set(positions))) or (
            not repeated and may_interleave and _interleave(slices, parts)
        ):
            return [stack for part in parts for stack in _by_acquisition([slices[number] for number in part])]
    return [slices]


def _partitions(slices: Sequence[Slice], positions: Sequence[int]) -> Iterator[tuple[list[list[int]], bool]]:
    """Yield ways to divide slices, as lists of their numbers, and whether their parts may lie between each other."""
    for tag in _ACQUISITION_TAGS:
        yield _by_value([item.acquisition.get(tag) for item in slices]), True
    for tag in _ACQUISITION_TIMES:
        yield _by_pauses([item.times.get(tag) for item in slices]), True
    yield _by_value([item.image_type for item in slices]), False
    yield _by_pauses([item.times.get("ContentTime") for item in slices]), False
    yield _by_restart([item.number for item in slices], positions), False


def _by_value(values: Sequence[object]) -> list[list[int]]:
    groups: dict[object, list[int]] = {}
    for number, value in enumerate(values):
        groups.setdefault(value, []).append(number)
    return list(groups.values())


def _by_pauses(times: Sequence[float | None]) -> list[list[int]]:
    """Divide slices at long pauses between their times, in s; one part if a time is missing."""
    if any(time is None for time in times):
        return [list(range(len(times)))]
    values = np.array(times, np.float64)
    order = np.argsort(values, kind="stable")
    gaps = np.diff(values[order])
    steps = gaps[gaps > 0]
    if not len(steps):
        return [list(range(len(times)))]
    usual = float(np.median(steps)) if len(steps) > len(times) // 4 else 0.0  # few steps are pauses themselves
    pauses = np.flatnonzero(gaps > max(_PAUSE_SECONDS, _PAUSE_STEPS * usual))
    return [[int(number) for number in part] for part in np.split(order, pauses + 1)]


def _by_restart(numbers: Sequence[float], positions: Sequence[int]) -> list[list[int]]:
    """Divide slices where their positions start again in the order of instance numbers."""
    if np.isnan(numbers).any() or len(set(numbers)) < len(numbers):
        return [list(range(len(numbers)))]
    parts: list[list[int]] = [[]]
    seen: set[int] = set()
    for number in np.argsort(numbers):
        if positions[number] in seen:
            parts.append([])
            seen = set()
        seen.add(positions[number])
        parts[-1].append(int(number))
    return parts


def _interleave(slices: Sequence[Slice], parts: Sequence[Sequence[int]]) -> bool:
    """Return whether two parts are evenly spaced each and lie between each other's slices for most of their extent."""
    along = along_normal(slices)
    spans = []
    for part in parts:
        places = np.sort(along[list(part)])
        gaps = np.diff(places)
        even = len(places) >= _MIN_POSITIONS and np.ptp(gaps) <= _EVEN * float(np.median(gaps))
        spans.append((float(places[0]), float(places[-1]), even))
    for number, (low, high, even) in enumerate(spans):
        for other_low, other_high, other_even in spans[:number]:
            shared = min(high, other_high) - max(low, other_low)
            if even and other_even and shared > min(high - low, other_high - other_low) / 2:
                return True
    return False


def _positions(slices: Sequence[Slice]) -> list[int]:
    """Return a number for the position of each slice; those of one position share it."""
    along = along_normal(slices)
    order = np.argsort(along, kind="stable")
    numbers = np.concatenate([[0], np.cumsum(np.diff(along[order]) > TOLERANCE)])
    found = np.empty(len(slices), int)
    found[order] = numbers
    return [int(number) for number in found]


def _count_positions(slices: Sequence[Slice]) -> int:
    return len(set(_positions(slices)))
