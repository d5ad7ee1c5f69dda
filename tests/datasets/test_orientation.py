"""Slabs of a cohort are the same in any orientation of its files."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from liverseg.datalists import read_datalist
from liverseg.datasets import SlabDataset


@pytest.fixture(scope="module")
def patient(cohort_tree):
    """The annotated slices of the patient with most of them."""
    listed = read_datalist(cohort_tree / "datalist.json")
    items = [*listed.training, *listed.test]
    images = [item.image for item in items]
    return [item for item in items if item.image == max(sorted(set(images)), key=images.count)]


@pytest.fixture(scope="module")
def canonical(patient, cohort_tree, tmp_path_factory):
    return SlabDataset(patient, cohort_tree, tmp_path_factory.mktemp("cache"), labels=5, progress=False)


def stored_as(codes, items, source, folder):
    """Write volume and labels with other axes; return items with slice numbers along the new slice axis."""
    for name in (items[0].image, items[0].label):
        image = nib.load(source / name)
        orientation = io_orientation(image.affine)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        nib.save(image.as_reoriented(ornt_transform(orientation, axcodes2ornt(tuple(codes)))), folder / name)
    flipped = ("I" in codes) != (nib.aff2axcodes(image.affine)[2] == "I")
    depth = image.shape[2]
    return [replace(item, slice=depth - 1 - item.slice if flipped else item.slice) for item in items]


@pytest.mark.parametrize("codes", ["LPI", "RPS", "RAS", "LAI", "SPL", "PIR"])
def test_slabs_and_labels_are_those_of_the_canonical_file(codes, patient, canonical, cohort_tree, tmp_path):
    items = stored_as(codes, patient, cohort_tree, tmp_path)
    dataset = SlabDataset(items, tmp_path, tmp_path / "cache", labels=5, progress=False)
    assert nib.aff2axcodes(nib.load(tmp_path / items[0].image).affine) == tuple(codes)
    assert len(dataset) == len(canonical) == len(patient)
    for element, expected in zip(dataset, canonical, strict=True):
        assert torch.equal(element["image"], expected["image"])
        assert torch.equal(element["label"], expected["label"])
        assert element["lesion_type"] == expected["lesion_type"]


def test_annotated_slice_has_its_lesion_at_the_same_place(patient, canonical, cohort_tree):
    label = nib.load(cohort_tree / patient[0].label)
    assert nib.aff2axcodes(label.affine) == ("L", "P", "S")  # rows run to the back and columns to the left
    for item, element in zip(patient, canonical, strict=True):
        section = np.asanyarray(label.dataobj)[:, :, item.slice]
        np.testing.assert_array_equal(element["label"][0].numpy(), section.T)
        assert (section >= 2).any()


def test_two_dimensional_image_repeats_its_slice(patient, canonical, cohort_tree, tmp_path):
    item = patient[0]
    for name in (item.image, item.label):
        image = nib.load(cohort_tree / name)
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj)[:, :, item.slice], image.affine), tmp_path / name)
    flat = SlabDataset([replace(item, slice=0)], tmp_path, tmp_path / "cache", labels=5, progress=False)[0]
    middle = canonical[0]["image"][1]
    assert all(torch.equal(channel, middle) for channel in flat["image"])
    assert torch.equal(flat["label"], canonical[0]["label"])
