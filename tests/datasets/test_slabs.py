"""Slabs and sampler: the right slices, the stated share of lesion-free slices, a reproducible order."""

import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.transforms import Compose, RandShiftIntensityd

from liverseg.datalists import DataItem
from liverseg.datasets import SlabDataset, SlabSampler
from liverseg.errors import LiversegError
from liverseg.labels import LIVER_OR_LESION, UNTYPED_LESION

DEPTH = 10


@pytest.fixture
def make(tmp_path, write_nifti):
    """A volume whose voxels are their slice numbers; slices 2 to 7 have liver, 4 and 5 a cyst."""
    image = np.broadcast_to(np.arange(DEPTH, dtype=np.int16), (6, 6, DEPTH)).copy()
    label = np.zeros((6, 6, DEPTH), np.uint8)
    label[1:5, 1:5, 2:8] = 1
    label[2:4, 2:4, 4:6] = 2
    write_nifti(tmp_path / "ct.nii.gz", image)
    write_nifti(tmp_path / "seg.nii.gz", label)

    def dataset(*slices, **settings):
        kinds = {4: "cyst", 5: "cyst"}
        items = [DataItem("ct.nii.gz", "seg.nii.gz", "p", slice=n, lesion_type=kinds.get(n)) for n in slices]
        items = items or [DataItem("ct.nii.gz", "seg.nii.gz", "p")]
        return SlabDataset(items, tmp_path, tmp_path / "cache", labels=5, progress=False, **settings)

    return dataset


def test_slices_of_a_volume_with_edges_repeated(make):
    dataset = make()
    assert len(dataset) == DEPTH
    middles = [element["image"][:, 0, 0].tolist() for element in (dataset[n] for n in (0, 4, 9))]
    assert middles == [[0, 0, 1], [3, 4, 5], [8, 9, 9]]
    assert dataset[4]["label"].shape == (1, 6, 6)
    assert dataset.may_have_lesion.nonzero()[0].tolist() == [4, 5]
    assert {element["lesion_type"] for element in (dataset[n] for n in range(10))} == {-1}


def test_slabs_at_a_distance_follow_the_volumes_own_spacing(make):
    dataset = make(slab_spacing_mm=6.0)  # slices are 2 mm apart
    middles = [dataset[n]["image"][:, 0, 0].tolist() for n in (0, 4, 8)]
    assert middles == [[0, 0, 3], [1, 4, 7], [5, 8, 9]]
    assert dataset[4]["label"].max() == 2


def test_spacing_is_that_of_slices_rows_and_columns(tmp_path, write_nifti):
    for name in ("ct", "seg"):
        write_nifti(tmp_path / f"{name}.nii.gz", np.zeros((6, 5, 4), np.int16), np.diag([0.5, 0.75, 3.0, 1.0]))
    element = SlabDataset([DataItem("ct.nii.gz", "seg.nii.gz", "p")], tmp_path, None, labels=3, progress=False)[0]
    assert element["image"].shape == (3, 5, 6)
    assert element["spacing"].dtype == torch.float32 and element["spacing"].tolist() == [3.0, 0.75, 0.5]


def test_annotated_slices_only(make):
    dataset = make(5, 2)
    assert [element["image"][1, 0, 0].item() for element in (dataset[0], dataset[1])] == [5, 2]
    assert [element["unit"] for element in (dataset[0], dataset[1])] == [0, 1]
    assert dataset[0]["lesion_type"] == 0


def test_slices_of_one_image_with_a_label_map_each(make, tmp_path, write_nifti):
    make()
    items = []
    for number, (value, kind) in ((3, (2, "cyst")), (6, (4, "metastasis"))):
        label = np.zeros((6, 6, DEPTH), np.uint8)
        label[2:4, 2:4, number] = value
        write_nifti(tmp_path / f"seg-{number}.nii.gz", label)
        items.append(DataItem("ct.nii.gz", f"seg-{number}.nii.gz", "p", slice=number, lesion_type=kind))
    dataset = SlabDataset(items, tmp_path, tmp_path / "cache", labels=5, progress=False)
    assert [dataset[n]["label"].max().item() for n in (0, 1)] == [2, 4]
    assert [dataset[n]["image"][1, 0, 0].item() for n in (0, 1)] == [3, 6]
    assert dataset.may_have_lesion.all()


def test_every_third_slice_keeps_the_liver(make):
    dataset = make(every=3)
    assert [index for _, index, _ in dataset.elements] == [2, 5, 8]


def test_a_slice_outside_its_volume_is_refused(make):
    with pytest.raises(LiversegError, match=r"slice 10 .* has 10 slices"):
        make(10)


@pytest.mark.parametrize(
    ("number", "kind", "found"),
    [
        (4, "metastasis", "no 4 there, only 0 background, 1 liver, 2 cyst;"),
        (1, "cyst", "no 2 there, only 0 background;"),
    ],
)
def test_slice_without_its_stated_type_is_refused(number, kind, found, make, tmp_path):
    make()
    item = DataItem("ct.nii.gz", "seg.nii.gz", "p", slice=number, lesion_type=kind)
    with pytest.raises(LiversegError, match=rf"ct\.nii\.gz: slice {number} is listed as {kind}, .* has {found}"):
        SlabDataset([item], tmp_path, tmp_path / "cache", labels=5, progress=False)
    assert len(SlabDataset([item], tmp_path, tmp_path / "cache", labels=3, progress=False)) == 1


def test_partial_label_map_marks_undistinguished_labels(tmp_path, write_nifti):
    label = np.zeros((6, 6, 3), np.uint8)
    label[1:5, 1:5, 1:] = 1
    write_nifti(tmp_path / "ct.nii.gz", np.zeros((6, 6, 3), np.int16))
    write_nifti(tmp_path / "liver.nii.gz", label)
    label[2:4, 2:4, 2] = 2
    write_nifti(tmp_path / "lesion.nii.gz", label)

    def values(labels, *items):
        dataset = SlabDataset(items, tmp_path, None, labels=labels, progress=False)
        return [
            sorted(set(element["label"].flatten().tolist())) for element in dataset
        ], dataset.may_have_lesion.tolist()

    liver = DataItem("ct.nii.gz", "liver.nii.gz", "p", labelled=("liver",))
    lesion = DataItem("ct.nii.gz", "lesion.nii.gz", "q", labelled=("liver", "lesion"))
    for labels in (3, 5):
        assert values(labels, liver) == ([[0], [0, LIVER_OR_LESION], [0, LIVER_OR_LESION]], [False, True, True])
    assert values(3, lesion) == ([[0], [0, 1], [0, 1, 2]], [False, False, True])
    assert values(5, lesion) == ([[0], [0, 1], [0, 1, UNTYPED_LESION]], [False, False, True])


def test_partial_label_map_with_more_labels_is_refused(tmp_path, write_nifti):
    label = np.ones((6, 6, 3), np.uint8)
    label[3:, :, 1] = 2
    write_nifti(tmp_path / "ct.nii.gz", np.zeros((6, 6, 3), np.int16))
    write_nifti(tmp_path / "seg.nii.gz", label)
    label[0, 0, 0] = 4
    write_nifti(tmp_path / "typed.nii.gz", label)
    for name, labelled, words in (
        (
            "seg",
            ("liver",),
            r'seg.nii.gz: it holds 2, but its item is labelled \["liver"\], whose label maps hold 0 to 1',
        ),
        ("typed", ("liver", "lesion"), "typed.nii.gz: it holds 4, .* hold 0 to 2; correct labelled or the label map"),
    ):
        item = DataItem("ct.nii.gz", f"{name}.nii.gz", "p", labelled=labelled)
        with pytest.raises(LiversegError, match=words):
            SlabDataset([item], tmp_path, None, labels=5, progress=False)


def test_sampler_takes_all_lesions_and_changing_others(make):
    sampler = SlabSampler(make(), lesion_free=0.25, seed=1)
    assert len(sampler) == 2 + 2
    lesion_free = []
    for epoch in (1, 2, 3, 4):
        sampler.set_epoch(epoch)
        indices = [index for _, index in sampler]
        assert {4, 5} <= set(indices)
        assert len(indices) == 4
        sampler.set_epoch(epoch)
        assert [index for _, index in sampler] == indices
        lesion_free.append(tuple(sorted(set(indices) - {4, 5})))
    assert len(set(lesion_free)) > 1


def test_repeats_are_elements_of_their_own(make):
    sampler = SlabSampler(make(4, 5), repeats=3)
    keys = list(sampler)
    assert len(sampler) == len(keys) == len(set(keys)) == 6
    sampler.set_epoch(2)
    assert not set(keys) & set(sampler)


def test_nothing_to_train_on_is_refused(make):
    with pytest.raises(LiversegError, match="nothing to train on"):
        SlabSampler(make(0, 1), lesion_free=0)


@pytest.mark.integration
@pytest.mark.parametrize("workers", [0, 2])
def test_augmentation_depends_on_seed_epoch_and_element_alone(make, workers):
    transform = Compose([RandShiftIntensityd("image", offsets=100, prob=1)])
    dataset = make(transform=transform, seed=7)
    sampler = SlabSampler(dataset, lesion_free=1, seed=7)

    def epoch(number):
        sampler.set_epoch(number)
        loader = DataLoader(dataset, batch_size=3, sampler=sampler, num_workers=workers)
        return torch.cat([batch["image"] for batch in loader])

    first, second = epoch(1), epoch(2)
    assert not torch.equal(first, second)
    torch.manual_seed(99)
    assert torch.equal(epoch(1), first)
    alone = dataset[(1, 4)]["image"]
    assert any(torch.equal(alone, element) for element in first)
