"""Regions of a liver without outlined lesions that are labelled liver, and regions that stay unknown."""

from __future__ import annotations

import numpy as np
import pytest

from liverseg.labels import LIVER, LIVER_OR_LESION
from liverseg.synthesis.normal_liver import label_normal_liver

NOISE = 8.0


def make_slice() -> tuple[np.ndarray, np.ndarray]:
    """Return a liver of 110 HU in muscle of 50 HU, 1.5 mm pixels, all of it unknown."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:100, :120]
    label = np.where(((y - 50) / 40) ** 2 + ((x - 60) / 52) ** 2 < 1, LIVER_OR_LESION, 0).astype(np.uint8)
    return np.where(label > 0, 110, 50) + NOISE * rng.standard_normal(label.shape), label


def disc(row: int, column: int, radius_mm: float) -> np.ndarray:
    y, x = np.mgrid[:100, :120]
    return np.hypot(y - row, x - column) * 1.5 <= radius_mm


def relabel(hu: np.ndarray, label: np.ndarray) -> np.ndarray:
    return label_normal_liver(hu, label, 110.0, NOISE, (1.5, 1.5))


def test_parenchyma_and_its_rim_are_liver() -> None:
    hu, label = make_slice()
    result = relabel(hu, label)
    assert (result[label == 0] == 0).all()
    assert (result[label > 0] == LIVER).mean() > 0.995


@pytest.mark.parametrize("change", [-40.0, -90.0])
def test_a_dark_spot_stays_unknown_with_a_margin(change: float) -> None:
    hu, label = make_slice()
    spot = disc(45, 50, 8)
    hu[spot] += change
    result = relabel(hu, label)
    assert (result[spot] == LIVER_OR_LESION).all()
    assert (result[disc(45, 50, 9.5)] == LIVER_OR_LESION).all()
    assert (result[(label > 0) & ~disc(45, 50, 18)] == LIVER).mean() > 0.99


def test_thin_dark_vessels_and_bright_vessels_are_liver() -> None:
    hu, label = make_slice()
    hu[48:50, 30:90] -= 40  # 3 mm
    hu[disc(65, 60, 5)] += 60
    result = relabel(hu, label)
    assert (result[label > 0] == LIVER).mean() > 0.99


def test_a_large_bright_spot_stays_unknown() -> None:
    hu, label = make_slice()
    hu[disc(50, 60, 12)] += 45
    assert (relabel(hu, label)[disc(50, 60, 12)] == LIVER_OR_LESION).all()


def test_known_labels_are_kept() -> None:
    hu, label = make_slice()
    label[disc(50, 60, 10)] = 2
    result = relabel(hu, label)
    assert (result[disc(50, 60, 10)] == 2).all()
