import json
from dataclasses import replace

import pandas as pd
import pytest
from pretend_study import DICE, FOLD, ROWS, cell_folder, fill_cell, fill_peer, fill_study, write_study

from liverseg.datalists import join_datalists, read_datalist, write_datalist
from liverseg.errors import LiversegError
from liverseg.study.folds import fold_lists, list_hash
from liverseg.study.results import Cohort, read_results


@pytest.mark.integration
def test_all_cells_of_a_row_are_read_under_each_other(tmp_path):
    study = write_study(tmp_path)
    fill_study(study)
    results = read_results(study)
    assert [row.name for row in results.rows] == [
        "joint-lits-none",
        "ynet-lits-none",
        "segmentation-lits-none",
        "joint-scratch-none",
    ]
    joint = results.rows[0]
    assert len(joint.complete) == 4 and not joint.missing
    assert len(joint.units) == 14 and set(joint.units["seed"]) == {0, 1}
    assert len(joint.scored) == 12
    assert len(results.records) == 16 and results.folds == (0, 1)
    assert results.find("joint", "scratch") is results.rows[3]
    assert results.find("ynet", "scratch") is None


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("liverseg Phantom: no patients", Cohort.PHANTOMS),
        ("a hospital; portal venous phase", Cohort.PATIENTS),
        ("a hospital; lesions painted by liverseg (recipe 5, seed 0)", Cohort.SYNTHETIC_LESIONS),
        ("LiTS (2022; 2023); lesions painted by liverseg (recipe 6, seed 1), real livers", Cohort.SYNTHETIC_LESIONS),
        ("liverseg phantom: x; lesions painted by liverseg (recipe 5, seed 0)", Cohort.PHANTOMS),
        ("a: hospital A; b: hospital B", Cohort.PATIENTS),
    ],
)
def test_kind_of_data_is_in_the_data_lists_source(tmp_path, source, kind):
    study = write_study(tmp_path, source=source)
    fill_cell(study, "joint-lits-none", 0, 0)
    assert read_results(study).cohort is kind


def test_list_that_joins_phantoms_and_patients_is_refused(tmp_path):
    lists = []
    for name, source in (("a", "liverseg phantom: synthetic"), ("b", "a hospital")):
        study = write_study(tmp_path / name, source=source)
        for patient in FOLD:
            (study.dataset_dir / f"{patient}.nii.gz").touch()
        write_datalist(study.datalist, replace(read_datalist(study.datalist), name=name))
        lists.append(study.datalist)
    study = write_study(tmp_path)
    join_datalists(lists, study.datalist, root=tmp_path, prefix_patients=True)
    with pytest.raises(LiversegError, match=r"joins patients and phantoms, by its source; report each kind"):
        read_results(study)


def test_results_of_a_peer_are_a_row_of_their_own(tmp_path):
    study = write_study(tmp_path, peers=[{"strategy": "nnunet"}])
    fill_cell(study, "joint-lits-none", 0, 0)
    for fold, seed in ((0, 0), (1, 0), (1, 1)):
        fill_peer(study, "nnunet-scratch-none", fold, seed)
    path = cell_folder(study, "nnunet-scratch-none", 1, 0) / "evaluation.csv"
    pd.read_csv(path).iloc[1:].to_csv(path, index=False)  # without one of the fold's slices
    fill_peer(study, "nnunet-scratch-none", 0, 1)
    of_fold = {fold: list_hash(datalist) for fold, datalist in fold_lists(study).items()}
    for seed, sha256 in ((0, of_fold[0]), (1, of_fold[1])):  # the second is the other fold's
        record = {"ingredients": {"datalist_sha256": sha256}}
        (cell_folder(study, "nnunet-scratch-none", 0, seed) / "cell.json").write_text(json.dumps(record))
    results = read_results(study)
    peer = results.rows[-1]
    assert peer.row.peer and peer.name == "nnunet-scratch-none"
    assert [(cell.fold, cell.seed) for cell in peer.complete] == [(0, 0), (1, 1)]
    assert [(cell.fold, cell.seed, why) for cell, why in peer.missing] == [
        (0, 1, "trained with another data list than the study's in fold 0"),
        (1, 0, "its slices are not those that the study scores in fold 1"),
    ]
    assert len(results.records) == 1  # of the study's own training


def test_a_peer_without_results_is_missing(tmp_path):
    study = write_study(tmp_path, peers=[{"strategy": "nnunet", "seeds": [0]}])
    fill_cell(study, "joint-lits-none", 0, 0)
    (*_, peer) = read_results(study).rows
    assert [why for _, why in peer.missing] == ["no results are stored"] * 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda units: units.drop(columns="lesion_true"), "has lesion_hit, but no column lesion_true; store both"),
        (lambda units: units.assign(pred_type="cyst"), "has pred_type, but no column probability_cyst"),
        (lambda units: units.assign(true_type="HCC"), "true_type is 'HCC'; there are cyst, hemangioma, metastasis"),
    ],
)
def test_a_table_of_a_peer_that_cannot_be_scored_is_refused(tmp_path, change, words):
    study = write_study(tmp_path, peers=[{"strategy": "nnunet", "seeds": [0]}])
    fill_cell(study, "joint-lits-none", 0, 0)
    fill_peer(study, "nnunet-scratch-none", 0, 0)
    path = cell_folder(study, "nnunet-scratch-none", 0, 0) / "evaluation.csv"
    change(pd.read_csv(path)).to_csv(path, index=False)
    with pytest.raises(LiversegError, match=words) as caught:
        read_results(study)
    assert str(path) in str(caught.value)


def test_a_peer_is_scored_on_validation_patients_where_the_study_is(tmp_path):
    study = write_study(tmp_path, scored="validation", peers=[{"strategy": "nnunet", "seeds": [0]}])
    fill_cell(study, "joint-lits-none", 0, 0)
    fill_peer(study, "nnunet-scratch-none", 0, 0)  # on held-out patients
    assert not read_results(study).rows[-1].complete


def test_missing_cells_are_reported_with_their_reasons(tmp_path):
    study = write_study(tmp_path)
    fill_cell(study, "joint-lits-none", 0, 1)
    failed = cell_folder(study, "ynet-lits-none", 1, 0)
    failed.mkdir(parents=True)
    (failed / "failed.json").write_text(json.dumps({"reason": "out of memory"}))
    joint, ynet, *_ = read_results(study).rows
    assert [(cell.fold, cell.seed, why) for cell, why in joint.missing] == [(0, 0, ""), (1, 0, ""), (1, 1, "")]
    assert joint.reason == ""  # incomplete
    assert ynet.reason == "out of memory"
    assert [why for _, why in ynet.missing] == ["", "", "out of memory", ""]


def test_a_cell_made_with_other_settings_is_missing(tmp_path):
    study = write_study(tmp_path, overrides={"epochs": 3})
    fill_cell(study, "joint-lits-none", 0, 0)
    changed = write_study(tmp_path, overrides={"epochs": 4})
    fill_cell(changed, "joint-lits-none", 1, 0)
    joint = read_results(changed).rows[0]
    assert [(cell.fold, cell.seed) for cell in joint.complete] == [(1, 0)]
    reasons = {(cell.fold, cell.seed): why for cell, why in joint.missing}
    assert "other settings" in reasons[0, 0] and reasons[0, 1] == ""


@pytest.mark.integration
def test_cells_of_another_split_are_not_pooled(tmp_path):
    """With a re-split list, a network may score a patient of its training."""
    study = write_study(tmp_path)
    fill_study(study)
    assert not any(row.missing for row in read_results(study).rows)
    listed = read_datalist(study.datalist)
    swapped = {"p1": 1, "p4": 0}
    training = tuple(replace(item, fold=swapped.get(item.patient, item.fold)) for item in listed.training)
    write_datalist(study.datalist, replace(listed, training=training))
    with pytest.raises(LiversegError, match="no cell of the study is complete"):
        read_results(study)


@pytest.mark.integration
def test_cells_from_other_weights_are_not_pooled_and_a_report_needs_no_weights(tmp_path):
    study = write_study(tmp_path)
    fill_study(study)
    assert study.lits_weights is not None
    study.lits_weights.write_text("others")
    assert [row.name for row in read_results(study).with_results] == ["joint-scratch-none"]
    study.lits_weights.unlink()
    assert len(read_results(study).with_results) == 4


@pytest.mark.integration
def test_a_record_that_says_nothing_is_not_pooled(tmp_path):
    study = write_study(tmp_path)
    fill_study(study)
    (cell_folder(study, "joint-lits-none", 0, 0) / "cell.json").write_text('{"ingredients": null}')
    assert [(cell.fold, cell.seed) for cell, _ in read_results(study).rows[0].missing] == [(0, 0)]


def test_patients_called_by_numbers_stay_text(tmp_path):
    study = write_study(tmp_path)
    fill_cell(study, "joint-lits-none", 0, 0)
    path = cell_folder(study, "joint-lits-none", 0, 0) / "evaluation.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("p1,", "007,"))
    assert "007" in set(read_results(study).rows[0].units["patient"])


def test_patients_called_as_what_is_missing_stay_apart(tmp_path):
    study = write_study(tmp_path)
    fill_cell(study, "joint-lits-none", 0, 0)
    for name in ("evaluation.csv", "lesions.csv"):
        path = cell_folder(study, "joint-lits-none", 0, 0) / name
        path.write_text(path.read_text(encoding="utf-8").replace("p1,", "NA,").replace("p2,", "null,"))
    row = read_results(study).rows[0]
    assert set(row.units["patient"]) == set(row.lesions["patient"]) == {"NA", "null", "p3"}


@pytest.mark.parametrize(("name", "column"), [("evaluation.csv", "patient"), ("lesions.csv", "matched")])
def test_a_table_without_a_column_is_reported(tmp_path, name, column):
    study = write_study(tmp_path)
    fill_cell(study, "joint-lits-none", 0, 0)
    path = cell_folder(study, "joint-lits-none", 0, 0) / name
    path.write_text(path.read_text(encoding="utf-8").replace(column, "other", 1))
    with pytest.raises(LiversegError, match=f"{name}: no column {column}; remove its folder"):
        read_results(study)


def test_a_study_without_a_complete_cell_is_refused(tmp_path):
    with pytest.raises(LiversegError, match="no cell of the study is complete; `liverseg study run`"):
        read_results(write_study(tmp_path))


def test_a_complete_cell_without_its_table_is_named(tmp_path):
    study = write_study(tmp_path)
    fill_cell(study, "joint-lits-none", 0, 0)
    path = cell_folder(study, "joint-lits-none", 0, 0) / "evaluation.csv"
    path.unlink()
    with pytest.raises(LiversegError, match=rf"{path}: cannot be read .*remove its folder"):
        read_results(study)


@pytest.mark.parametrize("name", ["evaluation.csv", "lesions.csv"])
def test_a_table_that_is_cut_off_is_named(tmp_path, name):
    study = write_study(tmp_path)
    fill_cell(study, "joint-lits-none", 0, 0)
    path = cell_folder(study, "joint-lits-none", 0, 0) / name
    path.write_text(path.read_text(encoding="utf-8")[:-4], encoding="utf-8")
    with pytest.raises(LiversegError, match=rf"{path}: its last line is cut off; remove its folder"):
        read_results(study)


def test_a_table_without_a_slice_is_named(tmp_path):
    study = write_study(tmp_path)
    fill_cell(study, "joint-lits-none", 0, 0)
    path = cell_folder(study, "joint-lits-none", 0, 0) / "evaluation.csv"
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")
    message = rf"{path}: has 3 slices, which are not the 4 that the study scores in fold 0; remove its folder"
    with pytest.raises(LiversegError, match=message):
        read_results(study)


def test_the_rows_of_the_pretend_study_are_those_it_fills():
    named = {f"{strategy}-{row['initialisation']}-none" for row in ROWS for strategy in _listed(row["strategy"])}
    assert named == set(DICE)


def _listed(value):
    return value if isinstance(value, list) else [value]
