"""Both bundles on lists with partial label maps: training, and scores of the known labels."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from commands import EVALUATE, JOINT, PRETRAIN, TINY, run_bundle, train

from liverseg.cli.main import main

pytestmark = pytest.mark.integration


def merged(source, target, change):
    """Write a label map with other values."""
    label = nib.load(source)
    target.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(change(np.asanyarray(label.dataobj)), label.affine), target)


def without_lesions(label):
    return np.minimum(label, 1).astype(np.uint8)


def without_types(label):
    return np.minimum(label, 2).astype(np.uint8)


def partial_tree(tree, folder, changes):
    """Link a tree's images and write its list with every second label map changed; `changes` has `labelled` as keys."""
    folder.mkdir()
    content = json.loads((tree / "datalist.json").read_text(encoding="utf-8"))
    for part in ("training", "test"):
        for number, item in enumerate(content[part]):
            kind = [None, *changes][number % (len(changes) + 1)]
            if kind is not None:
                name = f"partial/{part}{number}.nii.gz"
                merged(tree / item["label"], folder / name, changes[kind])
                item.pop("lesion_type", None)
                item |= {"label": name, "labelled": list(kind)}
            for key in ("image", "label"):
                path = folder / item[key]
                path.parent.mkdir(exist_ok=True)
                if not path.exists():
                    path.symlink_to(tree / item[key])
    (folder / "datalist.json").write_text(json.dumps(content), encoding="utf-8")
    return folder, content


def evaluated(bundle, tree, folder, **more):
    result = train(bundle, tree, folder, epochs=1, **more)
    assert result.code == 0, result.err
    run = {"dataset_dir": tree, "output_dir": folder, "ckpt_dir": folder / "models", **TINY}
    run |= {key: more[key] for key in more if key == "key_score"}
    result = run_bundle(bundle, "evaluating", EVALUATE, **run)
    assert result.code == 0, result.err
    return pd.read_csv(folder / "evaluation.csv"), json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))


def test_pre_training_on_volumes_of_which_some_have_the_liver_alone(lits_tree, tmp_path, capsys):
    tree, content = partial_tree(lits_tree, tmp_path / "tree", {("liver",): without_lesions})
    units, scores = evaluated(PRETRAIN, tree, tmp_path / "out")
    liver_only = [item.get("labelled") == ["liver"] for item in content["test"]]
    assert liver_only == [False, True]
    assert units["liver_dice"].notna().all()
    assert units["lesion_dice"].isna().tolist() == liver_only
    assert scores["units"] == 2 and scores["lesion_dice"] == pytest.approx(
        units["lesion_dice"].dropna().iloc[0], abs=1e-5
    )
    assert set(pd.read_csv(tmp_path / "out" / "lesions.csv")["image"]) <= {content["test"][0]["image"]}
    assert main(["datalist", "check", str(tree / "datalist.json")]) == 0
    assert main(["datalist", "describe", str(tree / "datalist.json")]) == 0
    table = capsys.readouterr().out
    (line,) = [line for line in table.splitlines() if "volumes whose lesions are not outlined" in line]
    assert line.split()[-1] == str(
        sum(item.get("labelled") == ["liver"] for item in content["training"] + content["test"])
    )


def test_the_best_epoch_of_livers_alone_is_chosen_by_liver_dice(lits_tree, tmp_path):
    tree, content = partial_tree(lits_tree, tmp_path / "tree", {("liver",): without_lesions})
    for item in content["training"]:  # the validation fold has no outlined lesions
        item["fold"] = 0 if "labelled" in item else 1
    content["test"] = [item for item in content["test"] if "labelled" in item]
    (tree / "datalist.json").write_text(json.dumps(content), encoding="utf-8")
    assert {item["fold"] for item in content["training"]} == {0, 1}
    line = train(PRETRAIN, tree, tmp_path / "none").refusal(code=2)
    assert "has its lesions outlined; give --key_score liver_dice, or another fold" in line
    assert not (tmp_path / "none").exists()
    units, scores = evaluated(PRETRAIN, tree, tmp_path / "out", key_score="liver_dice")
    record = json.loads((tmp_path / "out" / "models" / "model.json").read_text(encoding="utf-8"))
    metrics = record["metrics"]
    assert metrics["val_score"] == metrics["val_liver_dice"] and "val_lesion_dice" not in metrics
    assert units["lesion_dice"].isna().all()
    assert scores["liver_dice"] == pytest.approx(units["liver_dice"].mean(), abs=1e-5)  # the table has rounded values


def test_the_joint_network_learns_from_slices_of_unknown_types_and_livers_alone(cohort_tree, tmp_path):
    changes = {("liver",): without_lesions, ("liver", "lesion"): without_types}
    tree, content = partial_tree(cohort_tree, tmp_path / "tree", changes)
    units, scores = evaluated(JOINT, tree, tmp_path / "out", pretrain_weights="null")
    kinds = [tuple(item.get("labelled", ())) for item in content["test"]]
    assert {*kinds} == {(), *changes}
    assert units["lesion_dice"].isna().tolist() == [kind == ("liver",) for kind in kinds]
    assert units["class_aware_dice"].isna().tolist() == [kind != () for kind in kinds]
    assert units["true_type"].isna().tolist() == [kind != () for kind in kinds]
    assert scores["units"] == len(kinds)
    assert main(["datalist", "check", str(tree / "datalist.json")]) == 0


def test_a_label_map_with_lesions_that_its_item_says_were_not_outlined_is_refused(lits_tree, tmp_path, capsys):
    tree, content = partial_tree(lits_tree, tmp_path / "tree", {("liver",): lambda label: label})
    name = next(item["label"] for item in content["training"] if "labelled" in item)
    line = train(PRETRAIN, tree, tmp_path / "out").refusal()
    assert 'it holds 2, but its item is labelled ["liver"], whose label maps hold 0 to 1; correct' in line
    assert f"{tree}/partial/" in line
    assert main(["datalist", "check", str(tree / "datalist.json")]) == 1
    assert name in capsys.readouterr().out
