import numpy as np
import pytest

from liverseg.followup.matching import LesionPairs, Match, Status, compare_positions, match_lesions, tolerance_mm
from liverseg.followup.registration import DisplacementField, LiverRegistration, RegistrationQuality

GOOD = RegistrationQuality(0.5, 1.0, 5.0, 1.0, 0.0)


def shifted(vector, error=(0, 0, 0)):
    """Return a registration that is a translation, off by an error."""
    vectors = np.broadcast_to(np.add(vector, error).astype(float), (2, 2, 2, 3)).copy()
    return LiverRegistration(DisplacementField(vectors, np.full(3, -200.0), 400.0), GOOD)


def by_status(matches):
    return [(match.status.value, match.baseline, match.followup) for match in matches]


def pairs(distance, first_share=None, second_share=None, radii=(5.0, 5.0), covered=(1.0, 1.0)):
    """Return pairs of a matrix of distances, without overlap by default."""
    distance = np.array(distance, float)
    n, m = distance.shape
    none = np.zeros((n, m))
    return LesionPairs(
        none if first_share is None else np.array(first_share, float),
        none if second_share is None else np.array(second_share, float),
        distance,
        np.full(n, radii[0]),
        np.full(m, radii[1]),
        np.full(n, covered[0]),
        np.full(m, covered[1]),
        np.ones(n),
        np.ones(m),
    )


def test_the_tolerance_grows_with_the_error_of_the_registration():
    assert tolerance_mm(0.0) == 4.0
    assert tolerance_mm(6.0) == 7.0
    assert tolerance_mm(100.0) == tolerance_mm(float("nan")) == 15.0


@pytest.mark.parametrize(("distance", "status"), [(6.9, Status.MATCHED), (7.1, Status.GONE)])
def test_centres_may_be_as_far_apart_as_the_tolerance_and_the_difference_of_the_radii(distance, status):
    found = match_lesions(pairs([[distance]], radii=(5.0, 8.0)), tolerance=4.0)
    assert found[0].status is status
    assert len(found) == (1 if status is Status.MATCHED else 2)


def test_neighbours_that_share_less_than_a_tenth_are_not_matched():
    apart = pairs([[30.0]], [[0.05]], [[0.09]])
    assert by_status(match_lesions(apart, 4.0)) == [("gone", (1,), ()), ("new", (), (1,))]
    assert by_status(match_lesions(pairs([[30.0]], [[0.05]], [[0.11]]), 4.0)) == [("matched", (1,), (1,))]


def test_the_best_pairs_together_are_chosen_not_each_lesions_nearest():
    # both are nearest to the first; the second has another choice
    found = match_lesions(pairs([[1.0, 3.0], [0.5, 9.0]]), tolerance=4.0)
    assert by_status(found) == [("matched", (1,), (2,)), ("matched", (2,), (1,))]
    # but an exact pair is not given up for two poor ones
    found = match_lesions(pairs([[0.0, 3.8], [3.8, 9.0]]), tolerance=4.0)
    assert by_status(found) == [("matched", (1,), (1,)), ("gone", (2,), ()), ("new", (), (2,))]


def test_a_part_of_a_matched_lesion_is_a_split_and_the_reverse_a_merge():
    split = pairs([[3.0, 6.0]], [[0.4, 0.3]], [[1.0, 0.9]], radii=(12.0, 6.0))
    assert by_status(match_lesions(split, 4.0)) == [("split", (1,), (1, 2))]
    merged = pairs([[3.0], [6.0]], [[1.0], [0.9]], [[0.4], [0.3]], radii=(6.0, 12.0))
    assert by_status(match_lesions(merged, 4.0)) == [("merged", (1, 2), (1,))]
    beside = pairs([[3.0, 25.0]], [[0.4, 0.1]], [[1.0, 0.4]], radii=(12.0, 6.0))
    assert by_status(match_lesions(beside, 4.0)) == [("matched", (1,), (1,)), ("new", (), (2,))]


def test_lesions_that_the_other_scan_does_not_cover_are_neither_gone_nor_new():
    found = match_lesions(pairs([[50.0]], covered=(0.4, 0.49)), 4.0)
    assert by_status(found) == [("not covered at follow-up", (1,), ()), ("not covered at baseline", (), (1,))]
    found = match_lesions(pairs([[50.0]], covered=(0.5, 0.6)), 4.0)
    assert by_status(found) == [("gone", (1,), ()), ("new", (), (1,))]


@pytest.mark.parametrize(("covered", "status"), [(0.0, "matched"), (0.5, "matched"), (1.0, "gone")])
def test_what_the_edge_of_a_scan_shows_of_a_grown_lesion_is_not_new(covered, status):
    """The visible part of a lesion of 20 mm lies 8 mm from the centre of the complete one, beside its old outline."""
    edge = pairs([[8.0]], radii=(10.0, 9.0), covered=(covered, 1.0))
    assert match_lesions(edge, 4.0)[0].status.value == status


@pytest.mark.parametrize(("n", "m"), [(0, 0), (2, 0), (0, 3)])
def test_no_lesions_at_an_examination(n, m):
    found = match_lesions(pairs(np.zeros((n, m))), 4.0)
    assert [match.status for match in found] == [Status.GONE] * n + [Status.NEW] * m
    assert all(isinstance(match, Match) for match in found)


LESIONS = [(20, 5, 10, 12, 4), (35, -8, -12, 7, 4), (-5, 4, 5, 5, 2)]
MOVE = (30, -12, 9)


def test_shares_and_distances_are_those_of_moved_balls(make_examination):
    first = make_examination(LESIONS)
    second = make_examination([(*LESIONS[0][:3], 9, 4), LESIONS[2]], shift=MOVE, spacing=(1.5, 1.5, 2.0), first=-60.0)
    found = compare_positions(first, second, shifted(MOVE))
    assert found.distance_mm.shape == (3, 2)
    assert found.distance_mm[0, 0] < 1.0 and found.distance_mm[2, 1] < 1.0
    assert found.baseline_share[0, 0] == pytest.approx((9 / 12) ** 3, abs=0.06)
    assert found.followup_share[0, 0] > 0.97
    assert found.baseline_radius_mm == pytest.approx([12, 7, 5], abs=0.4)
    assert (found.baseline_covered == 1).all() and (found.baseline_in_liver > 0.97).all()
    matches = match_lesions(found, tolerance_mm(1.0))
    assert by_status(matches) == [("matched", (1,), (1,)), ("gone", (2,), ()), ("matched", (3,), (2,))]


@pytest.mark.parametrize("error", [0.0, 3.0])
def test_lesions_are_found_again_within_the_error_of_the_registration(make_examination, error):
    first, second = make_examination(LESIONS), make_examination(LESIONS, shift=MOVE, seed=3)
    found = compare_positions(first, second, shifted(MOVE, (error, 0, 0)))
    assert by_status(match_lesions(found, tolerance_mm(2 * error))) == [
        ("matched", (number,), (number,)) for number in (1, 2, 3)
    ]


def test_a_shorter_scan_does_not_cover_the_lesions_below_it(make_examination):
    first = make_examination([(20, 5, 15, 8, 4), (15, 0, -28, 6, 4)])
    second = make_examination([(20, 5, 15, 8, 4)], first=-15.0, shape=(96, 80, 30))
    found = compare_positions(first, second, shifted((0, 0, 0)))
    assert found.baseline_covered.tolist() == [1.0, 0.0]
    statuses = by_status(match_lesions(found, 4.0))
    assert statuses == [("matched", (1,), (1,)), ("not covered at follow-up", (2,), ())]
    back = match_lesions(compare_positions(second, first, shifted((0, 0, 0))), 4.0)
    assert by_status(back) == [("matched", (1,), (1,)), ("not covered at baseline", (), (2,))]
