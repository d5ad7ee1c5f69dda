"""Measurements of the training's lesions, and lesions unlike any of them."""

import numpy as np
import pandas as pd
import pytest

from liverseg.bundle.validation import are_lesion_ranges
from liverseg.evaluation import lesion_ranges
from liverseg.evaluation.lesion_ranges import MEASURES, training_distance, unlike_training
from liverseg.labels import LESION_TYPES

OF = {  # mean HU, its standard deviation, contrast to the liver, diameter
    "cyst": (8, 10, -100, 15),
    "hemangioma": (130, 16, 25, 18),
    "metastasis": (70, 14, -40, 20),
}


def rows(count=200, seed=0):
    random = np.random.default_rng(seed)
    tables = []
    for kind, means in OF.items():
        spreads = (8, 2, 8, 5)
        values = {
            name: random.normal(mean, spread, count)
            for name, mean, spread in zip(MEASURES, means, spreads, strict=True)
        }
        tables.append(pd.DataFrame({"type": kind, **values}))
    return pd.concat(tables, ignore_index=True)


def lesion(number=1, **changes):
    return {"id": number, **dict(zip(MEASURES, OF["metastasis"], strict=True)), **changes}


def test_ranges_hold_98_of_100_lesions():
    table = rows()
    ranges = lesion_ranges(table)
    assert list(ranges) == list(LESION_TYPES) and are_lesion_ranges(ranges)
    for kind, bounds in ranges.items():
        for measure, (low, high) in bounds.items():
            own = np.sort(table.loc[table["type"] == kind, measure].to_numpy())
            # the 1 % quantile of 200 values is between the second and third
            assert own[1] - 0.01 <= low <= own[2] + 0.01
            assert own[-3] - 0.01 <= high <= own[-2] + 0.01


def test_the_trainings_own_lesions_are_like_it():
    table = rows(seed=1)
    table.insert(0, "id", np.arange(1, len(table) + 1))
    unlike = unlike_training(table.to_dict("records"), lesion_ranges(rows()))
    assert len(unlike) <= 0.01 * len(table)


def test_lesion_outside_all_ranges_is_named_with_its_reason():
    ranges = lesion_ranges(rows())
    bright = lesion(1, mean_hu=210.0, liver_contrast_hu=100.0)
    table = pd.DataFrame([bright, lesion(2), lesion(3, longest_diameter_mm=150.0), lesion(4, std_hu=60.0)])
    reasons = unlike_training(table.to_dict("records"), ranges)
    assert sorted(reasons) == [1, 3, 4]
    low, high = ranges["metastasis"]["longest_diameter_mm"]
    assert reasons[3].endswith(
        f"a diameter of 150 mm, while 98 % of those of the nearest type, metastasis, have {low:.0f} to {high:.0f}"
    )
    assert "nearest type, hemangioma" in reasons[1]
    assert "a standard deviation of 60 HU" in reasons[4]


def test_a_quarter_of_the_range_may_be_missing():
    bounds = dict.fromkeys(MEASURES, (0.0, 100.0))
    inside = dict.fromkeys(MEASURES, 50.0)
    table = pd.DataFrame([{"id": 1, **inside, "mean_hu": 125.0}, {"id": 2, **inside, "mean_hu": 125.1}])
    assert list(unlike_training(table.to_dict("records"), {"cyst": bounds})) == [2]
    wide = {**bounds, "mean_hu": (0.0, 130.0)}
    # similar to one type is enough
    assert unlike_training(table.to_dict("records"), {"cyst": bounds, "metastasis": wide}) == {}


def test_what_was_not_measured_is_not_judged():
    ranges = lesion_ranges(rows())
    table = pd.DataFrame([lesion(1, liver_contrast_hu=np.nan)])
    assert unlike_training(table.to_dict("records"), ranges) == {}
    assert unlike_training([], ranges) == {}
    assert unlike_training(table.to_dict("records"), {"cyst": {"roundness": (0.0, 1.0)}}) == {}


def test_too_few_lesions_have_no_ranges():
    with pytest.raises(ValueError, match="19 lesions of type cyst with mean_hu; at least 20"):
        lesion_ranges(rows(19))
    table = rows(30)
    table.loc[table["type"] == "metastasis", "std_hu"] = np.nan
    with pytest.raises(ValueError, match="0 lesions of type metastasis with std_hu"):
        lesion_ranges(table)
    with pytest.raises(ValueError, match="rows without type, longest_diameter_mm"):
        lesion_ranges(rows(30).drop(columns=["type", "longest_diameter_mm"]))


def test_the_distance_agrees_with_the_lesions_that_are_unlike():
    ranges = lesion_ranges(rows())
    lesions = [lesion(number, mean_hu=70 + 4 * number, liver_contrast_hu=-40 + 4 * number) for number in range(1, 60)]
    unlike = unlike_training(lesions, ranges)
    assert 5 < len(unlike) < 55
    assert {row["id"] for row in lesions if training_distance(row, ranges) > 0.25} == set(unlike)
    assert training_distance(lesion(), ranges) == 0
    low, high = ranges["hemangioma"]["mean_hu"]
    shifted = lesion(**dict(zip(MEASURES, OF["hemangioma"], strict=True)) | {"mean_hu": high + 0.5 * (high - low)})
    assert training_distance(shifted, {"hemangioma": ranges["hemangioma"]}) == pytest.approx(0.5)
