"""Augmentation with other scanners: parameters drawn for each slab.

The data set only draws a row of numbers, at almost no cost; `apply_scanner` applies it to a batch on the training
device, as `resample_views` does with views.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from monai.transforms import RandomizableTransform

from liverseg.errors import UsageError

__all__ = ["NOISE_KINDS", "RandScannerd", "ScannerParameters"]

NOISE_KINDS = ("white", "back_projection", "low_pass")
"""Noise spectra: flat, of filtered back-projection, and of images smoothed as by iterative reconstruction."""

_CUTOFFS = {"white": (0.5, 0.5), "back_projection": (0.25, 0.5), "low_pass": (0.08, 0.25)}
"""Range of each spectrum's cut-off in cycles per pixel; ours. 0.5 is the highest frequency of an image."""

_SEEDS = 2**24
"""Upper limit of seeds: float32 represents all integers up to it."""

_SHARPENING_SIGMA = 1.0
"""Standard deviation in pixels of the Gaussian that sharpening subtracts; ours."""


class ScannerParameters(NamedTuple):
    """Parameters that `RandScannerd` draws for a slab; for a batch, each field is a tensor (batch,).

    The defaults change nothing.

    Attributes:
        seed: seed of the noise, an integer below 2**24.
        liver: enhancement of the liver, a factor of its HU above 60; see `hu_curve`.
        vessels: enhancement of vessels and kidneys, likewise.
        gamma: exponent of the gamma curve on [-200, 300] HU.
        contrast: factor of the distance from 60 HU.
        thickness: share of each neighbouring slice that is mixed into a slice.
        streak_row: row of the point where streaks cross, as a share of the crop's height.
        streak_column: column of that point, as a share of the width.
        streak_width: standard deviation across a streak in pixels.
        streak_angle_1: direction of the first streak in radians from the rows.
        streak_angle_2: direction of the second streak.
        streak_angle_3: direction of the third streak.
        streak_hu_1: HU that the first streak adds on its axis.
        streak_hu_2: HU of the second streak.
        streak_hu_3: HU of the third streak.
        resolution: pixel size relative to that of the crop.
        blur_sigma: standard deviation of the Gaussian point spread in pixels.
        blur_amount: 1 blurs, a value below 0 sharpens, 0 changes nothing.
        noise: standard deviation of the noise in HU.
        noise_kind: index in `NOISE_KINDS`.
        noise_cutoff: cut-off of the noise spectrum in cycles per pixel.
        noise_correlation: correlation of the noise in neighbouring slices.
        repeated: 0 for none, 1 if all slices repeat the middle one, 2 if those below do, 3 if those above do.
        clip_lower: lower limit of the result in HU.
        clip_upper: upper limit of the result in HU.
    """

    seed: Any = 0.0
    liver: Any = 1.0
    vessels: Any = 1.0
    gamma: Any = 1.0
    contrast: Any = 1.0
    thickness: Any = 0.0
    streak_row: Any = 0.0
    streak_column: Any = 0.0
    streak_width: Any = 1.0
    streak_angle_1: Any = 0.0
    streak_angle_2: Any = 0.0
    streak_angle_3: Any = 0.0
    streak_hu_1: Any = 0.0
    streak_hu_2: Any = 0.0
    streak_hu_3: Any = 0.0
    resolution: Any = 1.0
    blur_sigma: Any = 1.0
    blur_amount: Any = 0.0
    noise: Any = 0.0
    noise_kind: Any = 0.0
    noise_cutoff: Any = 0.5
    noise_correlation: Any = 0.0
    repeated: Any = 0.0
    clip_lower: Any = -math.inf
    clip_upper: Any = math.inf

    def tensor(self) -> torch.Tensor:
        """Return the fields of a slab as float32 (fields,), which can be collated."""
        return torch.tensor(self, dtype=torch.float32)

    @classmethod
    def from_batch(cls, drawn: torch.Tensor) -> ScannerParameters:
        """Build the fields of a batch, each (batch,), from a tensor (batch, fields)."""
        return cls(*drawn.unbind(1))


class RandScannerd(RandomizableTransform):
    """Draw the parameters of another scanner and add them as `scanner`, float32 (fields,).

    Each effect has a probability, 0 by default, so without arguments nothing changes. Ranges are (lower, upper).
    Factors (enhancement, gamma, contrast, resolution) are drawn uniformly on a logarithmic scale, other parameters
    uniformly. Effects and ranges are ours, after those that helped segmentation of scans of other sites (noise, blur,
    contrast, gamma and low resolution of nnU-Net, Isensee et al., Nat Methods 18 (2021) 203). `apply_scanner` describes
    the effects.

    Args:
        phase_prob: probability of another contrast phase.
        liver_enhancement: factor of the liver's HU above 60.
        vessel_enhancement: factor of the HU of vessels and kidneys above 60.
        gamma_prob: probability of a gamma curve.
        gamma: exponent of the gamma curve.
        contrast_prob: probability of scaling HU about 60.
        contrast: factor of the distance from 60 HU.
        thickness_prob: probability of thicker slices.
        thickness: share of each neighbour in a slice, 1/3 at most.
        streak_prob: probability of streaks, one to three.
        streak_hu: largest HU that a streak adds or subtracts.
        resolution_prob: probability of larger pixels.
        resolution: pixel size relative to that of the crop.
        blur_prob: probability of blurring.
        blur: standard deviation of the Gaussian in pixels.
        sharpen_prob: probability of sharpening instead.
        sharpening: factor of the added difference from a blurred image.
        noise_prob: probability of noise.
        noise_hu: standard deviation of the noise in HU.
        noise_kinds: relative frequencies of the spectra of `NOISE_KINDS`.
        noise_correlation: correlation of the noise in neighbouring slices.
        single_slice_prob: probability that all slices repeat the middle one, as in sets of single slices.
        volume_end_prob: probability that the slice below or above repeats the middle one, as at a volume's ends.
        clip_prob: probability of clipping HU to one of the ranges of `clip`.
        clip: ranges in HU, all equally likely.

    Raises:
        UsageError: if an argument is of the wrong type or out of range.

    Example:
        >>> scanner = RandScannerd(noise_prob=1, noise_hu=(10, 10)).set_random_state(seed=0)
        >>> ScannerParameters(*scanner({})["scanner"].tolist()).noise
        10.0
    """

    def __init__(
        self,
        *,
        phase_prob: float = 0.0,
        liver_enhancement: Sequence[float] = (0.6, 1.3),
        vessel_enhancement: Sequence[float] = (0.6, 1.6),
        gamma_prob: float = 0.0,
        gamma: Sequence[float] = (0.7, 1.5),
        contrast_prob: float = 0.0,
        contrast: Sequence[float] = (0.75, 1.25),
        thickness_prob: float = 0.0,
        thickness: Sequence[float] = (0.0, 0.33),
        streak_prob: float = 0.0,
        streak_hu: float = 25.0,
        resolution_prob: float = 0.0,
        resolution: Sequence[float] = (1.0, 2.0),
        blur_prob: float = 0.0,
        blur: Sequence[float] = (0.3, 1.2),
        sharpen_prob: float = 0.0,
        sharpening: Sequence[float] = (0.0, 1.0),
        noise_prob: float = 0.0,
        noise_hu: Sequence[float] = (0.0, 25.0),
        noise_kinds: Sequence[float] = (1.0, 1.0, 1.0),
        noise_correlation: Sequence[float] = (0.0, 0.5),
        single_slice_prob: float = 0.0,
        volume_end_prob: float = 0.0,
        clip_prob: float = 0.0,
        clip: Sequence[Sequence[float]] = ((0.0, 255.0), (-200.0, 250.0), (-160.0, 240.0)),
    ) -> None:
        super().__init__(prob=1.0)
        self.phase_prob = _number("phase_prob", phase_prob)
        self.liver_enhancement = _range("liver_enhancement", liver_enhancement, 0.1, 2)
        self.vessel_enhancement = _range("vessel_enhancement", vessel_enhancement, 0.1, 5)
        self.gamma_prob = _number("gamma_prob", gamma_prob)
        self.gamma = _range("gamma", gamma, 0.2, 5)
        self.contrast_prob = _number("contrast_prob", contrast_prob)
        self.contrast = _range("contrast", contrast, 0.1, 5)
        self.thickness_prob = _number("thickness_prob", thickness_prob)
        self.thickness = _range("thickness", thickness, 0, 1 / 3)
        self.streak_prob = _number("streak_prob", streak_prob)
        self.streak_hu = _number("streak_hu", streak_hu, 1000)
        self.resolution_prob = _number("resolution_prob", resolution_prob)
        self.resolution = _range("resolution", resolution, 1, 8)
        self.blur_prob = _number("blur_prob", blur_prob)
        self.blur = _range("blur", blur, 0.05, 10)
        self.sharpen_prob = _number("sharpen_prob", sharpen_prob)
        self.sharpening = _range("sharpening", sharpening, 0, 5)
        self.noise_prob = _number("noise_prob", noise_prob)
        self.noise_hu = _range("noise_hu", noise_hu, 0, 1000)
        self.noise_kinds = _kinds(noise_kinds)
        self.noise_correlation = _range("noise_correlation", noise_correlation, 0, 1)
        self.single_slice_prob = _number("single_slice_prob", single_slice_prob)
        self.volume_end_prob = _number("volume_end_prob", volume_end_prob)
        self.clip_prob = _number("clip_prob", clip_prob)
        self.clip = _ranges("clip", clip, -10_000, 10_000)
        for first, second in (("blur_prob", "sharpen_prob"), ("single_slice_prob", "volume_end_prob")):
            total = getattr(self, first) + getattr(self, second)
            if total > 1:
                raise UsageError(
                    f"scanner augmentation: {first} and {second} add up to {total:g}; they must not exceed 1"
                )

    def arguments(self) -> dict[str, Any]:
        """Return the arguments as JSON values for the checkpoint's settings: a resumed training must have the same."""
        return {"scanner": {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, "scanner": self._draw().tensor()}

    def _draw(self) -> ScannerParameters:
        drawn: dict[str, float] = {}
        if self._happens(self.phase_prob):
            drawn |= {"liver": self._factor(self.liver_enhancement), "vessels": self._factor(self.vessel_enhancement)}
        if self._happens(self.gamma_prob):
            drawn["gamma"] = self._factor(self.gamma)
        if self._happens(self.contrast_prob):
            drawn["contrast"] = self._factor(self.contrast)
        if self._happens(self.thickness_prob):
            drawn["thickness"] = self.R.uniform(*self.thickness)
        if self._happens(self.streak_prob):
            drawn |= self._draw_streaks()
        if self._happens(self.resolution_prob):
            drawn["resolution"] = self._factor(self.resolution)
        choice = self._choose(self.blur_prob, self.sharpen_prob)
        if choice == 1:
            drawn |= {"blur_sigma": self.R.uniform(*self.blur), "blur_amount": 1.0}
        elif choice == 2:
            drawn |= {"blur_sigma": _SHARPENING_SIGMA, "blur_amount": -self.R.uniform(*self.sharpening)}
        if self._happens(self.noise_prob):
            drawn |= self._draw_noise()
        choice = self._choose(self.single_slice_prob, self.volume_end_prob)
        if choice:
            drawn["repeated"] = choice if choice == 1 else 2 + self.R.randint(2)
        if self._happens(self.clip_prob):
            drawn["clip_lower"], drawn["clip_upper"] = self.clip[self.R.randint(len(self.clip))]
        return ScannerParameters(**drawn)

    def _draw_streaks(self) -> dict[str, float]:
        # the point may be a little outside the crop, as for arms beside the body
        drawn = {
            "streak_row": self.R.uniform(-0.25, 1.25),
            "streak_column": self.R.uniform(-0.25, 1.25),
            "streak_width": self.R.uniform(2, 12),
        }
        for number in range(1, 2 + self.R.randint(3)):
            drawn[f"streak_angle_{number}"] = self.R.uniform(0, math.pi)
            drawn[f"streak_hu_{number}"] = self.R.uniform(-self.streak_hu, self.streak_hu)
        return drawn

    def _draw_noise(self) -> dict[str, float]:
        kind = self.R.choice(len(NOISE_KINDS), p=[ratio / sum(self.noise_kinds) for ratio in self.noise_kinds])
        return {
            "seed": self.R.randint(_SEEDS),
            "noise": self.R.uniform(*self.noise_hu),
            "noise_kind": float(kind),
            "noise_cutoff": self.R.uniform(*_CUTOFFS[NOISE_KINDS[kind]]),
            "noise_correlation": self.R.uniform(*self.noise_correlation),
        }

    def _happens(self, probability: float) -> bool:
        return probability > 0 and self.R.uniform() < probability

    def _choose(self, first: float, second: float) -> int:
        """Return 1 or 2 with these probabilities, else 0."""
        if first + second == 0:
            return 0
        number = self.R.uniform()
        return 1 if number < first else 2 if number < first + second else 0

    def _factor(self, limits: tuple[float, float]) -> float:
        return math.exp(self.R.uniform(math.log(limits[0]), math.log(limits[1])))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(name: str, value: Any, highest: float = 1) -> float:
    if not _is_number(value) or not 0 <= value <= highest:
        raise UsageError(f"scanner augmentation: {name} is {value!r}; it must be a number, 0 to {highest:g}")
    return float(value)


def _is_range(value: Any, lowest: float, highest: float) -> bool:
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        return False
    return all(map(_is_number, value)) and lowest <= value[0] <= value[1] <= highest


def _range(name: str, value: Any, lowest: float, highest: float) -> tuple[float, float]:
    if not _is_range(value, lowest, highest):
        raise UsageError(
            f"scanner augmentation: {name} is {value!r}; it must be two numbers, the lower first, "
            f"{lowest:g} to {highest:.4g}"
        )
    return float(value[0]), float(value[1])


def _ranges(name: str, value: Any, lowest: float, highest: float) -> tuple[tuple[float, float], ...]:
    is_list = not isinstance(value, str) and isinstance(value, Sequence) and len(value) > 0
    if not is_list or not all(_is_range(item, lowest, highest) and item[0] < item[1] for item in value):
        raise UsageError(
            f"scanner augmentation: {name} is {value!r}; it must be a list of ranges in HU, such as [[-200, 250]]"
        )
    return tuple((float(lower), float(upper)) for lower, upper in value)


def _kinds(value: Any) -> tuple[float, ...]:
    is_list = not isinstance(value, str) and isinstance(value, Sequence) and len(value) == len(NOISE_KINDS)
    if not is_list or not all(_is_number(ratio) and ratio >= 0 for ratio in value) or not sum(value) > 0:
        raise UsageError(
            f"scanner augmentation: noise_kinds is {value!r}; it must be {len(NOISE_KINDS)} numbers, 0 or more and not "
            f"all 0, for {', '.join(NOISE_KINDS)}"
        )
    return tuple(map(float, value))
