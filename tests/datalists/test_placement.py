"""Label maps that do not lie on the anatomy although the headers agree: found by HU, and silent on sound ones."""

import nibabel as nib
import numpy as np
import pytest
from ct_tree import LABEL, VOLUME, check, save, write_list, write_tree

from liverseg.datalists.check import check_datalist
from liverseg.datalists.checks.placement import LiverSample, TissueSample, placement_findings

LPS = np.diag([-4.0, -4.0, 4.0, 1.0])
SHAPE = (72, 72, 40)
MIRRORED = {0: "mirrored left to right", 1: "mirrored front to back", 2: "mirrored head to feet"}


def trunk(noise=12, seed=0):
    """Return HU and labels in LPS order: a trunk with ribs, lungs above the liver, bowel with gas, and a spine."""
    i, j, k = np.indices(SHAPE)

    def ball(center, radii):
        return sum(((axis - c) / r) ** 2 for axis, c, r in zip((i, j, k), center, radii, strict=True)) < 1

    hu = np.full(SHAPE, -1000.0)
    hu[((i - 36) / 34) ** 2 + ((j - 36) / 26) ** 2 < 1] = -100
    hu[((i - 36) / 30) ** 2 + ((j - 36) / 22) ** 2 < 1] = 50
    hu[ball((36, 36, 40), (28, 20, 20))] = -800  # lungs
    hu[ball((36, 30, 0), (28, 18, 14))] = -600  # bowel
    hu[ball((36, 54, 20), (9, 6, 60))] = 400  # spine
    hu[ball((52, 36, 24), (8, 12, 12))] = -700  # stomach
    liver = ball((22, 27, 24), (14, 11, 11)) | ball((34, 22, 27), (12, 6, 6))
    lesion = ball((22, 27, 24), (3, 3, 3))
    hu[liver], hu[lesion] = 105, 60
    hu += np.random.default_rng(seed).normal(0, noise, SHAPE)
    return hu.astype(np.int16), liver.astype(np.uint8) + lesion


def moved(label, slices):
    """Shift a label map along its last axis, towards the head if `slices` is above 0."""
    out = np.zeros_like(label)
    target, source = (
        (slice(slices, None), slice(None, -slices)) if slices > 0 else (slice(slices), slice(-slices, None))
    )
    out[:, :, target] = label[:, :, source]
    return out


def found(hu, label, affine=LPS, clipped=None):
    """Return level and text of the finding, if any."""
    axis = int(np.argmax(np.abs(affine[2, :3])))
    tissue = TissueSample.from_hu(hu, axis, clipped)
    findings = placement_findings("label.nii", LiverSample.from_labels(label), "ct.nii", tissue, affine)
    assert len(findings) <= 1
    return [(finding.level, finding.found) for finding in findings]


@pytest.mark.parametrize("noise", [0, 12, 40])
def test_a_label_map_in_its_place_is_not_reported(noise):
    assert found(*trunk(noise)) == []


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("codes", ["LPS", "RAS", "SLP", "PSR"])
def test_a_mirrored_label_map_is_an_error_in_every_axis_order(axis, codes):
    hu, label = trunk()
    label = np.flip(label, axis)
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("LPS"), nib.orientations.axcodes2ornt(tuple(codes))
    )
    hu, label = (nib.orientations.apply_orientation(array, turn) for array in (hu, label))
    affine = LPS @ nib.orientations.inv_ornt_aff(turn, SHAPE)
    assert "".join(nib.aff2axcodes(affine)) == codes
    ((level, text),) = found(hu, label, affine)
    assert level == "error"
    assert f"in its image ct.nii, {MIRRORED[axis]} only 0%" in text


@pytest.mark.parametrize("slices", [3, 5, 8, -3, -5, -8])
def test_a_shifted_label_map_is_found_with_how_far(slices):
    hu, label = trunk()
    ((level, text),) = found(hu, moved(label, slices))
    assert f"shifted by about {abs(slices)} slices towards the {'feet' if slices > 0 else 'head'}" in text
    assert level in ("error", "warning")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda label: np.rot90(label, 1), "turned by 90 degrees within its slices only"),
        (lambda label: np.rot90(label, 3), "turned by 90 degrees within its slices only"),
        (lambda label: np.rot90(label, 2), "mirrored left to right and front to back only"),
        (lambda label: np.swapaxes(label, 0, 1), "turned by 90 degrees within its slices and mirrored only"),
        (lambda label: label[::-1, :, ::-1], "mirrored left to right and head to feet only"),
    ],
)
def test_a_turned_label_map_is_found(change, words):
    hu, label = trunk()
    ((level, text),) = found(hu, change(label))
    assert level == "error" and words in text


def test_the_label_map_of_another_ct_is_warned_of():
    hu, label = trunk()
    ((level, text),) = found(hu, np.roll(label, (30, 30, -5), (0, 1, 2)))
    assert level == "warning" and "is it the label map of this image?" in text


@pytest.mark.parametrize("change", [lambda label: label, lambda label: label[::-1], lambda label: label[:, ::-1]])
def test_clipped_hu_and_few_voxels_are_not_judged(change):
    hu, label = trunk()
    assert found(np.clip(hu, 0, 255), change(label), clipped=(0, 255)) == []
    few = np.zeros_like(label)
    few[:5, :5, :5] = 1
    assert found(hu, change(few)) == []


def test_large_volumes_are_sampled_alike():
    hu, label = (np.repeat(np.repeat(array, 4, 0), 4, 1) for array in trunk())
    affine = LPS @ np.diag([0.25, 0.25, 1, 1])
    assert found(hu, label, affine) == []
    ((level, text),) = found(hu, label[:, ::-1], affine)
    assert level == "error" and "mirrored front to back only 0%" in text


def test_the_check_of_a_list_reports_it_once_for_items_that_share_it(tmp_path):
    content = write_tree(tmp_path)
    hu, label = trunk()
    save(tmp_path / VOLUME, hu, LPS)
    save(tmp_path / LABEL, label[:, ::-1], LPS)
    item = content["training"][0]
    content["training"] = [{**item, "slice": number} for number in (23, 24)] + content["training"][1:]
    write_list(tmp_path, content)
    findings = check(tmp_path)
    assert findings[["file", "level", "defect"]].to_numpy().tolist() == [[LABEL, "error", "misplaced"]]
    save(tmp_path / LABEL, label, LPS)
    assert check(tmp_path).empty


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_phantoms_are_silent_in_place_and_errors_mirrored(axis, lits_tree, tmp_path):
    assert "misplaced" not in set(check_datalist(lits_tree / "datalist.json", lits_tree, progress=False)["defect"])
    for path in sorted(lits_tree.glob("*.nii.gz")):
        image = nib.load(path)
        array = np.asarray(image.dataobj)
        if path.name.startswith("segmentation"):
            array = np.flip(array, axis)
        nib.save(nib.Nifti1Image(array, image.affine, image.header), tmp_path / path.name)
    findings = check_datalist(lits_tree / "datalist.json", tmp_path, progress=False)
    misplaced = findings[findings["defect"] == "misplaced"]
    assert len(misplaced) == 6
    assert set(misplaced["level"]) == {"error"}
    assert misplaced["found"].str.contains(MIRRORED[axis]).all()
