"""Augmentation with other scanners: effects applied to a batch of crops on the training device.

Each effect is computed only for the crops that have drawn it. The order is that of a real scan: contrast medium,
detector, slice thickness, artefacts, point spread, noise, storage.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn import functional

from liverseg.transforms.scanner import NOISE_KINDS, ScannerParameters

__all__ = ["apply_scanner", "hu_curve", "noise_amplitude", "restore_clipped"]

_SOFT_TISSUE = 60.0
"""HU about which contrast is scaled, and above which tissue is enhanced: ours, the liver without contrast medium."""

_LIVER, _VESSELS, _BONE = 110.0, 165.0, 700.0
"""HU of liver and vessels in the portal venous phase, as in docs/phantom.md, and of bone, which does not enhance."""

_GAMMA_RANGE = (-200.0, 300.0)
"""Fixed points of the gamma curve in HU; soft tissue is between them."""

_TABLE = (-1100, 3200)
"""HU range in which a curve is tabulated; beyond it the curve is extrapolated linearly."""

_BELOW, _ABOVE = 100.0, 200.0
"""Distance from the limit, in HU, of pixels among clipped ones: tissue below 0 is mostly fat, above 250 bone."""

_ZERO_FREQUENCY = 0.04
"""Relative noise of filtered back-projection at frequency 0, as in `liverseg.phantom.acquisition`."""


def apply_scanner(
    images: torch.Tensor,
    drawn: torch.Tensor,
    hu_range: torch.Tensor | None = None,
    hu_offset: torch.Tensor | None = None,
) -> torch.Tensor:
    """Apply the effects that were drawn for crops.

    The order is: restore clipped HU (`restore_clipped`), HU offset, contrast phase, gamma and contrast (`hu_curve`),
    thicker slices, streaks, larger pixels, blur or sharpening, noise, repeated slices, clipping of HU. Thicker slices
    mix a share of both neighbours into each slice; an outer slice takes the place of its missing neighbour. A streak is
    a straight band with a Gaussian profile, the same in all slices. Larger pixels are averages over squares,
    interpolated linearly.

    The noise of each slab comes from a generator with its own seed, so a slab looks the same in any batch and any
    process. The noise differs between CPU and GPU.

    Args:
        images: (batch, slab slices, H, W), float HU; not changed.
        drawn: parameters of `RandScannerd`, (batch, fields); best on the CPU, where they decide what is computed.
        hu_range: limits in HU to which each slab was clipped before, (batch, 2), -inf and inf for none; None if no slab
            was clipped. The result is clipped to them again.
        hu_offset: HU to add, (batch,).

    Returns:
        Float32 HU of the same shape.
    """
    drawn = drawn.cpu()
    params = ScannerParameters.from_batch(drawn)
    lower, upper = params.clip_lower, params.clip_upper
    images = images.float().clone()
    if hu_range is not None:
        hu_range = hu_range.cpu()
        lower, upper = torch.maximum(lower, hu_range[:, 0]), torch.minimum(upper, hu_range[:, 1])
        images = restore_clipped(images, hu_range)
    if hu_offset is not None:
        images += hu_offset.to(images.device)[:, None, None, None]
    effects = (
        ((params.liver != 1) | (params.vessels != 1) | (params.gamma != 1) | (params.contrast != 1), _apply_hu_curve),
        (params.thickness > 0, _thicken_slices),
        ((params.streak_hu_1 != 0) | (params.streak_hu_2 != 0) | (params.streak_hu_3 != 0), _add_streaks),
        (params.resolution > 1, _enlarge_pixels),
        (params.blur_amount != 0, _apply_point_spread),
        (params.noise > 0, _add_noise),
        (params.repeated > 0, _repeat_slices),
    )
    for selected, effect in effects:
        rows = selected.nonzero()[:, 0]
        if len(rows) == len(images):
            images = effect(images, params)
        elif len(rows):
            images[rows.to(images.device)] = effect(
                images[rows.to(images.device)], ScannerParameters.from_batch(drawn[rows])
            )
    if torch.isfinite(lower).any() or torch.isfinite(upper).any():
        images = images.clamp(_as_images(lower, images), _as_images(upper, images))
    return images


def _as_images(values: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Return one number for each slab as (batch, 1, 1, 1), with the images' dtype and device."""
    return values.to(images)[:, None, None, None]


def restore_clipped(images: torch.Tensor, hu_range: torch.Tensor) -> torch.Tensor:
    """Estimate the HU of clipped pixels, so that noise, blur and offset act on clipped images as on others.

    In an image clipped to [0, 255] HU, for example, fat and air are 0. Adding noise would make half of the fat brighter
    than 0, but in a noisy scan that is clipped afterwards fat stays 0, since it was at -100 HU. Clipped pixels are
    therefore moved beyond the limit first, and the caller clips them again at the end.

    The distance depends on the surroundings. If all of a square of 5×5 pixels is clipped, as in fat, the pixel is moved
    to 100 HU below the lower limit, or to -100 HU if that limit is above 0, and to 200 HU above the upper one. Single
    clipped pixels are the tail of noisy tissue near the limit, as in a cyst, and must not become black dots. With the
    share p of clipped pixels in the square and the mean distance e of the others from the limit, their distance is
    e √(p / (1 - p)), but not more than above. For normally distributed HU this is the mean distance of the clipped
    pixels within 7 % for p from .05 to .95. At the edge of an organ, where half of the square is clipped, it mirrors
    the organ at the limit. The rule is ours.

    Args:
        images: (batch, channels, H, W), float HU; without clipped images the result may be the same tensor.
        hu_range: (batch, 2), lower and upper limit in HU, -inf and inf for none.
    """
    for side, sign in ((0, 1.0), (1, -1.0)):
        limits = hu_range[:, side].cpu()
        rows = torch.isfinite(limits).nonzero()[:, 0]
        if not len(rows):
            continue
        limit = _as_images(limits[rows], images)
        rows = rows.to(images.device)
        selected = images[rows]
        inside = (selected - limit if side == 0 else limit - selected).clamp_(min=0)  # HU from the limit
        # the tolerance is for interpolated crops
        clipped = (inside < 0.01).to(inside.dtype)
        share, distance = _local_mean(clipped), _local_mean(inside)
        max_distance = _BELOW + limit.clamp(min=0) if side == 0 else torch.full_like(limit, _ABOVE)
        # the small constants give pixels among clipped ones the largest distance
        unclipped_share = (1 - share).clamp_(min=1e-4)
        beyond = distance.add_(0.01).div_(unclipped_share).mul_(share.div_(unclipped_share).sqrt_())
        selected.sub_(beyond.minimum(max_distance).mul_(clipped), alpha=sign)
        images = selected if len(rows) == len(images) else images.index_copy(0, rows, selected)
    return images


def _local_mean(images: torch.Tensor) -> torch.Tensor:
    """Return the mean over 5×5 pixels around each pixel, edges repeated."""
    padded = functional.pad(images, (2,) * 4, mode="replicate")
    # sums of two, four and five pixels: several times as fast as pooling on a CPU
    two = padded[..., :-1] + padded[..., 1:]
    five = (two[..., :-3] + two[..., 2:-1]).add_(padded[..., 4:])
    two = five[..., :-1, :] + five[..., 1:, :]
    return (two[..., :-3, :] + two[..., 2:-1, :]).add_(five[..., 4:, :]).mul_(1 / 25)


def hu_curve(hu: torch.Tensor, params: ScannerParameters) -> torch.Tensor:
    """Map HU by contrast phase, gamma curve and contrast, in this order; all three are increasing functions.

    Contrast phase: fat, water and all tissue up to 60 HU stay the same. The liver (110 HU in the portal venous phase)
    is mapped to 60 + 50 `liver`, vessels and kidneys (165 HU) to 60 + 105 `vessels`, but at least a fifth of 55 HU
    above the liver, so that the curve increases. Bone (700 HU) and above stay the same. The curve is linear between
    these knots, which are ours. Lesions darker than the liver lose or gain contrast with it. A curve cannot distinguish
    arteries from veins.
    Gamma: [-200, 300] HU are mapped to [0, 1], raised to the power of gamma, and mapped back; other HU stay the same.
    Contrast: distances from 60 HU are multiplied by `contrast`.

    Args:
        hu: HU of shape (n,).
        params: fields of shape (batch,).

    Returns:
        Float32 (batch, n).
    """
    values = hu.float()[None]
    liver = _SOFT_TISSUE + (_LIVER - _SOFT_TISSUE) * params.liver[:, None]
    vessels = _SOFT_TISSUE + (_VESSELS - _SOFT_TISSUE) * params.vessels[:, None]
    vessels = torch.maximum(vessels, liver + 0.2 * (_VESSELS - _LIVER))
    knots = (_SOFT_TISSUE, _LIVER, _VESSELS, _BONE)
    heights = (torch.full_like(liver, _SOFT_TISSUE), liver, vessels, torch.full_like(liver, _BONE))
    out = values.expand(len(liver), -1)
    for start, end, low, high in zip(knots[:-1], knots[1:], heights[:-1], heights[1:], strict=True):
        line = low + (values - start) * ((high - low) / (end - start))
        out = torch.where((values > start) & (values <= end), line, out)
    lower, upper = _GAMMA_RANGE
    relative = ((out - lower) / (upper - lower)).clamp(0, 1)
    curved = lower + (upper - lower) * relative ** params.gamma[:, None]
    out = torch.where((out > lower) & (out < upper) & (params.gamma[:, None] != 1), curved, out)
    return _SOFT_TISSUE + params.contrast[:, None] * (out - _SOFT_TISSUE)


def _apply_hu_curve(images: torch.Tensor, params: ScannerParameters) -> torch.Tensor:
    # a table with linear interpolation between integer HU, where the knots are, is far faster than powers of all pixels
    first, last = _TABLE
    values = hu_curve(torch.arange(first, last + 1), params)
    table = torch.stack([values[:, :-1], values.diff(dim=1)]).to(images.device).reshape(2, -1)
    floors = images.floor().clamp_(first, last - 1)
    offsets = torch.arange(len(images), device=images.device)[:, None, None, None] * (last - first) - first
    index = floors.long() + offsets
    return table[0].take(index).addcmul_(images - floors, table[1].take(index))


def _thicken_slices(images: torch.Tensor, params: ScannerParameters) -> torch.Tensor:
    slices = images.shape[1]
    identity, number = torch.eye(slices), torch.arange(slices)
    below, above = identity[(number - 1).clamp(min=0)], identity[(number + 1).clamp(max=slices - 1)]
    share = params.thickness[:, None, None]
    weights = identity * (1 - 2 * share) + share * (below + above)
    return torch.matmul(weights.to(images.device), images.flatten(2)).reshape(images.shape)


def _add_streaks(images: torch.Tensor, params: ScannerParameters) -> torch.Tensor:
    height, width = images.shape[-2:]
    rows = torch.arange(height)[None, :] - params.streak_row[:, None] * (height - 1)
    columns = torch.arange(width)[None, :] - params.streak_column[:, None] * (width - 1)
    streaks = (
        (params.streak_angle_1, params.streak_hu_1),
        (params.streak_angle_2, params.streak_hu_2),
        (params.streak_angle_3, params.streak_hu_3),
    )
    added = images.new_zeros(len(images), height, width)
    for angle, hu in streaks:
        distance = (rows * (angle.cos() / params.streak_width)[:, None]).to(images.device)[:, :, None] + (
            columns * (angle.sin() / params.streak_width)[:, None]
        ).to(images.device)[:, None, :]
        added += hu.to(images.device)[:, None, None] * distance.square_().mul_(-0.5).exp_()
    return images + added[:, None]


def _enlarge_pixels(images: torch.Tensor, params: ScannerParameters) -> torch.Tensor:
    def matrices(length: int) -> torch.Tensor:
        return torch.stack([_pixel_matrix(length, float(factor)) for factor in params.resolution])

    return _filter_separably(images, matrices)


def _pixel_matrix(length: int, factor: float) -> torch.Tensor:
    """Return the matrix (length, length) of averaging over pixels `factor` times as large and interpolating back."""
    pixels = max(round(length / factor), 1)
    edges = torch.linspace(0, length, pixels + 1)
    position = torch.arange(length)
    overlap = (torch.minimum(edges[1:, None], position + 1) - torch.maximum(edges[:-1, None], position)).clamp_(min=0)
    averages = overlap / overlap.sum(1, keepdim=True)
    coordinate = ((position + 0.5) * pixels / length - 0.5).clamp_(0, pixels - 1)
    interpolation = (1 - (coordinate[:, None] - torch.arange(pixels)).abs()).clamp_(min=0)
    return interpolation @ averages


def _apply_point_spread(images: torch.Tensor, params: ScannerParameters) -> torch.Tensor:
    blurred = _filter_separably(images, lambda length: _blur_matrix(length, params.blur_sigma))
    return images.lerp(blurred, _as_images(params.blur_amount, images))


def _blur_matrix(length: int, sigma: torch.Tensor) -> torch.Tensor:
    """Return the matrices (batch, length, length) of Gaussians with `sigma` in pixels and repeated edges."""
    reach = 4 * math.ceil(float(sigma.max()))
    position = torch.arange(-reach, length + reach)
    distance = (torch.arange(length)[:, None] - position) / sigma[:, None, None]
    weight = torch.exp(-0.5 * distance**2) * (distance.abs() <= 4)  # the kernel does not depend on the batch's sigmas
    weight /= weight.sum(2, keepdim=True)
    inside = weight[..., reach : reach + length].clone()
    inside[..., 0] += weight[..., :reach].sum(2)
    inside[..., -1] += weight[..., reach + length :].sum(2)
    return inside


def _filter_separably(images: torch.Tensor, matrices: Callable[[int], torch.Tensor]) -> torch.Tensor:
    """Apply a separable linear filter given as matrices (batch, length, length), which is fast for small crops."""
    height, width = images.shape[-2:]
    row_filter = matrices(height).to(images)[:, None]
    column_filter = row_filter if width == height else matrices(width).to(images)[:, None]
    return row_filter @ images @ column_filter.transpose(-1, -2)


def noise_amplitude(height: int, width: int, params: ScannerParameters) -> torch.Tensor:
    """Return the noise amplitude over in-plane frequency for unit variance in the image, (batch, height, width).

    Filtered back-projection: power is ramp × apodisation squared (Riederer, Pelc and Chesler, Phys Med Biol 23 (1978)
    446), here with a squared cosine that ends at the cut-off and a small constant at frequency 0, as in the phantoms.
    Low-pass: the noise of an image smoothed by a Gaussian, power exp(-(f / cut-off)²), because the noise after
    iterative reconstruction looks smooth; the form is ours. White: flat.

    Args:
        height: rows of the image.
        width: columns.
        params: `noise_kind` and `noise_cutoff` are used, each (batch,).
    """
    f = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)) / params.noise_cutoff[:, None, None]
    window = (torch.pi / 2 * f.clamp(max=1)).cos() ** 2
    kind = params.noise_kind[:, None, None]
    power = torch.where(
        kind == NOISE_KINDS.index("back_projection"),
        (f + _ZERO_FREQUENCY) * window**2,
        torch.where(kind == NOISE_KINDS.index("low_pass"), torch.exp(-(f**2)), torch.ones_like(f)),
    )
    return (power / power.mean((1, 2), keepdim=True)).sqrt()


def _add_noise(images: torch.Tensor, params: ScannerParameters) -> torch.Tensor:
    slices, height, width = images.shape[1:]
    device = images.device
    generator = torch.Generator(device=device)
    # real and imaginary part of a complex field are the noise of one slice each
    pairs = -(-slices // 2)
    fields = torch.stack(
        [
            torch.randn((pairs, height, width, 2), generator=generator.manual_seed(int(seed)), device=device)
            for seed in params.seed
        ]
    )
    coloured = (params.noise_kind != NOISE_KINDS.index("white")).nonzero()[:, 0]
    if len(coloured):
        selected = ScannerParameters(*(values[coloured] for values in params))
        amplitude = noise_amplitude(height, width, selected).to(device)[:, None, :, :, None]
        rows = coloured.to(device)
        spectrum = torch.view_as_complex(fields[rows] * amplitude)
        fields[rows] = torch.view_as_real(torch.fft.ifft2(spectrum, norm="ortho"))
    noise = fields.movedim(-1, 2).flatten(1, 2)[:, :slices]
    noise = noise * _as_images(params.noise, images)
    # a chain from the middle outwards: neighbours correlate, more distant slices less
    middle, correlation = slices // 2, params.noise_correlation.to(device)[:, None, None]
    independent = (1 - correlation**2).sqrt()
    for number in (*range(middle - 1, -1, -1), *range(middle + 1, slices)):
        neighbour = number + 1 if number < middle else number - 1
        noise[:, number] = correlation * noise[:, neighbour] + independent * noise[:, number]
    return images + noise


def _repeat_slices(images: torch.Tensor, params: ScannerParameters) -> torch.Tensor:
    slices = images.shape[1]
    middle = slices // 2
    source = torch.arange(slices).repeat(len(images), 1)
    every, below, above = ((params.repeated == number)[:, None] for number in (1, 2, 3))
    source = torch.where(every, middle, source)
    source = torch.where(below, source.clamp(min=middle), torch.where(above, source.clamp(max=middle), source))
    return images.take_along_dim(source.to(images.device)[:, :, None, None], 1)
