"""Draw the pictures in docs/phantom.md.

    liverseg phantom PHANTOMS --volumes 4
    python benchmarks/phantom_pictures.py PHANTOMS docs/images

Patients are chosen by number and lesions by rank, not by hand.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage

from liverseg.imageio.volume import read_volume
from liverseg.labels import JOINT_LABELS, LESION, LESION_TYPES, PRETRAIN_LABELS, Label
from liverseg.phantom.acquisition import Scanner, noise_transfer, scan_noise

ABDOMEN_HU = (-160, 240)
"""The usual abdominal window: level 40, width 400."""
LIVER_HU = (-30, 210)
"""A narrow window for lesions: level 90, width 240."""
VOLUMES = 4
RANKS = (0.95, 0.75, 0.5, 0.25, 0.05)
"""Lesions shown of each type, as quantiles of contrast-to-noise: from easy to hard."""
CROP_MM = 90.0
KERNELS = (0.55, 0.65, 0.8)
"""Kernel cut-offs in cycles per mm, from the range that `patient` draws from; the pixel's limit may be lower."""
GREYS = 72
SHADES = 6
"""Greys and shades of each label's colour in a saved picture's palette; fewer greys compress better."""


def colour(label: Label) -> tuple[float, float, float]:
    """Return a label's colour, each channel 0 to 1."""
    red, green, blue = label.color
    return (red / 255, green / 255, blue / 255)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG; the same figure gives the same bytes."""
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", metadata={"Software": None}, pil_kwargs={"optimize": True})
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def save_dark(figure: Figure, path: Path) -> None:
    """Write a figure of CT images with outlines as a PNG of few colours; the same figure gives the same bytes."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    greys = np.repeat(np.linspace(0, 255, GREYS)[:, None], 3, axis=1)
    # from black over the colour itself to white, without the ends, which are greys
    colours = [
        np.interp(np.linspace(0, 2, SHADES + 2)[1:-1], (0, 1, 2), (0, channel, 255))
        for label in JOINT_LABELS[1:]
        for channel in label.color
    ]
    tints = np.stack(colours).reshape(-1, 3, SHADES).transpose(0, 2, 1).reshape(-1, 3)
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.rint(np.concatenate([greys, tints])).astype(np.uint8).ravel().tolist())
    picture = Image.open(buffer).convert("RGB")
    picture.quantize(palette=palette, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def show(
    axes: Axes,
    hu: np.ndarray,
    window: tuple[int, int],
    proportion: float = 1.0,
    label: np.ndarray | None = None,
    table: Sequence[Label] = (),
) -> None:
    """Draw one plane of HU, with the outlines of the labels in `table` if a label plane is given.

    Args:
        axes: to draw into.
        hu: (row, column).
        window: HU of black and of white.
        proportion: row spacing over column spacing.
        label: label map of the same shape.
        table: labels to outline.
    """
    axes.imshow(hu, cmap="gray", vmin=window[0], vmax=window[1], aspect=proportion)
    axes.set_axis_off()
    for entry in table:
        if label is not None and (label == entry.index).any():
            mask = (label == entry.index).astype(np.float32)
            axes.contour(mask, levels=[0.5], colors=[colour(entry)], linewidths=1.0)


def draw_abdomens(lits: Path, path: Path) -> None:
    """Draw the first volumes: the slice with most lesion, the same with outlines, and a coronal plane through it."""
    figure = Figure(figsize=(3.4 * VOLUMES, 7.6), dpi=100, facecolor="black")
    rows = figure.subplots(3, VOLUMES, gridspec_kw={"height_ratios": (1, 1, 0.9)})
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.96, 0.02, 0.02)
    for number, column in enumerate(rows.T):
        volume = read_volume(lits / f"volume-{number}.nii.gz")
        hu, label = volume.axial, read_volume(lits / f"segmentation-{number}.nii.gz").axial
        facts = json.loads((lits / "records" / f"case-{number}.json").read_text(encoding="utf-8"))["facts"]
        slice_mm, row_mm, column_mm = volume.axial_spacing
        index = int(np.argmax((label == LESION).sum(axis=(1, 2))))
        row = round(float(np.argwhere(label[index] == LESION)[:, 0].mean()))
        rows_shown, columns_shown = body_box(hu[index])
        axial, truth = hu[index, rows_shown, columns_shown], label[index, rows_shown, columns_shown]
        show(column[0], axial, ABDOMEN_HU, row_mm / column_mm)
        show(column[1], axial, ABDOMEN_HU, row_mm / column_mm, truth, PRETRAIN_LABELS[1:])
        show(column[2], hu[::-1, row, columns_shown], ABDOMEN_HU, slice_mm / column_mm)
        title = (
            f"slices {facts['thickness_mm']:g} mm, noise {facts['noise_hu']:.0f} HU, liver {facts['liver_hu']:.0f} HU"
        )
        column[0].set_title(title, color="white", fontsize=9, pad=3)
    save_dark(figure, path)


def body_box(hu: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns of one axial slice that contain the body, with a few pixels of margin."""
    parts, _ = ndimage.label(hu > -300)
    body = parts == np.bincount(parts[parts > 0]).argmax()
    rows, columns = np.flatnonzero(body.any(axis=1)), np.flatnonzero(body.any(axis=0))
    return slice(max(rows[0] - 8, 0), rows[-1] + 9), slice(max(columns[0] - 8, 0), columns[-1] + 9)


def draw_lesions(cohort: Path, lesions: pd.DataFrame, path: Path) -> None:
    """Draw lesions of each type from easy to hard: a crop, and below it the same crop with the true outline."""
    types, columns = len(LESION_TYPES), len(RANKS)
    figure = Figure(figsize=(1.75 * columns + 0.25, 3.75 * types), dpi=100, facecolor="black")
    grid = figure.subplots(2 * types, columns)
    figure.subplots_adjust(0.03, 0.005, 0.995, 0.975, 0.03, 0.12)
    for place, kind in enumerate(LESION_TYPES):
        ranked = lesions[lesions["lesion_type"] == kind].sort_values("contrast_to_noise", kind="stable")
        for column, rank in enumerate(RANKS):
            lesion = ranked.iloc[round(rank * (len(ranked) - 1))]
            plain, outlined = grid[2 * place, column], grid[2 * place + 1, column]
            hu, label = crop(cohort, lesion)
            show(plain, hu, LIVER_HU)
            show(outlined, hu, LIVER_HU, label=label, table=JOINT_LABELS[LESION:])
            title = f"{lesion['diameter_mm']:.0f} mm, {lesion['mean_hu']:.0f} HU, CNR {lesion['contrast_to_noise']:.1f}"
            plain.set_title(title, color="white", fontsize=8, pad=2)
        box = grid[2 * place, 0].get_position()
        colour_of_kind = colour(JOINT_LABELS[LESION + place])
        figure.text(0.006, box.y0, kind, color=colour_of_kind, fontsize=11, rotation=90, va="center")
    save_dark(figure, path)


def crop(cohort: Path, lesion: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Return HU and label, (row, column), of a square of `CROP_MM` around a lesion's centroid, on its slice."""
    volume = read_volume(cohort / "images" / f"{lesion['patient']}.nii.gz")
    label = read_volume(cohort / "labels" / f"{lesion['patient']}.nii.gz")
    centroid = np.array([lesion["x_mm"], lesion["y_mm"], lesion["z_mm"], 1.0])
    index, row, column = np.rint((np.linalg.inv(volume.axial_affine) @ centroid)[:3]).astype(int)
    half = round(CROP_MM / 2 / volume.axial_spacing[1])
    # padded, so that a lesion near the slice's edge is in the middle as well
    hu = np.pad(volume.axial[index], half, constant_values=-1024)
    truth = np.pad(label.axial[index], half)
    window = (slice(row, row + 2 * half + 1), slice(column, column + 2 * half + 1))
    return hu[window], truth[window]


def draw_overlap(lesions: pd.DataFrame, path: Path) -> None:
    """Plot mean HU and diameter of every lesion, the features of the logistic regression."""
    figure = Figure(figsize=(7.5, 4.2), dpi=110, layout="constrained")
    axes = figure.subplots()
    for kind, marker in zip(LESION_TYPES, "os^", strict=True):
        rows = lesions[lesions["lesion_type"] == kind]
        tint = colour(JOINT_LABELS[LESION + LESION_TYPES.index(kind)])
        hidden = rows["contrast_to_noise"] < 1.5
        style = {"marker": marker, "s": 26, "edgecolors": "black", "linewidths": 0.6}
        axes.scatter(rows["diameter_mm"][~hidden], rows["mean_hu"][~hidden], color=tint, label=kind, **style)
        axes.scatter(rows["diameter_mm"][hidden], rows["mean_hu"][hidden], facecolors="white", **style)
    axes.scatter([], [], marker="o", facecolors="white", edgecolors="black", label="contrast-to-noise below 1.5")
    axes.set(xscale="log", xlabel="diameter of the ball of its volume, mm", ylabel="mean HU in the true outline")
    axes.set_xticks([6, 10, 20, 40], ["6", "10", "20", "40"])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), handletextpad=0.1)
    save(figure, path)


def draw_noise(path: Path) -> None:
    """Draw a patch of the phantom's noise, white noise of the same strength, and the noise power over frequency."""
    rng = np.random.default_rng(0)
    figure = Figure(figsize=(11, 3.6), dpi=100, layout="constrained")
    left, middle, right = figure.subplots(1, 3, gridspec_kw={"width_ratios": (1, 1, 1.5)})
    for kernel in KERNELS:
        scanner = Scanner(370.0, 512, (0.0, 0.0), 0.0, 4, 2.0, 1.0, 13.0, kernel, 0.35)
        noise = scan_noise(rng, scanner)
        frequency, measured = radial_power(noise[:, 128:384, 128:384], scanner.pixel)
        cut = min(kernel, 0.5 / scanner.pixel)
        line = right.plot(frequency, measured, "o", ms=3, label=f"cut-off {cut:.2f} cycles/mm")[0]
        # the formula, averaged alike; it is of unit variance, and noise in the middle is a little over `noise`
        transfer = np.fft.irfft2(noise_transfer(scanner), (512, 512))
        frequency, formula = radial_power(transfer[None], scanner.pixel)
        right.plot(frequency, formula * 512**2 * noise[:, 128:384, 128:384].var(), color=line.get_color(), lw=1)
        if kernel == KERNELS[1]:
            strength = float(noise[0, 192:320, 192:320].std())
            white = strength * rng.standard_normal((128, 128))
            right.axhline(strength**2 * scanner.pixel**2, color="grey", ls="--", lw=1, label="white noise")
            for axes, patch, name in ((left, noise[0, 192:320, 192:320], "phantom"), (middle, white, "white")):
                show(axes, patch, (-45, 45))
                axes.set_title(f"{name} noise, {strength:.0f} HU", fontsize=10)
    right.set(xlabel="in-plane frequency, cycles/mm", ylabel="noise power, HU² mm²", xlim=(0, 0.7), ylim=(0, None))
    right.legend(frameon=False, fontsize=8)
    save(figure, path)


def radial_power(noise: np.ndarray, pixel: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the noise power spectrum, HU² mm², over in-plane frequency, cycles per mm; mean of slices and directions.

    Args:
        noise: (slice, row, column), HU, square slices.
        pixel: spacing, mm.
    """
    size = noise.shape[-1]
    power = (np.abs(np.fft.fft2(noise)) ** 2).mean(axis=0) * pixel**2 / size**2
    f = np.fft.fftfreq(size, pixel)
    ring = np.rint(np.hypot(f[:, None], f[None]) / 0.02).astype(int)
    mean = np.bincount(ring.ravel(), power.ravel()) / np.bincount(ring.ravel())
    return 0.02 * np.arange(len(mean)), mean


def main() -> None:
    """Draw all pictures into a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("phantoms", type=Path, help="folder with lits/ and cohort/, as `liverseg phantom` writes it")
    parser.add_argument("images", type=Path, help="folder for the pictures")
    args = parser.parse_args()
    args.images.mkdir(parents=True, exist_ok=True)
    lesions = pd.read_csv(args.phantoms / "cohort" / "lesions.csv")
    draw_abdomens(args.phantoms / "lits", args.images / "phantom_abdomens.png")
    draw_lesions(args.phantoms / "cohort", lesions, args.images / "phantom_lesions.png")
    draw_overlap(lesions, args.images / "phantom_overlap.png")
    draw_noise(args.images / "phantom_noise.png")


if __name__ == "__main__":
    main()
