import pytest

from liverseg.errors import UsageError
from liverseg.followup.matching import Match, Status
from liverseg.followup.recist import Response, choose_targets, evaluate, smallest_target_mm
from liverseg.inference.lesion_measurements import MeasuredLesion


def lesions(*measured):
    """Return lesions of (longest diameter, type)."""
    numbers = dict.fromkeys(
        ("centroid_x_mm", "centroid_y_mm", "centroid_z_mm", "mean_hu", "std_hu", "surface_distance_mm"), 0.0
    )
    return [
        MeasuredLesion(
            id=number, type=kind, probabilities={}, volume_ml=1.0, longest_diameter_mm=longest,
            perpendicular_diameter_mm=longest / 2, diameter_slice=3, first_slice=2, last_slice=4, slices=3,
            touches_surface=False, liver_contrast_hu=-40.0, lesion_score=1.0, **numbers,
        )
        for number, (longest, kind) in enumerate(measured, start=1)
    ]  # fmt: skip


def one_to_one(count):
    return [Match(Status.MATCHED, (number,), (number,)) for number in range(1, count + 1)]


def test_smallest_target_depends_on_thick_slices():
    assert [smallest_target_mm(mm) for mm in (1.0, 5.0, 5.1, 8.0)] == [10.0, 10.0, pytest.approx(10.2), 16.0]


def test_the_two_largest_measurable_metastases_are_suggested():
    found = lesions(
        (9.9, "metastasis"), (40.0, "cyst"), (12.0, "metastasis"), (30.0, "hemangioma"), (18.0, "indeterminate"),
        (10.0, "metastasis"), (25.0, "metastasis"),
    )  # fmt: skip
    assert choose_targets(found, 2.5) == ((7, 3), [])
    assert choose_targets(found, 2.5, indeterminate=True) == ((7, 5), [])
    assert choose_targets(found, 8.0) == ((7,), [])
    assert choose_targets([], 2.5) == ((), [])


def test_chosen_targets_are_checked():
    found = lesions((9.0, "metastasis"), (40.0, "cyst"), (12.0, "metastasis"))
    targets, warnings = choose_targets(found, 2.5, chosen=(1, 2))
    assert targets == (1, 2)
    assert [text.split(";")[0].split(",")[0] for text in warnings] == [
        "target lesion 1 measures 9.0 mm",
        "target lesion 2 is of type cyst",
    ]
    for chosen, part in (((1, 2, 3), "at most 2"), ((1, 1), "different"), ((4,), "1 to 3")):
        with pytest.raises(UsageError, match=part):
            choose_targets(found, 2.5, chosen=chosen)


@pytest.mark.parametrize(
    ("before", "after", "response"),
    [
        ((30, 20), (0, 0), Response.COMPLETE),
        ((30, 20), (20, 15), Response.PARTIAL),  # -30 %
        ((30, 20), (20.1, 15), Response.STABLE),
        ((30, 20), (36, 24), Response.PROGRESSIVE),  # +20 %, +10 mm
        ((30, 20), (35.9, 24), Response.STABLE),
        ((10,), (14.9,), Response.STABLE),  # +49 %, but below 5 mm
        ((10,), (15,), Response.PROGRESSIVE),
        ((), (), Response.NOT_EVALUABLE),
    ],
)
def test_responses_of_the_targets(before, after, response):
    first = lesions(*((mm, "metastasis") for mm in before))
    second = lesions(*((mm, "metastasis") for mm in after if mm))
    matches = one_to_one(len(second)) + [
        Match(Status.GONE, (number,), ()) for number in range(len(second) + 1, len(first) + 1)
    ]
    found = evaluate(range(1, len(first) + 1), matches, first, second, 2.5)
    assert found.of_targets is found.overall is response
    assert found.baseline_sum_mm == sum(before)
    if before:
        assert found.followup_sum_mm == pytest.approx(sum(after))


@pytest.mark.parametrize(
    ("kind", "indeterminate", "response"),
    [
        ("metastasis", False, Response.PROGRESSIVE),
        ("cyst", True, Response.STABLE),
        ("indeterminate", False, Response.STABLE),
        ("indeterminate", True, Response.PROGRESSIVE),
    ],
)
def test_a_new_lesion_is_progression_if_its_type_counts(kind, indeterminate, response):
    first, second = lesions((20, "metastasis")), lesions((20, "metastasis"), (6, kind))
    matches = [*one_to_one(1), Match(Status.NEW, (), (2,))]
    found = evaluate((1,), matches, first, second, 2.5, indeterminate)
    assert (found.of_targets, found.overall) == (Response.STABLE, response)
    assert found.new_lesions == ((2,) if response is Response.PROGRESSIVE else ())


def test_parts_are_added_and_merged_targets_count_once():
    first, second = lesions((20, "metastasis"), (15, "metastasis")), lesions((28, "metastasis"))
    found = evaluate((1, 2), [Match(Status.MERGED, (1, 2), (1,))], first, second, 2.5)
    assert (found.baseline_sum_mm, found.followup_sum_mm) == (35, 28)
    first, second = lesions((20, "metastasis")), lesions((9, "metastasis"), (6, "metastasis"))
    found = evaluate((1,), [Match(Status.SPLIT, (1,), (1, 2))], first, second, 2.5)
    assert (found.followup_sum_mm, found.overall) == (15, Response.STABLE)


def test_a_target_outside_the_scan_leaves_no_sum():
    first, second = lesions((20, "metastasis"), (15, "metastasis")), lesions((20, "metastasis"))
    matches = [*one_to_one(1), Match(Status.NOT_COVERED_AT_FOLLOWUP, (2,), ())]
    found = evaluate((1, 2), matches, first, second, 2.5)
    assert (found.followup_sum_mm, found.change_mm, found.overall) == (None, None, Response.NOT_EVALUABLE)
    assert "lesion 2 is not covered" in found.reasons[0]
