"""Scanner augmentation: each part against another computation, no change by default, clipped images like others."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch.utils.data import default_collate

from liverseg.errors import UsageError
from liverseg.phantom.acquisition import Scanner, noise_transfer
from liverseg.transforms import RandScannerd, ScannerParameters, apply_scanner
from liverseg.transforms.scanner import NOISE_KINDS
from liverseg.transforms.scanner_effects import hu_curve, noise_amplitude, restore_clipped

EVERYTHING = {
    "phase_prob": 1, "gamma_prob": 1, "contrast_prob": 1, "thickness_prob": 1, "streak_prob": 1, "resolution_prob": 1,
    "blur_prob": 0.5, "sharpen_prob": 0.5, "noise_prob": 1, "single_slice_prob": 0.3, "volume_end_prob": 0.3,
    "clip_prob": 0.5,
}  # fmt: skip


def scanned(images, *parameters, **more):
    """Apply one scanner to each image."""
    return apply_scanner(images, torch.stack([params.tensor() for params in parameters]), **more)


def slabs(count=1, height=40, width=48, seed=0):
    """Return smooth HU from about -300 to 500."""
    noise = np.random.default_rng(seed).normal(size=(count, 3, height, width))
    smooth = ndimage.gaussian_filter(noise, (0, 0, 3, 3))
    return torch.from_numpy(100 + 150 * smooth / smooth.std()).float()


def drawn_from(count, seed=0, **arguments):
    scanner = RandScannerd(**arguments).set_random_state(seed=seed)
    return ScannerParameters.from_batch(default_collate([scanner({})["scanner"] for _ in range(count)]))


def test_by_default_nothing_is_changed():
    scanner = RandScannerd()
    data = {"image": torch.zeros(3, 4, 4)}
    result = scanner(data)
    assert set(data) == {"image"} and set(result) == {"image", "scanner"}
    assert torch.equal(result["scanner"], ScannerParameters().tensor())
    images = slabs(2)
    assert torch.equal(scanned(images, ScannerParameters(), ScannerParameters()), images)
    unclipped = torch.tensor([[-math.inf, math.inf]] * 2)
    assert torch.equal(scanned(images, *[ScannerParameters()] * 2, hu_range=unclipped), images)
    offset = scanned(images, *[ScannerParameters()] * 2, hu_offset=torch.tensor([3.0, -4.5]))
    torch.testing.assert_close(offset, images + torch.tensor([3.0, -4.5])[:, None, None, None])


def test_all_effects_together_are_finite_and_batch_independent():
    images, scanner = slabs(6), RandScannerd(**EVERYTHING).set_random_state(seed=2)
    drawn = torch.stack([scanner({})["scanner"] for _ in range(6)])
    before, hu_range = images.clone(), torch.tensor([[-math.inf, math.inf], [0, 255]] * 3)
    together = apply_scanner(images, drawn, hu_range)
    assert torch.equal(images, before)
    assert together.isfinite().all() and together.shape == images.shape and together.dtype == torch.float32
    assert (together - images).abs().mean() > 5
    for number in range(6):
        row = slice(number, number + 1)
        torch.testing.assert_close(apply_scanner(images[row], drawn[row], hu_range[row]), together[row])


def test_contrast_phase_maps_enhanced_hu_linearly():
    images = slabs(2) * 2
    late, early = ScannerParameters(liver=0.7, vessels=0.6), ScannerParameters(liver=1.2, vessels=1.5)
    result = scanned(images, late, early)
    knots = [-2000, 60, 110, 165, 700, 4000]
    for number, heights in enumerate([[-2000, 60, 95, 123, 700, 4000], [-2000, 60, 120, 217.5, 700, 4000]]):
        expected = np.interp(images[number].numpy(), knots, heights)
        np.testing.assert_allclose(result[number].numpy(), expected, atol=0.01)


def test_gamma_and_contrast():
    images = slabs(2) * 2
    result = scanned(images, ScannerParameters(gamma=1.4), ScannerParameters(contrast=0.8))
    hu = images[0].numpy().astype(float)
    inside = (hu > -200) & (hu < 300)
    expected = np.where(inside, 500 * (np.clip(hu + 200, 0, 500) / 500) ** 1.4 - 200, hu)
    assert 0.5 < inside.mean() < 1
    np.testing.assert_allclose(result[0].numpy(), expected, atol=0.02)
    np.testing.assert_allclose(result[1].numpy(), 60 + 0.8 * (images[1].numpy() - 60), atol=0.01)


@given(st.floats(0.1, 2), st.floats(0.1, 5), st.floats(0.2, 5), st.floats(0.1, 5))
@settings(max_examples=50, deadline=None)
def test_a_curve_rises_whatever_is_drawn(liver, vessels, gamma, contrast):
    params = ScannerParameters(
        *(torch.tensor([value]) for value in ScannerParameters(0, liver, vessels, gamma, contrast))
    )
    heights = hu_curve(torch.arange(-1100, 3200), params)[0]
    assert (heights.diff() >= 0).all() and heights[-1] > heights[0]


@pytest.mark.parametrize("kind", range(len(NOISE_KINDS)))
def test_noise_has_the_drawn_strength_and_spectrum(kind):
    params = [ScannerParameters(seed=seed, noise=17, noise_kind=kind, noise_cutoff=0.3) for seed in range(24)]
    noise = scanned(torch.zeros(24, 3, 60, 64), *params).numpy()
    assert noise.std() == pytest.approx(17, rel=0.02)
    assert [field.std() for field in noise] == pytest.approx([17] * 24, rel=0.15)
    power = (np.abs(np.fft.fft2(noise, norm="ortho")) ** 2).mean((0, 1))
    f = np.hypot(np.fft.fftfreq(60)[:, None], np.fft.fftfreq(64))
    if NOISE_KINDS[kind] == "white":
        expected = np.ones_like(f)
    elif NOISE_KINDS[kind] == "low_pass":
        expected = np.exp(-((f / 0.3) ** 2))
    else:
        x = np.minimum(f / 0.3, 1)
        expected = (x + 0.04) * np.cos(np.pi / 2 * x) ** 4
    for low in np.arange(0, 0.5, 0.05):
        ring = (f >= low) & (f < low + 0.05)
        share, expected_share = power[ring].sum() / power.sum(), expected[ring].sum() / expected.sum()
        assert share == pytest.approx(expected_share, rel=0.15, abs=0.002)


def test_filtered_back_projection_is_that_of_the_phantoms():
    scanner = Scanner(96, 96, (0, 0), 0, 1, 1, 1, 10, kernel=0.4, correlation=0)
    params = ScannerParameters(*(torch.tensor([v]) for v in ScannerParameters(noise_kind=1.0, noise_cutoff=0.4)))
    ours = noise_amplitude(96, 96, params)[0, :, :49].numpy()
    np.testing.assert_allclose(ours, noise_transfer(scanner), rtol=1e-3, atol=1e-3)


def test_noise_correlates_between_slices_but_not_between_seeds():
    params = [ScannerParameters(seed=seed, noise=10, noise_correlation=0.4) for seed in range(8)]
    noise = scanned(torch.zeros(8, 3, 64, 64), *params).numpy().transpose(1, 0, 2, 3)
    correlations = np.corrcoef(noise.reshape(3, -1))
    np.testing.assert_allclose(correlations, [[1, 0.4, 0.16], [0.4, 1, 0.4], [0.16, 0.4, 1]], atol=0.03)
    seeds = np.corrcoef(noise[1].reshape(8, -1))
    np.testing.assert_allclose(seeds, np.eye(8), atol=0.08)
    again = scanned(torch.zeros(8, 3, 64, 64), *params).numpy()
    np.testing.assert_array_equal(again, noise.transpose(1, 0, 2, 3))


def test_blur_and_sharpening():
    images = slabs(3)
    result = scanned(
        images,
        ScannerParameters(blur_sigma=1.2, blur_amount=1),
        ScannerParameters(blur_sigma=0.5, blur_amount=1),
        ScannerParameters(blur_sigma=1, blur_amount=-0.8),
    )
    for number, (sigma, amount) in enumerate([(1.2, 1), (0.5, 1), (1, -0.8)]):
        hu = images[number].numpy().astype(float)
        blurred = ndimage.gaussian_filter(hu, (0, sigma, sigma), mode="nearest", truncate=4)
        np.testing.assert_allclose(result[number].numpy(), hu + amount * (blurred - hu), atol=0.1)


def test_large_pixels():
    images = slabs(2, 40, 48)
    result = scanned(images, ScannerParameters(resolution=2), ScannerParameters(resolution=1.6))
    halved = torch.nn.functional.avg_pool2d(images[:1], 2)
    expected = torch.nn.functional.interpolate(halved, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(result[:1], expected, atol=1e-2, rtol=0)
    # 25 by 30 pixels of 1.6: averages of fine subpixels
    fine = images[1].numpy().repeat(5, 1).repeat(5, 2).reshape(3, 25, 8, 30, 8).mean((2, 4))
    expected = torch.nn.functional.interpolate(torch.from_numpy(fine)[None], (40, 48), mode="bilinear")
    torch.testing.assert_close(result[1:], expected, atol=1e-2, rtol=0)


def test_thick_and_repeated_slices():
    images = torch.tensor([0.0, 60, 90])[None, :, None, None].expand(5, 3, 2, 2)
    params = [ScannerParameters(thickness=0.25)] + [ScannerParameters(repeated=kind) for kind in (0, 1, 2, 3)]
    result = scanned(images, *params)[:, :, 0, 1].tolist()
    assert result == [[15, 52.5, 82.5], [0, 60, 90], [60, 60, 60], [60, 60, 90], [0, 60, 60]]
    noisy = scanned(images[:1], ScannerParameters(noise=9, repeated=1))
    assert torch.equal(noisy[0, 0], noisy[0, 1]) and torch.equal(noisy[0, 2], noisy[0, 1])


def test_streaks_are_bands_through_a_point():
    params = ScannerParameters(
        streak_row=0.25, streak_column=0.5, streak_width=3, streak_angle_1=0.0, streak_hu_1=20.0,
        streak_angle_2=math.pi / 2, streak_hu_2=-8.0,
    )  # fmt: skip
    result = scanned(torch.zeros(1, 3, 41, 31), params)[0]
    assert torch.equal(result[0], result[1]) and torch.equal(result[0], result[2])
    rows, columns = np.mgrid[:41, :31]
    expected = 20 * np.exp(-((rows - 10) ** 2) / 18) - 8 * np.exp(-((columns - 15) ** 2) / 18)
    np.testing.assert_allclose(result[0].numpy(), expected, atol=1e-3)


def test_hu_are_clipped_to_the_drawn_and_the_earlier_range():
    images = slabs(2) * 3
    params = ScannerParameters(clip_lower=-160, clip_upper=240)
    hu_range = torch.tensor([[-math.inf, math.inf], [0, 255]])
    result = scanned(images, params, params, hu_range=hu_range, hu_offset=torch.tensor([5.0, 5.0]))
    assert torch.equal(result[0], (images[0] + 5).clamp(-160, 240))
    assert (result[1].min(), result[1].max()) == (0, 240)


def abdomen(seed):
    """Return HU of a noisy scan (air, fat, a liver with a cyst and vessels, bone) and the masks of these."""
    rows, columns = np.mgrid[:96, :96]
    hu = np.full((96, 96), -1000.0)
    fat, liver = ((rows - 48) ** 2 + (columns - 48) ** 2 < radius**2 for radius in (44, 36))
    cyst = (rows - 40) ** 2 + (columns - 40) ** 2 < 10**2
    vessel = (rows - 60) ** 2 + (columns - 50) ** 2 < 6**2
    bone = (rows - 48) ** 2 + (columns - 66) ** 2 < 7**2
    for mask, value in ((fat, -100), (liver, 110), (cyst, 12), (vessel, 170), (bone, 600)):
        hu[mask] = value
    hu = ndimage.gaussian_filter(np.stack([hu] * 3), (0, 0.6, 0.6))
    hu += np.random.default_rng(seed).normal(0, 14, hu.shape)
    inner = {
        "fat": ndimage.binary_erosion(fat & ~liver, iterations=2),
        "cyst": ndimage.binary_erosion(cyst, iterations=2),
        "bone": ndimage.binary_erosion(bone, iterations=2),
        "liver": ndimage.binary_erosion(liver & ~cyst & ~vessel & ~bone, iterations=3),
    }
    return torch.from_numpy(hu).float(), inner


@pytest.mark.parametrize(
    "params",
    [
        ScannerParameters(noise=20),
        ScannerParameters(noise=12, noise_kind=1, noise_cutoff=0.4),
        ScannerParameters(blur_sigma=1.0, blur_amount=1, noise=15),
        ScannerParameters(thickness=0.3, contrast=1.2, noise=10),
        ScannerParameters(liver=0.7, vessels=1.3),
    ],
)
def test_effects_on_a_clipped_scan_agree_with_clipping_afterwards(params):
    scans, masks = zip(*(abdomen(seed) for seed in range(6)), strict=True)
    scans, masks = torch.stack(scans), masks[0]
    params = [params._replace(seed=float(seed)) for seed in range(6)]
    offset = torch.tensor([12.0, 12, 12, -12, -12, -12])
    limits = torch.tensor([[0.0, 255.0]] * 6)
    expected = scanned(scans, *params, hu_offset=offset).clamp(0, 255).numpy()
    result = scanned(scans.clamp(0, 255), *params, hu_range=limits, hu_offset=offset).numpy()
    for name, mask in masks.items():
        ours, theirs = result[..., mask], expected[..., mask]
        assert ours.mean() == pytest.approx(theirs.mean(), abs=1.5), name
        assert ours.std() == pytest.approx(theirs.std(), abs=1.5), name
        quantiles = [np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95]) for values in (ours, theirs)]
        np.testing.assert_allclose(*quantiles, atol=4, err_msg=name)
        for limit in (0, 255):
            assert (ours == limit).mean() == pytest.approx((theirs == limit).mean(), abs=0.08), name
    # without the treatment of clipping, fat would be wrong
    if params[0].noise:
        as_is = scanned(scans.clamp(0, 255), *params, hu_offset=offset).clamp(0, 255).numpy()
        fat = masks["fat"]
        assert (result[..., fat] == 0).mean() > 0.98 > 0.8 > (as_is[..., fat] == 0).mean()


def test_clipped_pixels_follow_a_normal_distribution():
    rng = np.random.default_rng(3)
    for mean in (-12.0, 0.0, 12.0):
        hu = torch.from_numpy(rng.normal(mean, 15, (1, 1, 200, 200))).float()
        restored = restore_clipped(hu.clamp(min=0), torch.tensor([[0.0, math.inf]]))
        clipped = hu < 0.01  # treated as clipped, since interpolation rounds
        assert torch.equal(restored[~clipped], hu[~clipped])
        assert restored[clipped].mean().item() == pytest.approx(hu[clipped].mean().item(), abs=3)
    uniform = torch.full((3, 1, 8, 8), 40.0)
    limits = torch.tensor([[40.0, math.inf], [-math.inf, 40], [-300, 3000]])
    assert restore_clipped(uniform, limits)[:, 0, 0, 0].tolist() == [-100, 240, 40]
    assert restore_clipped(uniform - 240, torch.tensor([[-200.0, 250]] * 3)).unique().tolist() == [-300]


def test_draws_fill_their_ranges_at_their_probabilities():
    params = drawn_from(
        1500, phase_prob=0.5, gamma_prob=0.25, thickness_prob=0.4, blur_prob=0.3, sharpen_prob=0.2, noise_prob=0.6,
        noise_kinds=(1, 2, 1), single_slice_prob=0.1, volume_end_prob=0.2, clip_prob=0.3, resolution_prob=0.5,
        streak_prob=0.5, clip=[[0, 255], [-160, 240]],
    )  # fmt: skip
    for values, neutral, share, low, high in (
        (params.liver, 1, 0.5, 0.6, 1.3), (params.vessels, 1, 0.5, 0.6, 1.6), (params.gamma, 1, 0.25, 0.7, 1.5),
        (params.thickness, 0, 0.4, 0, 0.33), (params.noise, 0, 0.6, 0, 25), (params.resolution, 1, 0.5, 1, 2),
        (params.streak_hu_1, 0, 0.5, -25, 25), (params.streak_hu_3, 0, 1 / 6, -25, 25),
    ):  # fmt: skip
        changed = values[values != neutral]
        assert len(changed) / 1500 == pytest.approx(share, abs=0.05)
        assert (
            low <= changed.min() < low + 0.1 * (high - low) and high - 0.1 * (high - low) < changed.max() <= high + 1e-6
        )
    assert (params.gamma[params.gamma != 1] < 1).float().mean().item() == pytest.approx(
        0.47, abs=0.09
    )  # log(.7) to log(1.5)
    assert (params.blur_amount == 1).float().mean().item() == pytest.approx(0.3, abs=0.05)
    assert (params.blur_amount < 0).float().mean().item() == pytest.approx(0.2, abs=0.05)
    noisy = params.noise_kind[params.noise > 0].long().bincount() / (params.noise > 0).sum()
    np.testing.assert_allclose(noisy.numpy(), [0.25, 0.5, 0.25], atol=0.06)
    np.testing.assert_allclose((params.repeated.long().bincount() / 1500).numpy(), [0.7, 0.1, 0.1, 0.1], atol=0.04)
    limits = {tuple(pair) for pair in torch.stack([params.clip_lower, params.clip_upper], 1).tolist()}
    assert limits == {(-math.inf, math.inf), (0, 255), (-160, 240)}
    assert len(params.seed[params.noise > 0].unique()) > 0.99 * (params.noise > 0).sum()
    assert not params.contrast.ne(1).any()
    again = drawn_from(3, seed=5, **EVERYTHING), drawn_from(3, seed=5, **EVERYTHING)
    assert all(torch.equal(first, second) for first, second in zip(*again, strict=True))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"noise_prob": 1.5}, "noise_prob is 1.5; it must be a number, 0 to 1"),
        ({"blur_prob": True}, "blur_prob is True; it must be a number, 0 to 1"),
        ({"noise_hu": 25}, "noise_hu is 25; it must be two numbers, the lower first, 0 to 1000"),
        ({"gamma": [1.5, 0.7]}, "gamma is [1.5, 0.7]; it must be two numbers, the lower first, 0.2 to 5"),
        ({"thickness": [0, 0.5]}, "thickness is [0, 0.5]; it must be two numbers, the lower first, 0 to 0.3333"),
        ({"clip": [0, 255]}, "clip is [0, 255]; it must be a list of ranges in HU, such as [[-200, 250]]"),
        ({"clip": []}, "clip is []; it must be a list of ranges in HU, such as [[-200, 250]]"),
        (
            {"noise_kinds": [1, 1]},
            "noise_kinds is [1, 1]; it must be 3 numbers, 0 or more and not all 0, for "
            "white, back_projection, low_pass",
        ),
        ({"blur_prob": 0.7, "sharpen_prob": 0.5}, "blur_prob and sharpen_prob add up to 1.2; they must not exceed 1"),
    ],
)
def test_an_argument_beyond_its_range_is_refused(arguments, words):
    with pytest.raises(UsageError) as caught:
        RandScannerd(**arguments)
    assert str(caught.value) == f"scanner augmentation: {words}"
