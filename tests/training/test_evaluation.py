"""Files of an evaluation, from predictions with known errors."""

import json
import logging

import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Engine

from liverseg.datalists import DataItem, read_datalist
from liverseg.datasets import SlabDataset
from liverseg.labels import LESION, LESION_TYPES
from liverseg.networks import SlabOutput
from liverseg.training import EvaluationWriter, SlabScores, pad_collate
from liverseg.transforms import LiverCropd


def one_hot(labels, channels):
    return 20 * torch.nn.functional.one_hot(labels[:, 0].long(), channels).permute(0, 3, 1, 2).float()


def evaluated(dataset, predict, folder, key="lesion_dice", batch_size=4):
    """Run an evaluator whose network is `predict`, from true labels (batch, 1, H, W) to its output."""
    evaluator = Engine(lambda _, batch: {"pred": predict(batch), "label": batch["label"]})
    scores = SlabScores(key)
    scores.attach(evaluator, "val_score")
    EvaluationWriter(folder, dataset, scores, "joint").attach(evaluator)
    evaluator.run(torch.utils.data.DataLoader(dataset, batch_size, collate_fn=pad_collate))
    return json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))


@pytest.fixture
def cohort(cohort_tree):
    """Annotated slices of one held-out fold of the cohort."""
    _, held_out = read_datalist(cohort_tree / "datalist.json").split(0)
    return SlabDataset(held_out, cohort_tree, None, labels=5, progress=False)


def without_the_first(batch):
    """Return a perfect map, except that lesions of the first slice are missed."""
    labels = batch["label"].clone()
    labels[batch["unit"] == 0] = labels[batch["unit"] == 0].clamp(max=1)
    return one_hot(labels, 5)


def test_tables_scores_outlines_and_a_line_in_the_log(cohort, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="liverseg"):
        content = evaluated(cohort, without_the_first, tmp_path)
    items = cohort.data
    units = pd.read_csv(tmp_path / "evaluation.csv", keep_default_na=False)
    assert units[["patient", "image", "slice"]].to_numpy().tolist() == [[i.patient, i.image, i.slice] for i in items]
    assert units["lesion_dice"].tolist() == [0.0] + [1.0] * (len(items) - 1)
    assert units["pred_type"].tolist() == ["", *(item.lesion_type for item in items[1:])]
    share = (len(items) - 1) / len(items)
    assert (content["units"], content["patients"]) == (len(items), len({item.patient for item in items}))
    assert content["type_accuracy"] == content["lesion_dice"] == pytest.approx(share)

    lesions = pd.read_csv(tmp_path / "lesions.csv", keep_default_na=False)
    true, pred = (lesions[lesions["side"] == side] for side in ("true", "predicted"))
    missed = true["slice"].eq(items[0].slice) & true["image"].eq(items[0].image)
    assert (true["matched"] == 0).tolist() == missed.tolist()
    assert len(pred) == len(true) - missed.sum()
    assert content["lesion_level"]["precision"] == content["lesion_level"]["detected_dice"] == 1
    assert content["lesion_level"]["recall"] == pytest.approx(1 - missed.mean())
    assert set(true["true_type"]) <= set(LESION_TYPES)

    with np.load(tmp_path / "predictions.npz") as outlines:
        assert len(outlines) == len(items)
        for number in range(1, len(items)):
            assert (outlines[str(number)] == cohort[number]["label"][0].numpy()).all()
        assert outlines["0"].max() < LESION
    (line,) = [record.getMessage() for record in caplog.records if "patients" in record.getMessage()]
    assert line.startswith(f"joint, {content['patients']} patients: liver_dice 1.000, lesion_dice")


@pytest.mark.integration
def test_liver_crop_leaves_scores_and_outlines_unchanged(cohort, cohort_tree, tmp_path):
    cropped = SlabDataset(cohort.data, cohort_tree, None, labels=5, transform=LiverCropd(20), progress=False)
    contents = []
    for name, dataset in (("full", cohort), ("cropped", cropped)):
        (tmp_path / name).mkdir()
        contents.append(evaluated(dataset, without_the_first, tmp_path / name))
    lesion_levels = [content.pop("lesion_level") for content in contents]
    assert contents[0] == pytest.approx(contents[1])
    assert lesion_levels[0] == pytest.approx(lesion_levels[1])
    files = (tmp_path / name / "predictions.npz" for name in ("full", "cropped"))
    with np.load(next(files)) as full, np.load(next(files)) as cropped:
        assert all((full[name] == cropped[name]).all() for name in full)


def test_a_classifier_leaves_no_lesions(cohort, tmp_path):
    types = torch.tensor([[4.0, 0.0, 0.0]])
    content = evaluated(
        cohort, lambda batch: SlabOutput(None, types.expand(len(batch["unit"]), -1)), tmp_path, "type_accuracy"
    )
    assert content["type_accuracy"] == pytest.approx(np.mean([item.lesion_type == "cyst" for item in cohort.data]))
    assert "lesion_level" not in content
    assert {path.name for path in tmp_path.iterdir()} == {"evaluation.csv", "evaluation.json"}


def test_volumes_are_compared_completely(cohort_tree, tmp_path):
    item = read_datalist(cohort_tree / "datalist.json").training[0]
    full = SlabDataset([DataItem(item.image, item.label, item.patient)], cohort_tree, None, labels=5, progress=False)
    content = evaluated(full, lambda batch: one_hot(batch["label"], 5), tmp_path, batch_size=7)
    volume = full.store[full.data[0]]
    lesions = pd.read_csv(tmp_path / "lesions.csv")
    true = lesions[lesions["side"] == "true"]
    assert true["voxels"].sum() == sum((volume.label.read([z]) >= LESION).sum() for z in range(volume.depth))
    assert lesions["slice"].isna().all()
    assert content["lesion_level"]["recall"] == content["lesion_level"]["type_accuracy_end_to_end"] == 1
    assert not (tmp_path / "predictions.npz").exists()


def test_slices_of_several_sizes_in_one_batch(tmp_path, write_nifti):
    rng = np.random.default_rng(0)
    items = []
    for name, shape in (("a", (32, 40, 3)), ("b", (24, 20, 3))):
        write_nifti(tmp_path / f"{name}.nii.gz", rng.integers(-1000, 400, shape).astype(np.int16))
        labels = np.ones(shape, np.uint8)
        labels[3:6, 4:8] = 4
        write_nifti(tmp_path / f"{name}_label.nii.gz", labels)
        items.append(DataItem(f"{name}.nii.gz", f"{name}_label.nii.gz", name, slice=1, lesion_type="metastasis"))
    dataset = SlabDataset(items, tmp_path, None, labels=5, progress=False)

    def everywhere(batch):
        labels = batch["label"].clone()
        labels[:, :, 28:] = 2  # beyond the end of the smaller slice
        return one_hot(labels, 5)

    (tmp_path / "out").mkdir()
    evaluated(dataset, everywhere, tmp_path / "out")
    lesions = pd.read_csv(tmp_path / "out" / "lesions.csv")
    false = lesions[(lesions["side"] == "predicted") & (lesions["matched"] == 0)]
    assert set(false["patient"]) <= {"a"}
    with np.load(tmp_path / "out" / "predictions.npz") as outlines:
        assert sorted(outline.shape for outline in outlines.values()) == sorted(
            dataset.store[item].label.shape[1:] for item in items
        )


def test_lesions_of_a_table_without_types_have_none(lits_tree, tmp_path):
    item = read_datalist(lits_tree / "datalist.json").training[0]
    dataset = SlabDataset([item], lits_tree, None, labels=3, progress=False)
    content = evaluated(dataset, lambda batch: one_hot(batch["label"], 3), tmp_path)
    lesions = pd.read_csv(tmp_path / "lesions.csv", keep_default_na=False)
    assert content["lesion_level"]["recall"] == 1
    assert "type_accuracy_detected" not in content["lesion_level"]
    assert {*lesions["true_type"]} == {*lesions["pred_type"]} == {""}
