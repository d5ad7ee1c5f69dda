"""Set-up of a run: all checks come before the first write."""

import json
import logging
import platform
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from liverseg.datalists import DataItem, read_datalist
from liverseg.errors import LiversegError, UsageError
from liverseg.networks import SEResUNet, SlabInput, export_weights, read_weights
from liverseg.training import (
    check_key_score,
    initialise_weights,
    load_for_evaluation,
    load_run_data,
    run_record,
    write_transfer,
)
from liverseg.utils.files import sha256_file
from liverseg.utils.memory import keep_freed_memory

INPUT_SPEC = SlabInput((-200, 250))
FAULTS = """
import resource, sys
import numpy as np
from liverseg.utils.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for round in range(20):
    if round == 2:
        start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [np.ones(1 << 21) for _ in range(6)]
    del arrays
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start)
"""
"""Prints the pages that the system provides for arrays of 16 MB that are allocated and freed again and again."""


@pytest.fixture
def tree(lits_tree, tmp_path):
    """Return a function that writes the phantom tree's list, changed, with links to its volumes."""
    for path in lits_tree.glob("*.nii.gz"):
        (tmp_path / path.name).symlink_to(path)
    content = json.loads((lits_tree / "datalist.json").read_text(encoding="utf-8"))

    def change(edit=lambda content: None):
        edit(content)
        (tmp_path / "datalist.json").write_text(json.dumps(content))
        return tmp_path / "datalist.json", tmp_path

    return change


def test_a_fold_is_held_out_and_test_patients_are_in_neither(tree):
    datalist, folder = tree()
    data = load_run_data(datalist, folder, 1, 3)
    assert {item.fold for item in data.validation} == {1}
    assert {item.fold for item in data.training} == {0, 2}
    listed = read_datalist(datalist)
    assert data.test == data.evaluation == listed.test
    assert len({item.patient for item in (*data.training, *data.validation, *data.test)}) == 6


def test_test_images_without_a_label_are_left_out_and_the_fold_is_evaluated(tree, caplog):
    datalist, folder = tree(lambda content: [item.pop("label") for item in content["test"]])
    data = load_run_data(datalist, folder, 0, 3)
    assert data.test == ()
    assert data.evaluation == data.validation
    assert "no labelled test items: evaluating the held-out fold" in caplog.text


def test_an_evaluation_needs_neither_folds_nor_training_files_where_there_are_test_items(tree):
    datalist, folder = tree(lambda content: content["training"][0].update(image="gone.nii"))
    data = load_run_data(datalist, folder, 0, 3, evaluating=True)
    assert (data.training, data.validation) == ((), ())
    assert data.evaluation == read_datalist(datalist).test
    datalist, folder = tree(lambda content: content.update(training=[]))
    assert load_run_data(datalist, folder, 0, 3, evaluating=True).evaluation == data.evaluation
    with pytest.raises(LiversegError, match=r"no fold 0; it has none"):
        load_run_data(datalist, folder, 0, 3)


def test_without_test_items_an_evaluation_is_of_a_fold_even_the_only_one(tree):
    datalist, folder = tree(lambda content: (one_fold(content), content.update(test=[])))
    data = load_run_data(datalist, folder, 0, 3, evaluating=True)
    assert data.evaluation == data.validation == read_datalist(datalist).training


def one_fold(content):
    for item in content["training"]:
        item["fold"] = 0


@pytest.mark.parametrize(
    ("edit", "fold", "words"),
    [
        (lambda content: None, 3, "no fold 3; it has 0, 1, 2"),
        (one_fold, 0, "fold 0 holds every item; nothing is left to train on"),
        (lambda content: content["test"][0].update(image="x.nii"), 0, r"x\.nii does not exist; is dataset_dir right\?"),
        (lambda content: content["training"][0].update(label="y.nii"), 0, r"datalist\.json: .*y\.nii does not exist"),
    ],
)
def test_lists_that_cannot_be_trained_on(edit, fold, words, tree):
    datalist, folder = tree(edit)
    with pytest.raises(LiversegError, match=words):
        load_run_data(datalist, folder, fold, 3)


def test_a_list_with_other_labels_is_refused_before_a_lesion_is_trained_as_a_cyst(tree, cohort_tree):
    datalist, folder = tree()
    with pytest.raises(
        LiversegError, match=r"its labels are 0 background, 1 liver, 2 lesion; this bundle's are .*2 cyst"
    ):
        load_run_data(datalist, folder, 0, 5)
    with pytest.raises(LiversegError, match=r"4 metastasis; this bundle's are 0 background, 1 liver, 2 lesion"):
        load_run_data(cohort_tree / "datalist.json", cohort_tree, 0, 3)
    datalist, folder = tree(lambda content: content["labels"].update({"2": "tumour"}))
    assert load_run_data(datalist, folder, 0, 3).training  # whatever its name in LiTS lists


def test_lesion_dice_needs_a_lesion_that_is_outlined():
    liver, full = DataItem("a", "b", "p", labelled=("liver",)), DataItem("c", "d", "q")
    check_key_score([liver, full], "lesion_dice")
    check_key_score([liver], "liver_dice")
    with pytest.raises(
        UsageError, match="none of the 2 items to be scored has its lesions outlined; give --key_score l"
    ):
        check_key_score([liver, liver], "lesion_dice")


def test_folders_that_hold_nothing(tree, tmp_path):
    datalist, _ = tree()
    (tmp_path / "empty").mkdir()
    for folder, words in ((tmp_path / "none", "no such folder"), (tmp_path / "empty", "the folder is empty")):
        with pytest.raises(LiversegError, match=f"dataset_dir {folder}: {words}"):
            load_run_data(datalist, folder, 0, 3)


def test_the_record_of_a_run_names_network_labels_and_list(lits_tree):
    network = SEResUNet("small", out_channels=3, deep_supervision=True)
    record = run_record(network, INPUT_SPEC, lits_tree / "datalist.json", 2)
    assert record.arguments == {**network.arguments(), "deep_supervision": False}  # they are exported without aux heads
    assert record.labels == ("background", "liver", "lesion")
    assert record.input_spec == INPUT_SPEC
    assert record.datalist_name == read_datalist(lits_tree / "datalist.json").name
    assert record.datalist_sha256 == sha256_file(lits_tree / "datalist.json")
    assert (record.epoch, record.metrics, record.fold) == (0, {}, 2)


@pytest.fixture
def pretrained(lits_tree, tmp_path):
    """Exported weights of a pre-training network."""
    torch.manual_seed(5)
    network = SEResUNet("small", out_channels=3, deep_supervision=True)
    path = tmp_path / "weights" / "pretrain.safetensors"
    export_weights(path, network.state_dict(), run_record(network, INPUT_SPEC, lits_tree / "datalist.json", 1))
    return path


def test_a_start_from_weights_loads_and_logs_them(pretrained, tmp_path, caplog):
    network = SEResUNet("small", out_channels=5, deep_supervision=True)
    with caplog.at_level(logging.INFO, logger="liverseg"):
        report = initialise_weights(network, "lits", INPUT_SPEC, str(pretrained))
    state = read_weights(pretrained)
    assert all(torch.equal(network.state_dict()[name], state[name]) for name in report.loaded)
    assert f"transfer: {len(report.loaded)} tensors loaded, {len(report.left)} left" in caplog.text
    write_transfer(report, tmp_path)
    assert json.loads((tmp_path / "transfer.json").read_text(encoding="utf-8")) == report.to_json()


def test_a_start_from_scratch_changes_nothing_and_is_logged(tmp_path, caplog):
    network = SEResUNet("small")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with caplog.at_level(logging.INFO, logger="liverseg"):
        assert initialise_weights(network, "scratch", INPUT_SPEC) is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert "training from scratch" in caplog.text
    write_transfer(None, tmp_path)
    assert json.loads((tmp_path / "transfer.json").read_text(encoding="utf-8")) == {"loaded": [], "left": {}}


def test_weights_that_are_missing_or_of_another_window_are_refused(pretrained):
    with pytest.raises(LiversegError, match=r"none\.pt: no such file; .* or say --pretrain_weights null"):
        initialise_weights(SEResUNet("small"), "lits", INPUT_SPEC, str(pretrained.parent / "none.pt"))
    with pytest.raises(LiversegError, match=r"HU window \[-200, 250\] in the file, \[-100, 250\] in the network"):
        initialise_weights(SEResUNet("small"), "lits", SlabInput((-100, 250)), str(pretrained))


def test_weights_are_not_scored_on_patients_they_were_trained_on(pretrained, lits_tree, tmp_path, caplog):
    network = SEResUNet("small", out_channels=3)
    datalist = lits_tree / "datalist.json"
    data = load_run_data(datalist, lits_tree, 0, 3)
    assert (
        load_for_evaluation(network, pretrained, INPUT_SPEC, datalist, 0, data).fold == 1
    )  # its test patients are in no training
    only_fold = replace(data, test=())
    with pytest.raises(
        LiversegError, match=r"trained with fold 1 held out, so on the patients of fold 0; give --fold 1"
    ):
        load_for_evaluation(network, pretrained, INPUT_SPEC, datalist, 0, only_fold)
    load_for_evaluation(network, pretrained, INPUT_SPEC, datalist, 1, only_fold)
    assert not caplog.records
    other = tmp_path / "other.json"
    other.write_text(datalist.read_text(encoding="utf-8") + " ")
    load_for_evaluation(network, pretrained, INPUT_SPEC, other, 0, only_fold)
    assert "make sure that no patient is in both" in caplog.text


def test_weights_of_another_window_are_not_scored(pretrained, tree):
    datalist, folder = tree()
    data = load_run_data(datalist, folder, 0, 3)
    with pytest.raises(LiversegError, match=r"HU window"):
        load_for_evaluation(SEResUNet("small", out_channels=3), pretrained, SlabInput((-100, 250)), datalist, 0, data)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_freed_memory_is_used_again():
    keep, leave = (
        int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True).stdout)
        for how in ("keep", "leave")
    )
    assert keep < leave / 10


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_other_c_libraries_are_left_alone(error, monkeypatch):
    def missing(_):
        raise error

    monkeypatch.setattr("ctypes.CDLL", missing)
    keep_freed_memory()
