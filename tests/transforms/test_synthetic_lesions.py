"""RandSyntheticLesionsd on slabs: labels match the image, seeds reproduce it, only liver changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from liverseg.errors import UsageError
from liverseg.labels import LESION, LESION_TYPES, LIVER, LIVER_OR_LESION
from liverseg.transforms import RandSyntheticLesionsd


def make_slab(value: int = LIVER, seed: int = 0, repeated: bool = False) -> dict[str, Any]:
    """Return a slab of 3 slices, 128 × 128 pixels of 1.5 mm: a noisy liver of 110 HU with vessels, in fat."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:128, :128]
    liver = ((y - 60) / 40) ** 2 + ((x - 60) / 45) ** 2 < 1
    plane = np.where(liver, 110.0, -100.0)
    for row, column in ((40, 40), (60, 80), (75, 50)):
        plane[(y - row) ** 2 + (x - column) ** 2 < 20] = 165
    slices = plane + 10 * rng.standard_normal((1 if repeated else 3, 128, 128))
    image = np.broadcast_to(np.rint(slices), (3, 128, 128)).astype(np.int16)
    return {
        "image": torch.from_numpy(image.copy()),
        "label": torch.from_numpy((liver * np.uint8(value))[None].astype(np.uint8)),
        "spacing": torch.tensor([2.5, 1.5, 1.5]),
        "unit": 0,
        "lesion_type": -1,
    }


def apply(slab: dict[str, Any], seed: int = 0, labels: int = 5, **arguments: Any) -> dict[Any, Any]:
    transform = RandSyntheticLesionsd(labels, **{"prob": 1.0, "distractor_prob": 0.0} | arguments)
    return transform.set_random_state(seed=seed)(slab)


@pytest.mark.parametrize("seed", range(5))
def test_image_and_label_change_together(seed: int) -> None:
    slab = make_slab()
    augmented = apply(slab, seed)
    assert augmented["image"].dtype == torch.int16
    assert augmented["image"].shape == (3, 128, 128)
    assert augmented["label"].dtype == torch.uint8
    lesion = augmented["label"][0] >= LESION
    assert lesion.any()
    change = (augmented["image"][1] - slab["image"][1]).abs().float()
    assert change[lesion].median() > 5
    near = ndimage.binary_dilation(slab["label"][0].numpy() > 0, iterations=2)
    assert change.numpy()[~near].max() == 0
    assert set(augmented["label"].unique().tolist()) <= {0, LIVER, 2, 3, 4}


def test_the_slab_given_is_not_changed() -> None:
    slab = make_slab()
    image, label = slab["image"].clone(), slab["label"].clone()
    apply(slab, distractor_prob=1.0)
    assert torch.equal(slab["image"], image)
    assert torch.equal(slab["label"], label)


def test_draws_depend_on_the_seed() -> None:
    first, again, other = (apply(make_slab(), seed, distractor_prob=0.5) for seed in (3, 3, 4))
    assert torch.equal(first["image"], again["image"])
    assert torch.equal(first["label"], again["label"])
    assert not torch.equal(first["image"], other["image"])


def test_three_labels_contain_no_types() -> None:
    values = {value for seed in range(6) for value in apply(make_slab(), seed, labels=3)["label"].unique().tolist()}
    assert values == {0, LIVER, LESION}


def test_every_type_is_painted_and_named_if_alone() -> None:
    augmented = [apply(make_slab(), seed) for seed in range(30)]
    found = {value for slab in augmented for value in slab["label"].unique().tolist() if value >= LESION}
    assert found == {LESION + number for number in range(len(LESION_TYPES))}
    for slab in augmented:
        kinds = [value for value in slab["label"].unique().tolist() if value >= LESION]
        if slab["lesion_type"] >= 0:
            assert set(kinds) <= {LESION + slab["lesion_type"]}
        else:
            assert len(kinds) != 1


def test_lesions_that_are_there_stay() -> None:
    slab = make_slab()
    slab["label"][0, 50:70, 50:70] = 3
    for seed in range(5):
        augmented = apply(slab, seed)
        assert (augmented["label"][0, 50:70, 50:70] == 3).all()
        assert augmented["lesion_type"] == -1


def test_partial_livers_label_painted_and_normal_tissue() -> None:
    slab = make_slab(LIVER_OR_LESION)
    slab["image"][:, 55:70, 75:90] -= 60  # a lesion without an outline
    augmented = apply(slab, 1, distractor_prob=1.0)
    label = augmented["label"][0]
    assert (label >= LESION).any()
    assert (label[58:67, 78:87] == LIVER_OR_LESION).float().mean() > 0.9 or (label[58:67, 78:87] != LIVER).any()
    assert (label == LIVER).sum() > 0.7 * (slab["label"] > 0).sum()
    unknown = apply(slab, 1, normal_liver=False)["label"][0]
    assert (unknown == LIVER).sum() == 0


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_painted_over_possible_lesions(seed: int) -> None:
    slab = make_slab(LIVER_OR_LESION)
    y, x = np.mgrid[:128, :128]
    spot = (y - 62) ** 2 + (x - 45) ** 2 < 14**2
    slab["image"][:, spot] -= 50
    before = slab["image"][1].clone()
    augmented = apply(slab, seed)
    inner = ndimage.binary_erosion(spot, iterations=2)
    assert (augmented["label"][0].numpy()[inner] == LIVER_OR_LESION).all()
    assert torch.equal(augmented["image"][1][torch.from_numpy(inner)], before[torch.from_numpy(inner)])


def test_distractors_are_painted_as_liver() -> None:
    slab = make_slab(LIVER_OR_LESION)
    augmented = apply(slab, 2, prob=0.0, distractor_prob=1.0, normal_liver=False)
    assert not torch.equal(augmented["image"], slab["image"])
    assert set(augmented["label"].unique().tolist()) == {0, LIVER, LIVER_OR_LESION}


def test_repeated_slices_stay_the_same() -> None:
    augmented = apply(make_slab(repeated=True), 0, distractor_prob=1.0)
    assert torch.equal(augmented["image"][0], augmented["image"][1])
    assert torch.equal(augmented["image"][1], augmented["image"][2])


def test_slabs_with_too_little_liver_are_unchanged() -> None:
    slab = make_slab()
    slab["label"][...] = 0
    assert torch.equal(apply(slab)["image"], slab["image"])
    slab["label"][0, 50:60, 50:60] = LIVER
    assert torch.equal(apply(slab)["label"], slab["label"])


def test_outlines_may_be_generous_while_the_image_stays() -> None:
    slab = make_slab()
    exact, generous = (apply(slab, outline_margin_mm=[mm, mm]) for mm in (0.0, 3.0))
    assert torch.equal(exact["image"], generous["image"])
    inner, outer = ((augmented["label"][0] >= LESION).numpy() for augmented in (exact, generous))
    assert outer[inner].all()
    away = ndimage.distance_transform_edt(~inner, sampling=1.5)
    assert 2.0 < away[outer].max() <= 3.0
    liver = slab["label"][0].numpy() == LIVER
    assert np.array_equal(outer, (away <= 3.0) & liver)


def test_nothing_is_painted_at_probability_zero() -> None:
    slab = make_slab()
    augmented = apply(slab, prob=0.0)
    assert torch.equal(augmented["image"], slab["image"])
    assert torch.equal(augmented["label"], slab["label"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": 4}, "labels is 4; it must be 3 or 5"),
        ({"labels": 5, "prob": 1.5}, "prob is 1.5; it must be a number, 0 to 1"),
        ({"labels": 5, "outline_margin_mm": [2, 9]}, r"outline_margin_mm is \[2, 9\]; .* 0 to 5 mm"),
        ({"labels": 5, "distractor_prob": True}, "distractor_prob is True; it must be a number, 0 to 1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RandSyntheticLesionsd(**arguments)
