import csv
import io
import json
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest

from liverseg.errors import LiversegError, UsageError
from liverseg.followup.comparison import COLUMNS, compare_examinations
from liverseg.followup.examination import Identity, check_pair
from liverseg.followup.pictures import describe_change, type_groups
from liverseg.followup.registration import DisplacementField, LiverRegistration, RegistrationQuality
from liverseg.labels import PRETRAIN_LABELS

MOVE = (30, -12, 9)
BEFORE = [(20, 5, 10, 12, 4), (40, -5, -12, 8, 4), (-8, 4, 5, 6, 2), (10, -20, -20, 6, 4)]
AFTER = [(20, 5, 10, 16, 4), (40, -5, -12, 8, 3), (-8, 4, 5, 6, 2), (0, 15, 22, 5, 4)]


@pytest.fixture(scope="module")
def translation():
    vectors = np.broadcast_to(np.array(MOVE, float), (2, 2, 2, 3)).copy()
    field = DisplacementField(vectors, np.full(3, -200.0), 400.0)
    return LiverRegistration(field, RegistrationQuality(0.5, 1.0, 5.0, 1.0, 0.0))


@pytest.fixture(scope="module")
def comparison(make_examination, translation):
    first = make_examination(BEFORE, name="march")
    second = make_examination(AFTER, name="june", shift=MOVE, first=-60.0, seed=2)
    return compare_examinations(first, second, registration=translation)


def test_rows_say_what_became_of_each_lesion(comparison):
    rows = {tuple(row["baseline_ids"]): row for row in (change.record() for change in comparison.changes)}
    assert [row["status"] for row in rows.values()] == ["matched", "matched", "gone", "matched", "new"] or sorted(
        row["status"] for row in rows.values()
    ) == ["gone", "matched", "matched", "matched", "new"]
    grown, same = rows[(1,)], rows[(2,)]
    assert grown["longest_trend"] == grown["volume_trend"] == "grown"
    assert grown["longest_change_mm"] == pytest.approx(8.0, abs=1.5)
    assert grown["volume_change_ml"] == pytest.approx(4 / 3 * np.pi * (1.6**3 - 1.2**3), rel=0.06)
    assert same["longest_trend"] == "stable"
    assert same["type_changed"] and (same["baseline_type"], same["followup_type"]) == ("metastasis", "hemangioma")
    assert [grown[f"followup_{axis}_mm"] for axis in "xyz"] == pytest.approx([50, -7, 19], abs=1.5)


@pytest.mark.parametrize(
    ("baseline", "followup", "shown"),
    [
        (("hemangioma",), ("hemangioma", "cyst"), [["hemangioma"], ["hemangioma", "cyst"]]),
        (("cyst", "metastasis"), ("metastasis",), [["cyst", "metastasis"], ["metastasis"]]),
        (("cyst", "metastasis", "cyst"), ("metastasis", "cyst"), [["cyst", "metastasis"]]),
        ((), ("cyst", "cyst"), [["cyst"]]),
    ],
)
def test_types_of_the_parts_of_a_lesion_are_shown_for_each_examination(comparison, baseline, followup, shown):
    change = replace(comparison.changes[0], baseline_types=baseline, followup_types=followup)
    assert type_groups(change) == shown
    assert describe_change(change).startswith(" → ".join(map(", ".join, shown)) + ", ")


def test_a_place_is_given_where_there_is_no_lesion(comparison):
    gone = next(change for change in comparison.changes if change.match.status == "gone")
    assert gone.followup_mm == pytest.approx(np.add(gone.baseline_mm, MOVE), abs=0.1)
    new = next(change for change in comparison.changes if change.match.status == "new")
    assert new.baseline_mm == pytest.approx(np.subtract(new.followup_mm, MOVE), abs=0.1)


def test_sums_are_of_the_two_largest_metastases_and_a_new_one_is_progression(comparison):
    recist = comparison.recist
    assert recist.targets == (1, 2)
    sizes = [comparison.baseline.table.rows[number].longest_diameter_mm for number in (0, 1)]
    assert recist.baseline_sum_mm == pytest.approx(sum(sizes))
    assert recist.overall.value == "PD" and len(recist.new_lesions) == 1


def test_the_table_and_json_hold_the_rows(comparison):
    rows = list(csv.DictReader(io.StringIO(comparison.to_csv())))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == len(comparison.changes) == 5
    content = json.loads(json.dumps(comparison.to_json(), allow_nan=False))
    assert content["counts"]["matched"] == 3
    assert [row["lesion"] for row in content["lesions"]] == [1, 2, 3, 4, 5]
    for row, values in zip(rows, content["lesions"], strict=True):
        assert row["followup_ids"].split() == [str(number) for number in values["followup_ids"]]
        assert float(row["baseline_x_mm"]) == values["baseline_x_mm"]
    assert list(comparison.lesions.columns) == list(COLUMNS)


def test_without_lesions_there_is_nothing_to_add_up(make_examination, translation):
    first, second = make_examination(name="a"), make_examination(name="b", shift=MOVE, seed=2)
    found = compare_examinations(first, second, registration=translation)
    assert found.changes == () and found.recist.overall.value == "NE"
    assert len(found.to_csv().splitlines()) == 1


@pytest.fixture(scope="module")
def two(make_examination):
    return make_examination(name="a"), make_examination(name="b", seed=2)


def identity(number="4711", born="19610203", sex="F", issuer="", study="1.2", acquired="2020-04-05", has_time=False):
    when = None if acquired is None else datetime.fromisoformat(acquired)
    return Identity((number, born, sex), issuer, study, when, has_time)


@pytest.mark.parametrize(
    ("second", "part"),
    [
        ({"number": "4712"}, "different patient IDs"),
        ({"born": "19610204"}, "different birth dates"),
        ({"sex": "M"}, "different sexes"),
        ({"study": "1.2"}, "one study"),
        ({"acquired": "2020-04-04"}, "earlier than the baseline"),
    ],
)
def test_pairs_that_are_refused(two, second, part):
    first, other = two
    first = replace(first, identity=identity())
    other = replace(other, identity=identity(**{"study": "1.3", "acquired": "2020-07-01", **second}))
    with pytest.raises(LiversegError, match=part) as caught:
        check_pair(first, other)
    for secret in ("4711", "4712", "1961", "2020"):
        assert secret not in str(caught.value)


def test_a_copy_of_a_ct_in_another_file_is_refused(two, make_examination):
    copy = make_examination(name="copy")
    assert copy.record["input"]["sha256"] != two[0].record["input"]["sha256"]
    with pytest.raises(LiversegError, match="results of the same CT"):
        check_pair(two[0], copy)


def test_the_time_of_day_orders_examinations_of_one_day(two):
    first = replace(two[0], identity=identity(acquired="2020-04-05T10:00", has_time=True))
    later = replace(two[1], identity=identity(study="1.3", acquired="2020-04-05T12:00", has_time=True))
    assert check_pair(first, later) == (["both examinations are of the same day"], 0)
    with pytest.raises(UsageError, match="earlier"):
        check_pair(later, first)


def test_what_is_not_known_is_not_held_against_a_pair(two):
    first = replace(two[0], identity=identity(number="1", issuer="north"))
    second = replace(two[1], identity=identity(number="2", issuer="south", study="1.3", acquired="2020-07-01"))
    assert check_pair(first, second) == ([], 87)
    warnings, days = check_pair(first, replace(second, identity=Identity()))
    assert days is None and "dates of the examinations are not known" in warnings[0]


def test_other_weights_are_a_warning_and_other_labels_an_error(two):
    first, second = two
    record = {**second.record, "weights": {"sha256": "cd" * 32}}
    warnings, _ = check_pair(first, replace(second, record=record))
    assert any("different weights" in text for text in warnings)
    with pytest.raises(LiversegError, match="different label tables, cyst, hemangioma"):
        check_pair(first, replace(second, labels=PRETRAIN_LABELS))
    with pytest.raises(LiversegError, match="same CT"):
        check_pair(first, replace(second, record=first.record))
