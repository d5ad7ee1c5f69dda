import json
import math
import shutil
from dataclasses import replace

import pytest
from pretend_study import cell_folder, fill_cell, fill_peer, fill_study, write_study

from liverseg.study.estimates import compare, estimate_rows, find_comparison, patient_means
from liverseg.study.hypotheses import Verdict, check_hypotheses, ours_against_joint
from liverseg.study.measures import LESION_CONFUSION
from liverseg.study.overview import overview
from liverseg.study.published import EMBC, MIDL, published_difference
from liverseg.study.results import read_results
from liverseg.study.sections import ours_section
from liverseg.study.tables import (
    comparison_table,
    detectable_table,
    detects_published,
    estimates_table,
    lesion_table,
    not_significant_table,
    plan_table,
    published_table,
    strategy_table,
    type_table,
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    study = write_study(tmp_path_factory.mktemp("study"))
    fill_study(study)
    return read_results(study)


@pytest.fixture(scope="module")
def estimates(results):
    return estimate_rows(results)


@pytest.fixture(scope="module")
def of_patients(results):
    """The same results, of a data list of patients."""
    return replace(results, datalist=replace(results.datalist, source="a hospital"))


def test_a_patients_result_is_averaged_over_seeds_and_slices_are_pooled(estimates):
    own = estimates["joint-lits-none", "type_accuracy"]
    # of 7 slices 6 are right with one seed and 5 with the other
    assert own.seeds == {0: pytest.approx(6 / 7), 1: pytest.approx(5 / 7)}
    assert own.estimate.value == pytest.approx(5.5 / 7)
    assert own.estimate.lower < 5.5 / 7 < own.estimate.upper
    dice = estimates["joint-lits-none", "lesion_dice"].estimate
    assert (dice.value, dice.lower, dice.upper) == pytest.approx((0.8, 0.8, 0.8))  # all patients are alike
    aware = estimates["joint-lits-none", "class_aware_dice"].estimate
    assert aware.value == pytest.approx(0.8 * 5.5 / 7)
    assert ("segmentation-lits-none", "type_accuracy") not in estimates
    assert ("segmentation-lits-none", "lesion_dice") in estimates


def test_figures_of_types(estimates):
    # cysts: 3 slices, with seed 0 p4 is wrong and with seed 1 p4 and one of p1's: (2/3 + 1/3) / 2
    assert estimates["joint-lits-none", "sensitivity_cyst"].estimate.value == pytest.approx(0.5)
    assert estimates["joint-lits-none", "sensitivity_hemangioma"].estimate.value == pytest.approx(1)
    # of the 5 slices without a hemangioma, 1.5 are predicted as hemangioma
    assert estimates["joint-lits-none", "specificity_hemangioma"].estimate.value == pytest.approx(1 - 1.5 / 5)
    assert estimates["joint-lits-none", "balanced_accuracy"].estimate.value == pytest.approx((0.5 + 1 + 1) / 3)
    # F1: cyst 2·1.5/(3+1.5), hemangioma 2·2/(2+3.5), metastasis 1
    f1 = (3 / 4.5 + 4 / 5.5 + 1) / 3
    assert estimates["joint-lits-none", "macro_f1"].estimate.value == pytest.approx(f1)
    error = estimates["joint-lits-none", "calibration_error"]  # all types were predicted with 0.8
    assert error.seeds == {0: pytest.approx(6 / 7 - 0.8), 1: pytest.approx(0.8 - 5 / 7)}
    assert math.isnan(error.estimate.lower)


def test_lesions_are_pooled_over_patients(results, estimates):
    # 7 predicted lesions with seed 0, 8 with seed 1, 7 of them matched
    precision = estimates["joint-lits-none", "lesion_level_precision"]
    assert precision.seeds == {0: pytest.approx(1), 1: pytest.approx(7 / 8)}
    assert precision.estimate.value == pytest.approx(7 / 7.5)
    assert estimates["joint-lits-none", "lesion_level_recall"].estimate.value == pytest.approx(1)
    assert estimates["joint-lits-none", "lesion_level_detected_mssd_mm"].estimate.value == pytest.approx(4)
    assert estimates["joint-lits-none", "lesion_level_type_accuracy_detected"].estimate.value == pytest.approx(5.5 / 7)
    assert ("segmentation-lits-none", "lesion_level_type_accuracy_detected") not in estimates
    table = lesion_table(results, estimates)
    (joint, *_) = table.rows
    assert joint[:3] == ["joint", "lits", "none"]
    assert joint[4].startswith("0.93 (") and joint[4].endswith("\nseeds 1.00 0.88")
    assert table.rows[2][-1] == ""  # segmentation predicts no types


def test_a_patient_without_lesions_on_either_side_is_in_the_average_over_seeds(results):
    joint = results.rows[0]
    kept = ~((joint.lesions["patient"] == "p2") & (joint.lesions["seed"] == 0))
    without = replace(results, rows=(replace(joint, lesions=joint.lesions[kept]),))
    precision = estimate_rows(without)["joint-lits-none", "lesion_level_precision"].estimate.value
    # matched (6 + 7) / 2, predicted (6 + 8) / 2
    assert precision == pytest.approx(6.5 / 7)


def test_the_strategies_table_has_intervals_seeds_and_the_papers_figures(of_patients, estimates):
    table = strategy_table(of_patients, estimates)
    assert table.head[3:] == ["type accuracy", "paper", "lesion Dice", "paper", "lesion recall", "paper"]
    rows = {(row[0], row[1]): row[3:] for row in table.rows}
    assert list(rows) == [("joint", "scratch"), ("joint", "lits"), ("ynet", "lits"), ("segmentation", "lits")]
    accuracy, *others = rows["joint", "lits"]
    assert accuracy.startswith("0.79 (") and accuracy.endswith("\nseeds 0.86 0.71")
    assert others[0] == "0.86"
    assert others[1:3] == ["0.80 (0.80 to 0.80)\nseeds 0.80 0.80", "0.71"]
    assert rows["segmentation", "lits"][:2] == ["", ""]
    assert rows["ynet", "lits"][1::2] == ["0.79", "0.71", "0.68"]


def test_results_of_phantoms_and_of_patients_are_not_in_one_table(results, estimates):
    for made in (strategy_table, plan_table):
        assert "paper" not in made(results, estimates).head
        assert "paper" not in made(results, estimates, brief=True).head
    (printed,) = (row for row in published_table(MIDL).rows if row[:2] == ["joint", "lits"])
    assert printed[2:] == ["0.86", "0.71", "0.76"]
    (printed,) = (row for row in published_table(EMBC).rows if row[:2] == ["lits", "hierarchical_unfreezing"])
    assert printed[2:] == ["0.64", "0.60", "0.94", "0.73"]


def test_the_plans_table_has_scratch_as_its_baseline(of_patients, estimates):
    rows = plan_table(of_patients, estimates).rows
    assert [row[:3] for row in rows] == [["joint", "lits", "none"], ["joint", "scratch", "none"]]
    assert rows[1][4::2] == ["0.49", "0.44", "0.89", "0.56"]
    assert rows[0][7] == "1.00 (1.00 to 1.00)\nseeds 1.00 1.00"  # every lesion was overlapped


def test_rows_that_could_not_run_and_rows_in_part(tmp_path):
    rows = [{"strategy": "joint", "initialisation": ["lits", "imagenet", "scratch"]}]
    study = write_study(tmp_path, rows=rows)
    for fold, seed in ((0, 0), (1, 0), (1, 1)):
        fill_cell(study, "joint-lits-none", fold, seed)
    for fold in (0, 1):
        failed = cell_folder(study, "joint-imagenet-none", fold, 0)
        failed.mkdir(parents=True)
        (failed / "failed.json").write_text(json.dumps({"reason": "no weights; give imagenet_weights"}))
    results = read_results(study)
    estimates = estimate_rows(results)
    scratch, imagenet, lits = strategy_table(results, estimates).rows
    assert scratch[3:] == ["not run yet", "", ""]
    assert imagenet[3] == "not available"
    (brief,) = strategy_table(results, estimates, brief=True).rows  # rows without results are left out
    assert brief[0] == "joint\n3 of 4 cells" and brief[3] == "0 1" and brief[4].startswith("0.86 (")
    assert "seeds" not in brief[4]
    assert lits[0] == "joint\n3 of 4 cells"
    # p1 to p3 from seed 0 alone: 4 right of 4; p4 to p6: 2 of 3 with either
    assert lits[3].startswith("0.86 (") and lits[3].endswith("\nseeds 0.86 0.67")
    assert len(type_table(results, estimates).rows) == 1


def test_differences_are_paired_and_adjusted(results):
    compared = compare(results)
    dice = find_comparison(compared, "lesion_dice", "ynet-lits-none", "joint-lits-none")
    assert (dice.difference.value, dice.difference.lower, dice.difference.upper) == pytest.approx((-0.1, -0.1, -0.1))
    assert dice.difference.p == pytest.approx(2 / 10001)
    assert dice.adjusted_p == pytest.approx(4 / 10001)  # segmentation and joint are a comparison of the family too
    same = find_comparison(compared, "lesion_dice", "segmentation-lits-none", "joint-lits-none")
    assert same.difference.value == 0 and same.difference.p == 1
    turned = find_comparison(compared, "lesion_dice", "joint-lits-none", "ynet-lits-none")
    assert turned.difference.lower == pytest.approx(0.1) and turned.row == "joint-lits-none"
    comparison = find_comparison(compared, "type_accuracy", "joint-lits-none", "joint-scratch-none").difference
    other = find_comparison(compared, "type_accuracy", "joint-scratch-none", "joint-lits-none").difference
    assert (other.lower, other.upper) == (-comparison.upper, -comparison.lower)
    assert comparison.lower < comparison.value < comparison.upper
    assert find_comparison(compared, "type_accuracy", "segmentation-lits-none", "joint-lits-none") is None
    start = find_comparison(compared, "lesion_dice", "joint-lits-none", "joint-scratch-none")
    assert start.question == "initialisation" and start.adjusted_p == pytest.approx(2 / 10001)  # a family of one
    (line,) = (row for row in comparison_table(compared, "initialisation").rows if row[0] == "lesion Dice")
    assert line[3:] == ["+0.300", "+0.300 to +0.300", "<0.001", "<0.001", "0.000", "0.000", "0 1", "6"]


def test_detectable_differences_are_of_the_comparison_and_of_its_family(results):
    compared = compare(results)
    accuracy = find_comparison(compared, "type_accuracy", "joint-lits-none", "ynet-lits-none")
    # z(.975) + z(.8), for a family of one
    assert accuracy.family == 1
    assert accuracy.detectable == pytest.approx(2.8016 * accuracy.difference.standard_error, rel=1e-4)
    assert accuracy.detectable_in_family == accuracy.detectable
    dice = find_comparison(compared, "lesion_dice", "ynet-lits-none", "joint-lits-none")
    assert dice.family == 2
    dice = replace(dice, difference=replace(dice.difference, standard_error=0.1))
    # z(.9875) + z(.8)
    assert dice.detectable_in_family == pytest.approx(0.1 * (2.2414 + 0.8416), rel=1e-4)
    table = detectable_table([dice, replace(dice, difference=replace(dice.difference, standard_error=0.2))])
    assert table.head == ["measure", "strategies against joint, from the same initialisation"]
    assert table.rows == [["lesion Dice", "0.280 to 0.560\nHolm 0.308 to 0.617"]]


@pytest.mark.parametrize(
    ("published", "answer"),
    [
        (None, "none printed"),
        (0.0, "none: equal in print"),
        (-0.32, "found"),
        (0.29, "found without Holm only"),
        (0.27, "could be missed"),
    ],
)
def test_a_difference_as_large_as_the_papers_would_be_found_or_not(results, published, answer):
    dice = find_comparison(compare(results), "lesion_dice", "ynet-lits-none", "joint-lits-none")
    dice = replace(dice, published=published, difference=replace(dice.difference, standard_error=0.1))
    assert detects_published(dice) == answer  # detectable are 0.280, and 0.308 in the family


def test_each_difference_that_is_not_significant_is_listed(results, of_patients):
    compared = compare(results)
    rows = not_significant_table(results, compared).rows
    assert [(row[0], row[1], row[-1]) for row in rows] == [
        ("type accuracy", "`ynet-lits-none`", "could be missed"),
        ("lesion Dice", "`segmentation-lits-none`", "none: equal in print"),
        ("lesion recall", "`segmentation-lits-none`", "found"),  # 0.04 less in print; here all patients are alike
        ("type accuracy", "`joint-lits-none`", "could be missed"),
    ]
    assert rows[1][3:5] == ["+0.000", "+0.000 to +0.000"]
    # MIDL 2020: .79 less .86, .72 less .76, .86 less .63
    printed = [row[-1] for row in not_significant_table(of_patients, compared).rows]
    assert printed == [
        "-0.07: could be missed",
        "+0.00: none: equal in print",
        "-0.04: found",
        "+0.23: could be missed",
    ]


def test_differences_in_print(results):
    joint, ynet, _, scratch = (row.row for row in results.rows)
    assert published_difference(ynet, joint, "lesion_recall") == pytest.approx(0.68 - 0.76)
    assert published_difference(joint, scratch, "class_aware_dice") == pytest.approx(0.55 - 0.44)  # EMBC 2019 alone
    plan = replace(joint, plan="hierarchical_unfreezing")
    assert published_difference(plan, joint, "type_accuracy") == pytest.approx(0.73 - 0.64)
    assert published_difference(replace(ynet, plan="freeze_encoder"), ynet, "lesion_dice") is None
    assert published_difference(replace(ynet, label="other"), joint, "lesion_dice") is None
    assert published_difference(ynet, replace(joint, peer=True), "lesion_dice") is None
    assert published_difference(replace(joint, strategy="ours"), joint, "lesion_dice") is None


@pytest.mark.integration
def test_a_peer_is_in_the_table_and_compared_in_a_family_of_its_own(tmp_path):
    study = write_study(tmp_path, peers=[{"strategy": "nnunet"}])
    fill_study(study)
    without = compare(read_results(study))
    for fold in (0, 1):
        for seed in (0, 1):
            fill_peer(study, "nnunet-scratch-none", fold, seed)
    results = read_results(study)
    estimates, compared = estimate_rows(results), compare(results)
    (line,) = (row for row in strategy_table(results, estimates, brief=True).rows if row[0] == "nnunet (peer)")
    assert line[1:] == ["scratch", "none", "0 1", "", "0.80 (0.80 to 0.80)", "0.80 (0.80 to 0.80)"]
    pairs = [(item.measure, item.other) for item in compared if item.question == "peer"]
    assert pairs == [
        (measure, row)
        for measure in ("lesion_dice", "lesion_recall")
        for row in ("segmentation-lits-none", "joint-scratch-none", "joint-lits-none")
    ]
    assert [item for item in compared if item.question != "peer"] == without


def test_every_figure_and_difference_is_in_the_csv(results, estimates):
    compared = compare(results)
    table = estimates_table(estimates, compared)
    assert len(table) == len(estimates) + len(compared)
    (line,) = table[
        (table["row"] == "joint-lits-none") & (table["metric"] == "lesion_dice") & (table["minus"] == "")
    ].index
    assert table.loc[line, "value"] == pytest.approx(0.8) and table.loc[line, "seeds"] == "0:0.8 1:0.8"


def test_expectations_hold_by_their_intervals(results, estimates):
    compared = compare(results)
    order, naming, dice, printed = check_hypotheses(results, estimates, compared)
    # accuracy 5.5/7 against 4/7 on six patients has an interval down to below zero; Dice differs in every patient
    named, outlined = order.evidence
    assert named.text.startswith("`joint-lits-none` minus `joint-scratch-none`: type accuracy +0.214 (")
    assert named.verdict is Verdict.POINTS_THAT_WAY
    assert outlined.text.endswith("lesion Dice +0.300 (+0.300 to +0.300)") and outlined.verdict is Verdict.HOLDS
    assert order.verdict_text == "points that way, as far as tested"
    assert order.summary.startswith("**Points that way, as far as tested**: LiTS weights beat ")
    assert order.summary.endswith(" in every strategy of the paper (of 2 parts 1 holds, 1 points that way).")
    assert "lits over imagenet" in order.untested and "imagenet over scratch" in order.untested
    assert naming.untested == "no results for scratch, imagenet."
    # the same Dice, and the same recall
    assert [item.verdict for item in dice.evidence] == [Verdict.HOLDS, Verdict.NOT_CONFIRMED]
    assert dice.verdict_text == "not confirmed"
    assert printed.verdict_text == "not testable" and "phantoms" in printed.untested
    assert printed.summary.endswith("(figures of phantoms cannot be compared with figures of patients).")


@pytest.mark.parametrize(
    ("value", "lower", "upper", "verdict"),
    [
        (-0.02, -0.029, -0.011, Verdict.HOLDS),
        (-0.02, -0.05, 0.01, Verdict.POINTS_THAT_WAY),
        (-0.02, -0.035, -0.005, Verdict.NOT_CONFIRMED),  # different, and perhaps by more than .03
        (-0.04, -0.06, -0.02, Verdict.NOT_CONFIRMED),
        (-0.06, -0.08, -0.04, Verdict.CONTRADICTED),
    ],
)
def test_the_same_dice_needs_an_interval_within_the_margin(results, estimates, value, lower, upper, verdict):
    compared = compare(results)
    dice = find_comparison(compared, "lesion_dice", "joint-lits-none", "segmentation-lits-none")
    others = [item for item in compared if item.measure != "lesion_dice"]
    changed = replace(dice, difference=replace(dice.difference, value=value, lower=lower, upper=upper))
    first, *_ = check_hypotheses(results, estimates, [*others, changed])[2].evidence
    assert first.verdict is verdict


@pytest.mark.parametrize(("better", "first"), [(True, "ours"), (False, "joint")])
def test_ours_is_held_against_joint(results, better, first):
    """Joint's row outlines better than the Y-Net's; each is `ours` in turn."""
    names = (first, "joint" if better else "ours")
    rows = [replace(row, row=replace(row.row, strategy=name)) for row, name in zip(results.rows, names, strict=False)]
    renamed = replace(results, rows=tuple(rows))
    _, summary, evidence = ours_section(ours_against_joint(renamed, compare(renamed)))
    assert ("Nothing of ours beats `joint` beyond its interval" in summary.text) is not better
    (dice,) = (text for text in evidence.items if ": lesion Dice" in text)
    assert dice.endswith("+0.100 (+0.100 to +0.100): better" if better else "-0.100 (-0.100 to -0.100): worse")
    assert ours_section(ours_against_joint(results, compare(results))) == []


@pytest.mark.integration
def test_nothing_is_held_against_print_where_validation_patients_were_scored(tmp_path):
    study = write_study(tmp_path, source="a hospital", scored="validation")
    fill_study(study)
    results = read_results(study)
    *_, printed = check_hypotheses(results, estimate_rows(results), compare(results))
    assert printed.verdict_text == "not testable" and "validation patients" in printed.untested


def test_a_typed_network_that_finds_nothing_is_wrong_end_to_end(results):
    joint = results.rows[0]
    lesions = joint.lesions[joint.lesions["side"] == "true"].assign(hit=False, matched=0, pred_type="")
    estimates = estimate_rows(replace(results, rows=(replace(joint, lesions=lesions),)))
    assert estimates["joint-lits-none", "lesion_level_type_accuracy_end_to_end"].estimate.value == 0


def test_pixels_are_pooled_and_sizes_reported(estimates):
    assert estimates["ynet-lits-none", "lesion_dice_global"].estimate.value == pytest.approx(0.7)
    assert estimates["ynet-lits-none", "lesion_level_recall_medium"].estimate.value == pytest.approx(1)
    assert math.isnan(estimates["ynet-lits-none", "lesion_level_recall_large"].estimate.value)


@pytest.mark.integration
def test_rows_with_fewer_seeds_are_compared_on_common_ones(tmp_path):
    study = write_study(tmp_path)
    fill_study(study)
    for fold in (0, 1):
        shutil.rmtree(cell_folder(study, "ynet-lits-none", fold, 1))
    comparison = find_comparison(compare(read_results(study)), "type_accuracy", "ynet-lits-none", "joint-lits-none")
    assert comparison.seeds == (0,)
    # with seed 0: 4 of 7 right against 6 of 7
    assert comparison.difference.value == pytest.approx(-2 / 7)


@pytest.mark.integration
def test_accuracy_is_held_against_the_printed_one_where_the_data_are_patients(tmp_path):
    study = write_study(tmp_path, source="a hospital")
    fill_study(study)
    results = read_results(study)
    *_, printed = check_hypotheses(results, estimate_rows(results), compare(results))
    (joint,) = (item for item in printed.evidence if "`joint-lits-none`" in item.text)
    assert joint.verdict is Verdict.POINTS_THAT_WAY and joint.text.endswith("printed 0.86")  # 0.79, interval above 0.86
    assert "classification lits" in printed.untested


def test_what_is_not_found_counts_against_end_to_end_only(results):
    joint = results.rows[0]
    units = joint.units.reset_index(drop=True)
    missed = (units["patient"] == "p6") | ((units["patient"] == "p3") & (units["seed"] == 0))
    units.loc[missed, "lesion_hit"] = 0
    units.loc[missed & (units["patient"] == "p3"), "pred_type"] = ""  # p6 keeps its correct type, as from a type vector
    estimates = estimate_rows(replace(results, rows=(replace(joint, units=units),)))
    values = {measure: figure.estimate.value for (_, measure), figure in estimates.items()}
    # right are 5 and 5 of 7 slices with the two seeds, of those touched 4 and 4; touched are 5 and 6
    assert values["type_accuracy"] == pytest.approx(10 / 14)
    assert values["type_accuracy_detected"] == pytest.approx(8 / 11)
    assert values["type_accuracy_end_to_end"] == pytest.approx(8 / 14)
    assert values["success_rate"] == pytest.approx(11 / 14)
    assert values["sensitivity_metastasis"] == pytest.approx(1 / 4)


def test_confusion_of_lesions_has_false_positives(results):
    counts = patient_means(results.rows[0], LESION_CONFUSION).sum().to_numpy().reshape(4, 4)
    assert counts.tolist() == [
        [1.5, 1.5, 0, 0],
        [0, 2, 0, 0],
        [0, 0, 2, 0],
        [0.5, 0, 0, 0],  # the false lesion, with one of two seeds
    ]


def test_seeds_and_epochs_of_a_row_are_named_where_they_differ(tmp_path):
    rows = [
        {"strategy": ["joint", "ynet"], "initialisation": "lits"},
        {"strategy": "joint", "initialisation": "scratch", "seeds": [0], "overrides": {"epochs": 7}},
    ]
    study = write_study(tmp_path, rows=rows)
    fill_cell(study, "joint-lits-none", 0, 0)
    text = str(overview(read_results(study)))
    assert "Seeds: 0, 1; 0 for `joint-scratch-none`" in text
    assert "Epochs: 3; 7 for `joint-scratch-none`" in text
