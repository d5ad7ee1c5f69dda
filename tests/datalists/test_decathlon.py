"""Task03_Liver: volumes listed in dataset.json are imported in order, and defects are reported in one line."""

import json

import pytest

from liverseg.datalists import DataItem, build_datalist, read_datalist
from liverseg.datalists.importers.decathlon import LICENCE, SOURCE, decathlon_items
from liverseg.errors import LiversegError


def task(root, labelled=(10, 0, 1, 2, 3), unlabelled=(132, 131), **changes):
    """Write a Task03_Liver folder of empty files with the published dataset.json; `changes` replace parts of it."""
    for folder, numbers in (("imagesTr", labelled), ("labelsTr", labelled), ("imagesTs", unlabelled)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in numbers:
            (root / folder / f"liver_{number}.nii.gz").touch()
            (root / folder / f"._liver_{number}.nii.gz").touch()
    content = {
        "name": "Liver",
        "description": "Liver and cancer segmentation",
        "reference": " IRCAD Hôpitaux Universitaires",
        "licence": "CC-BY-SA 4.0",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "cancer"},
        "numTraining": len(labelled),
        "numTest": len(unlabelled),
        "training": [
            {"image": f"./imagesTr/liver_{n}.nii.gz", "label": f"./labelsTr/liver_{n}.nii.gz"} for n in labelled
        ],
        "test": [f"./imagesTs/liver_{n}.nii.gz" for n in unlabelled],
        **changes,
    }
    (root / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return root


def test_items_are_in_the_order_of_their_numbers(tmp_path):
    labelled, unlabelled = decathlon_items(task(tmp_path))
    assert [item.patient for item in labelled] == [f"decathlon-liver-{n:03d}" for n in (0, 1, 2, 3, 10)]
    assert labelled[4] == DataItem(
        "imagesTr/liver_10.nii.gz", "labelsTr/liver_10.nii.gz", "decathlon-liver-010", fold=None
    )
    assert unlabelled == (
        DataItem("imagesTs/liver_131.nii.gz", None, "decathlon-liver-131"),
        DataItem("imagesTs/liver_132.nii.gz", None, "decathlon-liver-132"),
    )


def test_listed_debris_of_macos_does_not_count(tmp_path):
    pairs = [
        {"image": f"./imagesTr/{dot}liver_0.nii.gz", "label": f"./labelsTr/{dot}liver_0.nii.gz"} for dot in ("._", "")
    ]
    labelled, unlabelled = decathlon_items(task(tmp_path, training=pairs, test=["./imagesTs/._liver_131.nii.gz"]))
    assert [item.image for item in labelled + unlabelled] == ["imagesTr/liver_0.nii.gz"]


@pytest.mark.parametrize("name", ["cancer", "tumour", "Tumor", "lesion"])
def test_spellings_of_the_second_label(name, tmp_path):
    labels = {"0": "background", "1": "liver", "2": name}
    assert len(decathlon_items(task(tmp_path, labels=labels))[0]) == 5


def test_a_list_is_built_with_source_and_licence(tmp_path):
    listed = read_datalist(build_datalist("decathlon", task(tmp_path), folds=5))
    assert (listed.source, listed.licence) == (SOURCE, LICENCE)
    assert listed.labels == {"0": "background", "1": "liver", "2": "lesion"}
    assert (len(listed.training), len(listed.test)) == (5, 2)


PAIR = {"image": "./imagesTr/liver_0.nii.gz", "label": "./labelsTr/liver_0.nii.gz"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modality": {"0": "MRI"}}, r'modality is {"0": "MRI"}; {"0": "CT"} is needed'),
        ({"modality": {"0": "CT", "1": "PET"}}, r"modality is .*PET"),
        ({"modality": None}, r"modality is null"),
        ({"labels": {"0": "background", "1": "liver"}}, r"labels are .*; 0 background, 1 liver and 2 cancer"),
        ({"labels": {"0": "background", "1": "cancer", "2": "liver"}}, r"labels are"),
        ({"labels": {"0": "background", "1": "liver", "2": "cancer", "3": "vessel"}}, r"labels are"),
        ({"labels": ["background", "liver", "cancer"]}, r"labels are \["),
        ({"training": {"0": PAIR}}, r"training is {.*; a list is needed"),
        ({"training": [PAIR["image"]]}, r"liver_0.* under training; image and label are needed"),
        ({"training": [{**PAIR, "label": 3}]}, r'"label": 3} under training'),
        ({"test": [None]}, r"null under test; a path is needed"),
        ({"training": [PAIR, PAIR]}, r"liver_0 is listed twice"),
        ({"test": ["./imagesTr/liver_1.nii.gz"]}, r"liver_1 is listed twice"),
        (
            {"training": [{**PAIR, "label": "./labelsTr/liver_1.nii.gz"}]},
            r"liver_0.* has the label .*liver_1.*one number",
        ),
        ({"training": [{**PAIR, "image": "./imagesTr/spleen_0.nii.gz"}]}, r"spleen_0.* not called liver_N"),
        ({"training": [{**PAIR, "image": "../liver_0.nii.gz"}]}, r"\.\./liver_0.* is outside"),
        ({"training": [{**PAIR, "image": "imagesTr/../../liver_0.nii.gz"}]}, r"is outside"),
        ({"training": [{**PAIR, "label": "/data/liver_0.nii.gz"}]}, r"/data/liver_0.* is outside"),
        ({"training": [], "test": []}, r"no volume under training or test"),
    ],
)
def test_lists_that_are_refused(changes, message, tmp_path):
    with pytest.raises(LiversegError, match=rf"dataset\.json: .*{message}") as caught:
        decathlon_items(task(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_files_that_are_not_there_are_counted(tmp_path):
    task(tmp_path)
    for name in ("labelsTr/liver_2.nii.gz", "labelsTr/liver_10.nii.gz", "imagesTs/liver_131.nii.gz"):
        (tmp_path / name).unlink()
    with pytest.raises(
        LiversegError, match=r"3 of the files it names cannot be found, first labelsTr/liver_2\.nii\.gz"
    ):
        decathlon_items(tmp_path)


def test_folders_that_are_no_task(tmp_path):
    with pytest.raises(LiversegError, match="no such folder; give the one of Task03_Liver"):
        decathlon_items(tmp_path / "none")
    with pytest.raises(LiversegError, match=r"dataset\.json: no such file"):
        decathlon_items(tmp_path)
    for content in (b"{", b"\xff\xfe", b""):
        (tmp_path / "dataset.json").write_bytes(content)
        with pytest.raises(LiversegError, match=r"dataset\.json: not readable as JSON"):
            decathlon_items(tmp_path)
    (tmp_path / "dataset.json").write_text("[]")
    with pytest.raises(LiversegError, match=r"holds \[\]; an object with training and test is needed"):
        decathlon_items(tmp_path)
