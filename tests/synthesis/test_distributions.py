"""Sizes, numbers and types of synthetic lesions, compared with 913 real lesions."""

from __future__ import annotations

import numpy as np
import pytest

from liverseg.labels import LESION_TYPES
from liverseg.synthesis import draw_count, draw_diameter, draw_patient, draw_section, draw_types


def quantiles(values: list[float], *percent: float) -> list[float]:
    return [float(value) for value in np.percentile(values, percent)]


def test_diameters_are_those_of_real_lesions() -> None:
    rng = np.random.default_rng(0)
    low, median, high = quantiles([draw_diameter(rng) for _ in range(20_000)], 25, 50, 75)
    assert low == pytest.approx(6.6, abs=0.5)
    assert median == pytest.approx(10.4, abs=0.4)
    assert high == pytest.approx(17.0, abs=0.7)


def test_a_slice_meets_lesions_in_proportion_to_their_diameter() -> None:
    rng = np.random.default_rng(0)
    all_of_them = np.array([draw_diameter(rng, 60) for _ in range(40_000)])
    met = rng.choice(all_of_them, 40_000, p=all_of_them / all_of_them.sum())
    drawn = [draw_diameter(rng, 60, in_section=True) for _ in range(40_000)]
    assert quantiles(drawn, 25, 50, 75) == pytest.approx(quantiles(met.tolist(), 25, 50, 75), rel=0.08)


def test_diameters_keep_their_limits() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_diameter(rng, 8.0) for _ in range(500)]
    assert min(drawn) == 3.0
    assert max(drawn) == 8.0
    assert draw_diameter(rng, 1.0) == 3.0


def test_numbers_are_those_of_patients_with_lesions() -> None:
    rng = np.random.default_rng(0)
    few, median, many, most = quantiles([draw_count(rng) for _ in range(20_000)], 5, 50, 75, 95)
    assert few == 1
    assert 3.5 <= median <= 5.5
    assert 8 <= many <= 11
    assert 20 <= most <= 26


def test_one_patient_of_ten_has_no_lesion() -> None:
    rng = np.random.default_rng(0)
    assert np.mean([not draw_patient(rng) for _ in range(5000)]) == pytest.approx(0.10, abs=0.015)


def test_a_section_has_at_least_one_lesion_and_seldom_many() -> None:
    rng = np.random.default_rng(0)
    counts = [len(draw_section(rng)) for _ in range(5000)]
    assert min(counts) == 1
    assert 1.3 <= np.mean(counts) <= 1.8


def test_types_are_equally_likely_and_mostly_alike_in_a_patient() -> None:
    rng = np.random.RandomState(0)
    patients = [draw_types(rng, 4) for _ in range(3000)]
    firsts = [kinds[0] for kinds in patients]
    for kind in LESION_TYPES:
        assert firsts.count(kind) / 3000 == pytest.approx(1 / 3, abs=0.04)
    mixed = np.mean([len(set(kinds)) > 1 for kinds in patients])
    assert 0.1 <= mixed <= 0.2  # one in five is, unless no other type is drawn
    assert all(len(set(kinds)) <= 2 for kinds in patients)
    assert draw_types(rng, 3, "cyst")[0] == "cyst"
