"""Augmentation's scanners, applied: a batch of crops as other scanners would have shown them, on the training device.

Everything is computed for those crops of a batch alone that have drawn it, and in an order like that of a real scan:
contrast medium, detector, slice thickness, artefacts, point spread, noise, storage.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn import functional

from liverseg.transforms.scanner import NOISE_KINDS, ScannerParameters

__all__ = ["apply_scanner", "hu_curve", "noise_amplitude", "restore_clipped"]

_SOFT_TISSUE = 60.0
"""HU about which contrast is scaled, and above which tissue counts as enhanced: ours, the liver without contrast."""

_LIVER, _VESSELS, _BONE = 110.0, 165.0, 700.0
"""HU of liver and vessels in the portal venous phase, as in docs/phantom.md, and of bone that no contrast changes."""

_GAMMA_RANGE = (-200.0, 300.0)
"""HU that the gamma curve maps to themselves; between them lies soft tissue."""

_TABLE = (-1100, 3200)
"""HU between which a curve is tabulated; beyond them it goes on as a straight line."""

_BELOW, _ABOVE = 100.0, 200.0
"""How far beyond a limit, in HU, a pixel is put amid clipped ones: what lies below 0 is mostly fat, above 250 bone."""

_ZERO_FREQUENCY = 0.04
"""What filtered back-projection leaves of the noise at frequency 0, as in `liverseg.phantom.acquisition`."""


def apply_scanner(
    images: torch.Tensor,
    drawn: torch.Tensor,
    hu_range: torch.Tensor | None = None,
    hu_offset: torch.Tensor | None = None,
) -> torch.Tensor:
    """Crops as the scanners that were drawn for them show them.

    In this order, each where it was drawn: clipped HU restored (`restore_clipped`), HU offset, contrast phase, gamma
    and contrast (`hu_curve`), thicker slices, streaks, larger pixels, blur or sharpening, noise, slices repeated, HU
    clipped. Thicker slices mix a share of either neighbour into each slice, the outer ones counting twice themselves
    for the neighbour that the slab does not hold. A streak is a straight band with a Gaussian profile, the same in all
    slices. Larger pixels are averages over squares, read between by linear interpolation.

    Random numbers of the noise come from a generator that each slab's own seed starts, so that a slab looks the same
    whatever it is batched with, and whichever process has it. Those of CPU and GPU differ.

    Args:
        images: (batch, slab slices, H, W), float HU; left alone.
        drawn: what `RandScannerd` drew, (batch, fields); best on the CPU, since it decides what is computed.
        hu_range: limits in HU to which each slab was clipped before, (batch, 2), -inf and inf where it was not; None
            where none was. The result is clipped to them again.
        hu_offset: HU that are added, (batch,).

    Returns:
        Float32 HU of the same shape.
    """
    drawn = drawn.cpu()
    of = ScannerParameters.of_batch(drawn)
    lower, upper = of.clip_lower, of.clip_upper
    images = images.float().clone()
    if hu_range is not None:
        hu_range = hu_range.cpu()
        lower, upper = torch.maximum(lower, hu_range[:, 0]), torch.minimum(upper, hu_range[:, 1])
        images = restore_clipped(images, hu_range)
    if hu_offset is not None:
        images += hu_offset.to(images.device)[:, None, None, None]
    effects = (
        ((of.liver != 1) | (of.vessels != 1) | (of.gamma != 1) | (of.contrast != 1), _with_curve),
        (of.thickness > 0, _with_thick_slices),
        ((of.streak_hu_1 != 0) | (of.streak_hu_2 != 0) | (of.streak_hu_3 != 0), _with_streaks),
        (of.resolution > 1, _with_large_pixels),
        (of.blur_amount != 0, _with_point_spread),
        (of.noise > 0, _with_noise),
        (of.repeated > 0, _with_repeated_slices),
    )
    for which, effect in effects:
        rows = which.nonzero()[:, 0]
        if len(rows) == len(images):
            images = effect(images, of)
        elif len(rows):
            images[rows.to(images.device)] = effect(
                images[rows.to(images.device)], ScannerParameters.of_batch(drawn[rows])
            )
    if torch.isfinite(lower).any() or torch.isfinite(upper).any():
        images = images.clamp(_as_images(lower, images), _as_images(upper, images))
    return images


def _as_images(values: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """One number for each slab, (batch, 1, 1, 1) on the images' device."""
    return values.to(images)[:, None, None, None]


def restore_clipped(images: torch.Tensor, hu_range: torch.Tensor) -> torch.Tensor:
    """Guess what clipped pixels were, so that noise, blur and offset act on clipped images as on others.

    Where an image was clipped to [0, 255] HU, say, fat and air are 0. Noise that is added to that makes half of the fat
    brighter than 0, but in a noisy scan that is clipped afterwards fat stays at 0, since it is -100 HU before. So
    clipped pixels are pushed beyond the limit first, and the caller clips them again at the end.

    How far depends on what lies around. Where a square of 5×5 pixels is clipped throughout, as in fat, it is 100 HU
    below the lower limit, or to -100 HU where that limit is above 0, and 200 HU above the upper one. Single clipped
    pixels are the tail of noisy tissue near the limit, as in a cyst, and must not become black dots: with the share p
    of clipped pixels in the square and the mean distance e of the others from the limit, it is e √(p / (1 - p)), and no
    more than above. For normally distributed HU that is what the clipped ones lie beyond the limit on average, within
    7 % for p from .05 to .95; at the edge of an organ, where half of the square is clipped, it mirrors the organ at the
    limit. The rule is ours.

    Args:
        images: (batch, channels, H, W), float HU; those not clipped may be the same tensor in the result.
        hu_range: (batch, 2), lower and upper limit in HU, -inf and inf for none.
    """
    for side, sign in ((0, 1.0), (1, -1.0)):
        limits = hu_range[:, side].cpu()
        rows = torch.isfinite(limits).nonzero()[:, 0]
        if not len(rows):
            continue
        limit = _as_images(limits[rows], images)
        rows = rows.to(images.device)
        chosen = images[rows]
        inside = (chosen - limit if side == 0 else limit - chosen).clamp_(min=0)  # HU from the limit
        # a little more than 0: crops are interpolated
        clipped = (inside < 0.01).to(inside.dtype)
        share, distance = _local_mean(clipped), _local_mean(inside)
        farthest = _BELOW + limit.clamp(min=0) if side == 0 else torch.full_like(limit, _ABOVE)
        # the small numbers put what has clipped pixels alone around it farthest
        others = (1 - share).clamp_(min=1e-4)
        beyond = distance.add_(0.01).div_(others).mul_(share.div_(others).sqrt_()).minimum(farthest)
        chosen.sub_(beyond.mul_(clipped), alpha=sign)
        images = chosen if len(rows) == len(images) else images.index_copy(0, rows, chosen)
    return images


def _local_mean(images: torch.Tensor) -> torch.Tensor:
    """Mean over the square of 5×5 pixels around each, edges repeated."""
    padded = functional.pad(images, (2,) * 4, mode="replicate")
    # sums of two, of four and of five: several times as fast as pooling on a CPU
    two = padded[..., :-1] + padded[..., 1:]
    five = (two[..., :-3] + two[..., 2:-1]).add_(padded[..., 4:])
    two = five[..., :-1, :] + five[..., 1:, :]
    return (two[..., :-3, :] + two[..., 2:-1, :]).add_(five[..., 4:, :]).mul_(1 / 25)


def hu_curve(hu: torch.Tensor, of: ScannerParameters) -> torch.Tensor:
    """HU as another contrast phase, a gamma curve and another contrast make them, in this order; each rises throughout.

    Contrast phase: fat, water and all up to 60 HU stay; the liver (110 HU in the portal venous phase) comes to
    60 + 50 `liver`, vessels and kidneys (165 HU) to 60 + 105 `vessels`, though at least a fifth of 55 HU above the
    liver, so that the curve rises; bone (700 HU) and more stay. Between these knots it is a straight line. Lesions
    darker than the liver lose or gain contrast with it. A curve cannot tell arteries from veins. The knots are ours.
    Gamma: [-200, 300] HU mapped to [0, 1], to the power of gamma, and back; other HU stay.
    Contrast: distances from 60 HU times `contrast`.

    Args:
        hu: HU of any shape (n,).
        of: fields of shape (batch,).

    Returns:
        Float32 (batch, n).
    """
    values = hu.float()[None]
    liver = _SOFT_TISSUE + (_LIVER - _SOFT_TISSUE) * of.liver[:, None]
    vessels = _SOFT_TISSUE + (_VESSELS - _SOFT_TISSUE) * of.vessels[:, None]
    vessels = torch.maximum(vessels, liver + 0.2 * (_VESSELS - _LIVER))
    knots = (_SOFT_TISSUE, _LIVER, _VESSELS, _BONE)
    heights = (torch.full_like(liver, _SOFT_TISSUE), liver, vessels, torch.full_like(liver, _BONE))
    out = values.expand(len(liver), -1)
    for start, end, low, high in zip(knots[:-1], knots[1:], heights[:-1], heights[1:], strict=True):
        line = low + (values - start) * ((high - low) / (end - start))
        out = torch.where((values > start) & (values <= end), line, out)
    dark, bright = _GAMMA_RANGE
    share = ((out - dark) / (bright - dark)).clamp(0, 1)
    bent = dark + (bright - dark) * share ** of.gamma[:, None]
    out = torch.where((out > dark) & (out < bright) & (of.gamma[:, None] != 1), bent, out)
    return _SOFT_TISSUE + of.contrast[:, None] * (out - _SOFT_TISSUE)


def _with_curve(images: torch.Tensor, of: ScannerParameters) -> torch.Tensor:
    # a table with straight lines between whole HU, where the knots are: powers of every pixel would take far longer
    first, last = _TABLE
    heights = hu_curve(torch.arange(first, last + 1), of)
    table = torch.stack([heights[:, :-1], heights.diff(dim=1)]).to(images.device).reshape(2, -1)
    place = images.floor().clamp_(first, last - 1)
    starts = torch.arange(len(images), device=images.device)[:, None, None, None] * (last - first) - first
    index = place.long() + starts
    return table[0].take(index).addcmul_(images - place, table[1].take(index))


def _with_thick_slices(images: torch.Tensor, of: ScannerParameters) -> torch.Tensor:
    slices = images.shape[1]
    own, number = torch.eye(slices), torch.arange(slices)
    below, above = own[(number - 1).clamp(min=0)], own[(number + 1).clamp(max=slices - 1)]
    share = of.thickness[:, None, None]
    mixed = own * (1 - 2 * share) + share * (below + above)
    return torch.matmul(mixed.to(images.device), images.flatten(2)).reshape(images.shape)


def _with_streaks(images: torch.Tensor, of: ScannerParameters) -> torch.Tensor:
    height, width = images.shape[-2:]
    rows = torch.arange(height)[None, :] - of.streak_row[:, None] * (height - 1)
    columns = torch.arange(width)[None, :] - of.streak_column[:, None] * (width - 1)
    bands = (
        (of.streak_angle_1, of.streak_hu_1),
        (of.streak_angle_2, of.streak_hu_2),
        (of.streak_angle_3, of.streak_hu_3),
    )
    added = images.new_zeros(len(images), height, width)
    for angle, hu in bands:
        across = (rows * (angle.cos() / of.streak_width)[:, None]).to(images.device)[:, :, None] + (
            columns * (angle.sin() / of.streak_width)[:, None]
        ).to(images.device)[:, None, :]
        added += hu.to(images.device)[:, None, None] * across.square_().mul_(-0.5).exp_()
    return images + added[:, None]


def _with_large_pixels(images: torch.Tensor, of: ScannerParameters) -> torch.Tensor:
    def averages(length: int) -> torch.Tensor:
        return torch.stack([_pixel_matrix(length, float(factor)) for factor in of.resolution])

    return _along_both(images, averages)


def _pixel_matrix(length: int, factor: float) -> torch.Tensor:
    """Averages over pixels `factor` times as large, interpolated back to `length` pixels; (length, length)."""
    pixels = max(round(length / factor), 1)
    edges = torch.linspace(0, length, pixels + 1)
    place = torch.arange(length)
    overlap = (torch.minimum(edges[1:, None], place + 1) - torch.maximum(edges[:-1, None], place)).clamp_(min=0)
    averages = overlap / overlap.sum(1, keepdim=True)
    read = ((place + 0.5) * pixels / length - 0.5).clamp_(0, pixels - 1)
    nearness = (1 - (read[:, None] - torch.arange(pixels)).abs()).clamp_(min=0)
    return nearness @ averages


def _with_point_spread(images: torch.Tensor, of: ScannerParameters) -> torch.Tensor:
    blurred = _along_both(images, lambda length: _blur_matrix(length, of.blur_sigma))
    return images.lerp(blurred, _as_images(of.blur_amount, images))


def _blur_matrix(length: int, sigma: torch.Tensor) -> torch.Tensor:
    """Gaussian of a standard deviation in pixels, the edge repeated; (batch, length, length)."""
    reach = 4 * math.ceil(float(sigma.max()))
    place = torch.arange(-reach, length + reach)
    apart = (torch.arange(length)[:, None] - place) / sigma[:, None, None]
    weight = torch.exp(-0.5 * apart**2) * (apart.abs() <= 4)  # the same taps whatever the others' sigma
    weight /= weight.sum(2, keepdim=True)
    inside = weight[..., reach : reach + length].clone()
    inside[..., 0] += weight[..., :reach].sum(2)
    inside[..., -1] += weight[..., reach + length :].sum(2)
    return inside


def _along_both(images: torch.Tensor, matrices: Callable[[int], torch.Tensor]) -> torch.Tensor:
    """A separable linear filter, given as its matrices (batch, length, length); as crops are small, that is fast."""
    height, width = images.shape[-2:]
    along_rows = matrices(height).to(images)[:, None]
    along_columns = along_rows if width == height else matrices(width).to(images)[:, None]
    return along_rows @ images @ along_columns.transpose(-1, -2)


def noise_amplitude(height: int, width: int, of: ScannerParameters) -> torch.Tensor:
    """Amplitude of the noise over in-plane frequency with unit variance in the image, (batch, height, width).

    Filtered back-projection: power is ramp × apodisation squared (Riederer, Pelc and Chesler, Phys Med Biol 23 (1978)
    446), here with a squared cosine that ends at the cut-off and a little left at frequency 0, as the phantoms have it.
    Low-pass: the noise of an image smoothed by a Gaussian, power exp(-(f / cut-off)²), as what iterative
    reconstruction leaves looks smooth; the form is ours. White: flat.

    Args:
        height: rows of the image.
        width: columns.
        of: `noise_kind` and `noise_cutoff` are used, each (batch,).
    """
    f = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)) / of.noise_cutoff[:, None, None]
    window = (torch.pi / 2 * f.clamp(max=1)).cos() ** 2
    kind = of.noise_kind[:, None, None]
    power = torch.where(
        kind == NOISE_KINDS.index("back_projection"),
        (f + _ZERO_FREQUENCY) * window**2,
        torch.where(kind == NOISE_KINDS.index("low_pass"), torch.exp(-(f**2)), torch.ones_like(f)),
    )
    return (power / power.mean((1, 2), keepdim=True)).sqrt()


def _with_noise(images: torch.Tensor, of: ScannerParameters) -> torch.Tensor:
    slices, height, width = images.shape[1:]
    device = images.device
    generator = torch.Generator(device=device)
    # a complex field has an image in its real and one in its imaginary part
    pairs = -(-slices // 2)
    fields = torch.stack(
        [
            torch.randn((pairs, height, width, 2), generator=generator.manual_seed(int(seed)), device=device)
            for seed in of.seed
        ]
    )
    coloured = (of.noise_kind != NOISE_KINDS.index("white")).nonzero()[:, 0]
    if len(coloured):
        chosen = ScannerParameters(*(field[coloured] for field in of))
        amplitude = noise_amplitude(height, width, chosen).to(device)[:, None, :, :, None]
        rows = coloured.to(device)
        spectrum = torch.view_as_complex(fields[rows] * amplitude)
        fields[rows] = torch.view_as_real(torch.fft.ifft2(spectrum, norm="ortho"))
    noise = fields.movedim(-1, 2).flatten(1, 2)[:, :slices]
    noise = noise * _as_images(of.noise, images)
    # a chain from the middle outwards: neighbours correlate, slices further apart less
    middle, shared = slices // 2, of.noise_correlation.to(device)[:, None, None]
    own = (1 - shared**2).sqrt()
    for number in (*range(middle - 1, -1, -1), *range(middle + 1, slices)):
        nearer = number + 1 if number < middle else number - 1
        noise[:, number] = shared * noise[:, nearer] + own * noise[:, number]
    return images + noise


def _with_repeated_slices(images: torch.Tensor, of: ScannerParameters) -> torch.Tensor:
    slices = images.shape[1]
    middle = slices // 2
    source = torch.arange(slices).repeat(len(images), 1)
    every, below, above = ((of.repeated == number)[:, None] for number in (1, 2, 3))
    source = torch.where(every, middle, source)
    source = torch.where(below, source.clamp(min=middle), torch.where(above, source.clamp(max=middle), source))
    return images.take_along_dim(source.to(images.device)[:, :, None, None], 1)
