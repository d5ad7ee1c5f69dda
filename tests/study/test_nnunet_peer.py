"""nnU-Net beside a study: its input, its split, and the scores of given predictions. Expected slices are nibabel's."""

import json
import os
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import yaml
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from benchmarks.nnunet_peer import (
    DATASET,
    Fold,
    case_name,
    export,
    main,
    read_probabilities,
    score,
    wall_time_and_threads,
)
from liverseg.datalists import DataItem, DataList, label_table, write_datalist
from liverseg.errors import LiversegError, UsageError
from liverseg.labels import LESION, LESION_TYPES, LIVER
from liverseg.study import read_study
from liverseg.study.folds import fold_lists

PYTHON = os.environ.get("LIVERSEG_NNUNET_PYTHON", "")
SHAPE = (36, 28, 5)  # right to left, back to front, feet to head
SPACING = (0.8, 1.1, 2.5)
ORIENTATIONS = ("RAS", "LPS", "LPI", "RAI", "SPL")
SLICES_AXIS = {"SPL": 0}
CELL = Path("cells", "nnunet-scratch-none", "fold1-seed0")


def volume(seed, value):
    """Return HU and labels in RAS+, with a liver on the patient's right and a lesion in its front half.

    The HU of each label differ, so that few iterations learn them.
    """
    labels = np.zeros(SHAPE, np.uint8)
    labels[20:33, 6:24] = LIVER
    labels[24 : 29 + seed % 3, 15:21, 1:4] = value
    noise = np.random.default_rng(seed).integers(-20, 20, SHAPE)
    return (np.array([-500, 50, 300, 600, 900])[labels] + noise).astype(np.int16), labels


def write_nifti(path, array, codes):
    """Write a RAS+ array with its axes in another order and direction."""
    image = nib.Nifti1Image(array, np.diag([*SPACING, 1]))
    turned = image.as_reoriented(ornt_transform(io_orientation(image.affine), axcodes2ornt(codes)))
    nib.save(turned, path)


def file_slice(number, codes):
    """Return the number along the file's slice axis of slice `number` from the feet."""
    return SHAPE[2] - 1 - number if "I" in codes else number


def expected(path, item):
    """Return a stack by nibabel, rows from front to back and columns from right to left, and the slice in it."""
    loaded = nib.load(path)
    codes = "".join(nib.aff2axcodes(loaded.affine))
    number = file_slice(item.slice, codes)
    array = np.asarray(nib.as_closest_canonical(loaded).dataobj)  # right is positive, front is positive
    return array[::-1, ::-1].transpose(1, 0, 2), number


@pytest.fixture
def fold(tmp_path):
    """Fold 1 of a study of 12 patients in two folds, in files of several orientations."""
    items = []
    for number in range(12):
        kind, codes = LESION_TYPES[number % 3], ORIENTATIONS[number % len(ORIENTATIONS)]
        name = f"p{number:02d}"
        hu, labels = volume(number, LESION + number % 3)
        write_nifti(tmp_path / f"{name}.nii", hu, codes)
        write_nifti(tmp_path / f"{name}-label.nii", labels, codes)
        for middle in (1, 3)[: 1 + number % 2]:
            annotated = file_slice(middle, codes)
            items.append(DataItem(f"{name}.nii", f"{name}-label.nii", name, number // 6, annotated, kind))
    datalist = DataList("peers", "1", "synthetic", "CC0-1.0", label_table(5), tuple(items))
    write_datalist(tmp_path / "datalist.json", datalist)
    content = {
        "dataset_dir": ".",
        "output_dir": "out",
        "validation_share": 0.5,
        "overrides": {"liver_crop": 64},
        "rows": [{"strategy": "joint", "initialisation": "scratch"}],
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content))
    study = read_study(tmp_path / "study.yaml")
    return Fold(study, 1, fold_lists(study)[1])


def paths(fold):
    return fold.folder / "raw" / DATASET, fold.folder / "preprocessed" / DATASET


def test_exported_cases_are_the_slices_of_the_files(fold):
    export(fold)
    raw, _ = paths(fold)
    checked = set()
    for part, folder in (("training", "imagesTr"), ("validation", "imagesTr"), ("scored", "imagesTs")):
        for number, item in enumerate(fold.parts[part]):
            pixels, middle = expected(fold.study.dataset_dir / item.image, item)
            for channel, index in enumerate((max(middle - 1, 0), middle, min(middle + 1, SHAPE[2] - 1))):
                path = raw / folder / f"{case_name(part, number)}_{channel:04d}.nii.gz"
                image = sitk.ReadImage(str(path))
                np.testing.assert_array_equal(sitk.GetArrayFromImage(image), pixels[..., index])
                assert image.GetSpacing() == pytest.approx(SPACING[:2])  # columns, rows
                assert nib.load(path).shape == SHAPE[:2]
            if part != "scored":
                labels, _ = expected(fold.study.dataset_dir / item.label, item)
                image = sitk.ReadImage(str(raw / "labelsTr" / f"{case_name(part, number)}.nii.gz"))
                np.testing.assert_array_equal(sitk.GetArrayFromImage(image), labels[..., middle])
            checked.add("".join(nib.aff2axcodes(nib.load(fold.study.dataset_dir / item.image).affine)))
    assert checked == {*ORIENTATIONS}


def test_split_and_data_set_are_those_of_the_fold(fold):
    export(fold)
    raw, preprocessed = paths(fold)
    (split,) = json.loads((preprocessed / "splits_final.json").read_text())
    cases = json.loads((fold.folder / "cases.json").read_text())
    patients = {key: {cases[name]["patient"] for name in split[key]} for key in ("train", "val")}
    held_out = {f"p{number:02d}" for number in range(6, 12)}
    assert {cases[name]["patient"] for name in cases if name.startswith("scored")} == held_out
    assert patients["train"] | patients["val"] == {f"p{number:02d}" for number in range(6)}
    assert not patients["train"] & patients["val"]
    assert patients["val"] == {item.patient for item in fold.datalist.training if item.fold == 0}
    labelled = {path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").iterdir()}
    assert labelled == {*split["train"], *split["val"]}
    assert {path.name.rpartition("_")[0] for path in (raw / "imagesTr").iterdir()} == labelled
    content = json.loads((raw / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "liver": 1, "cyst": 2, "hemangioma": 3, "metastasis": 4}
    assert content["numTraining"] == len(labelled)
    assert content["channel_names"] == {"0": "CT", "1": "CT", "2": "CT"}


def test_volumes_and_partial_label_maps_are_refused(fold):
    first, *others = fold.datalist.training
    for change in ({"slice": None, "lesion_type": None}, {"labelled": ("liver",), "lesion_type": None}):
        item = DataItem(**{**vars(first), **change})
        datalist = DataList(**{**vars(fold.datalist), "training": (item, *others)})
        with pytest.raises(LiversegError, match="needs annotated slices with complete label maps"):
            export(Fold(fold.study, 1, datalist))
        assert not Fold(fold.study, 1, datalist).folder.exists()


def test_other_files_or_slabs_are_exported_again(fold, tmp_path):
    def folder(**overrides):
        study = replace(fold.study, overrides=(*fold.study.overrides, *overrides.items()))
        return Fold(study, 1, fold.datalist).folder

    assert folder() == folder(liver_crop=20) == fold.folder
    assert folder(slab_spacing_mm=5) != fold.folder
    _, labels = volume(0, LESION)
    write_nifti(tmp_path / "p00-label.nii", np.minimum(labels, LIVER), ORIENTATIONS[0])
    assert folder() != fold.folder


def write_predictions(fold, folder, change=lambda labels: labels, certainty=0.9):
    """Write predictions in nnU-Net's files, from the true labels by nibabel."""
    folder.mkdir()
    for number, item in enumerate(fold.parts["scored"]):
        stack, middle = expected(fold.study.dataset_dir / item.label, item)
        labels = change(stack[..., middle])
        probabilities = np.where(np.arange(5)[:, None, None] == labels, certainty, (1 - certainty) / 4)
        np.savez_compressed(folder / f"{case_name('scored', number)}.npz", probabilities=probabilities[:, None])
        image = sitk.GetImageFromArray(np.ascontiguousarray(labels))
        sitk.WriteImage(image, str(folder / f"{case_name('scored', number)}.nii.gz"))


def scores_of(fold, tmp_path, change):
    write_predictions(fold, tmp_path / "predictions", change)
    (tmp_path / "cell").mkdir()
    return score(fold, lambda number: read_probabilities(tmp_path / "predictions", number), tmp_path / "cell")


def test_a_perfect_prediction_scores_one(fold, tmp_path):
    scores = scores_of(fold, tmp_path, lambda labels: labels)
    names = ("liver_dice", "lesion_dice", "lesion_recall", "class_aware_dice", "type_accuracy", "success_rate")
    assert [scores[name] for name in names] == [1.0] * len(names)
    units = pd.read_csv(tmp_path / "cell" / "evaluation.csv")
    items = fold.parts["scored"]
    assert units[["patient", "slice"]].to_numpy().tolist() == [[item.patient, item.slice] for item in items]
    right = [units[f"probability_{kind}"][row] for row, kind in enumerate(units["true_type"])]
    assert right == pytest.approx([0.9 / 0.95] * len(items))  # the vote leaves background and liver out
    lesions = pd.read_csv(tmp_path / "cell" / "lesions.csv")
    assert (lesions["matched"] > 0).all()
    level = json.loads((tmp_path / "cell" / "evaluation.json").read_text())["lesion_level"]
    assert (level["recall"], level["precision"]) == (1.0, 1.0)
    with np.load(tmp_path / "cell" / "predictions.npz") as predicted:
        assert {*predicted} == {str(number) for number in range(len(items))}
        assert predicted["0"].shape == (SHAPE[1], SHAPE[0])


@pytest.mark.parametrize("axis", [0, 1])
def test_a_mirrored_prediction_does_not_score_one(fold, tmp_path, axis):
    scores = scores_of(fold, tmp_path, lambda labels: np.flip(labels, axis))
    assert scores["lesion_dice"] < 0.5


def test_predictions_of_another_type_are_wrong_though_the_lesion_is_found(fold, tmp_path):
    scores = scores_of(fold, tmp_path, lambda labels: np.where(labels == LESION, LESION + 1, labels))
    share = np.mean([item.lesion_type != LESION_TYPES[0] for item in fold.parts["scored"]])
    assert scores["lesion_dice"] == 1.0
    assert scores["type_accuracy"] == pytest.approx(share)


def test_probabilities_that_contradict_the_label_map_are_refused(fold, tmp_path):
    write_predictions(fold, tmp_path / "predictions")
    path = tmp_path / "predictions" / f"{case_name('scored', 0)}.nii.gz"
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    sitk.WriteImage(sitk.GetImageFromArray(labels[:, ::-1].copy()), str(path))
    with pytest.raises(LiversegError, match="other labels than the highest probabilities"):
        read_probabilities(tmp_path / "predictions", 0)
    path.unlink()
    with pytest.raises(LiversegError, match="cannot be read"):
        read_probabilities(tmp_path / "predictions", 0)


def test_wall_time_and_threads_of_cells(fold):
    for seed, seconds in ((0, 90.0), (1, 110.0)):
        folder = fold.study.output_dir / "cells" / "joint-scratch-none" / f"fold1-seed{seed}"
        folder.mkdir(parents=True)
        (folder / "cell.json").write_text(
            json.dumps({"seconds": {"training": seconds, "evaluating": 5.0}, "threads": 2})
        )
    assert wall_time_and_threads(fold.study, "joint-scratch-none", 1) == (100.0, 2)
    with pytest.raises(UsageError, match="no cell of joint-scratch-none is complete for fold 0"):
        wall_time_and_threads(fold.study, "joint-scratch-none", 0)


def test_a_step_that_fails_is_one_line_and_leaves_no_cell(fold, tmp_path):
    study = tmp_path / "study.yaml"
    with pytest.raises(SystemExit, match=r"nnU-Net's plan ended with exit code 1; its output is in .*plan\.log"):
        main([str(study), "--python", "/bin/false", "--fold", "1", "--minutes", "1"])
    assert not (tmp_path / "out" / CELL / "cell.json").exists()
    with pytest.raises(SystemExit, match="the study has the folds 0, 1"):
        main([str(study), "--python", "/bin/false", "--fold", "2", "--minutes", "1"])


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON, reason="LIVERSEG_NNUNET_PYTHON names no Python with nnunetv2")
def test_nnunet_itself(fold, tmp_path, capsys):
    arguments = [str(tmp_path / "study.yaml"), "--python", PYTHON, "--fold", "1", "--minutes", "1.5"]
    main(arguments)
    printed = capsys.readouterr().out
    record = json.loads((tmp_path / "out" / CELL / "cell.json").read_text())
    assert 60 < record["seconds"]["training"] < 120
    assert record["training"]["iterations"] > 10
    assert record["versions"]["nnunetv2"]
    assert (record["ingredients"]["strategy"], record["ingredients"]["fold"]) == ("nnunet", 1)
    units = pd.read_csv(tmp_path / "out" / CELL / "evaluation.csv", keep_default_na=False)
    assert len(units) == len(fold.parts["scored"])
    assert units["lesion_dice"].mean() > 0.7  # a mirrored or transposed prediction has less than 0.5
    assert (units["pred_type"] == units["true_type"]).mean() > 0.7
    main(arguments)  # complete: only the scores are printed
    assert capsys.readouterr().out == printed
    assert json.loads((tmp_path / "out" / CELL / "cell.json").read_text()) == record
