"""Each fold's data list: patients in one part only, all types in every part, no empty part."""

from dataclasses import replace

import pytest
import yaml

from liverseg.datalists import DataItem, DataList, datalist_text, read_datalist, write_datalist
from liverseg.errors import LiversegError
from liverseg.labels import LESION_TYPES
from liverseg.study import read_study
from liverseg.study.folds import check_fold_lists, fold_list_path, fold_lists, write_fold_lists


def items(patients_per_type=12, folds=3):
    return tuple(
        DataItem("i.nii", "l.nii", f"{name}-{number}", fold=number % folds, slice=number, lesion_type=name)
        for name in LESION_TYPES
        for number in range(patients_per_type)
    )


@pytest.fixture
def study(tmp_path):
    """Return a function that writes a data list of these items and a study on it."""

    def made(training, **keys):
        named = tuple(replace(item, image=f"{item.patient}.nii", label=f"{item.patient}-l.nii") for item in training)
        labels = {"0": "background"}
        write_datalist(tmp_path / "datalist.json", DataList("cohort", "1", "", "", labels, named))
        rows = [{"strategy": "joint", "initialisation": "scratch"}]
        content = {"dataset_dir": ".", "output_dir": "out", "rows": rows, "validation_share": 0.25, **keys}
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(content))
        return read_study(tmp_path / "study.yaml")

    return made


def patients(items):
    return {item.patient for item in items}


def checked(study):
    """Return the lists of a study after their check."""
    lists = fold_lists(study)
    check_fold_lists(study, lists)
    return lists


def test_every_patient_is_tested_once_and_never_learnt_from_there(study):
    tested = []
    for fold, made in checked(study(items())).items():
        learnt, validation = made.split(0)
        assert patients(made.test) == {item.patient for item in items() if item.fold == fold}
        assert not patients(made.test) & patients(made.training)
        assert not patients(learnt) & patients(validation)
        assert len(patients(learnt)) + len(patients(validation)) + len(patients(made.test)) == 36
        assert len(patients(validation)) == 6
        assert {item.lesion_type for item in validation} == set(LESION_TYPES)
        tested += sorted(patients(made.test))
    assert sorted(tested) == sorted(patients(items()))


def test_what_is_written_is_what_was_made_each_time(study):
    made = study(items())
    write_fold_lists(made, fold_lists(made))
    for fold, datalist in fold_lists(made).items():
        assert read_datalist(fold_list_path(made, fold, datalist)) == datalist
        assert fold_list_path(made, fold, datalist).read_text(encoding="utf-8") == datalist_text(datalist)


def test_scoring_validation_patients_leaves_the_fold_out(study):
    lists = checked(study(items(), scored="validation", folds=[1]))
    assert list(lists) == [1]
    assert lists[1].test == ()
    assert not patients(lists[1].training) & {item.patient for item in items() if item.fold == 1}


def test_a_fold_that_is_empty(study):
    with pytest.raises(LiversegError, match=r"fold 5 is empty; the data list has the folds 0, 1, 2"):
        checked(study(items(), folds=[0, 5]))


def test_a_fold_without_a_type(study):
    some = [item for item in items() if not (item.fold == 1 and item.lesion_type == "hemangioma")]
    with pytest.raises(LiversegError, match=r"fold 1: no hemangioma among the 8 held out items"):
        checked(study(some))


def test_a_type_that_is_only_in_the_held_out_fold(study):
    some = [item for item in items() if item.fold == 2 or item.lesion_type != "cyst"]
    with pytest.raises(LiversegError, match=r"no cyst among the .* items"):
        checked(study(some, folds=[2]))


def test_a_partial_label_map_is_not_scored(study):
    first, *others = items()
    with pytest.raises(LiversegError, match=r"fold 0: .*\.nii of the held out items has labelled, and a study scores"):
        checked(study([replace(first, lesion_type=None, labelled=("liver", "lesion")), *others]))


def test_one_fold_is_no_study(study):
    with pytest.raises(LiversegError, match="1 folds; a study needs 2 or more"):
        checked(study([replace(item, fold=0) for item in items()]))
