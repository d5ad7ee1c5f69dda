"""Batches: prefetching keeps order and errors, slices are padded, augmentation is applied on the device."""

import os
import threading

import pytest
import torch
from monai.data import DataLoader, Dataset
from torch.utils.data import default_collate

from liverseg.errors import LiversegError
from liverseg.training import AugmentedBatch, PrefetchDataLoader, pad_collate, prefetch_factor
from liverseg.transforms import RandScannerd, RandSlabViewd, SlabAugmentation


class Numbers(Dataset):
    """Data set of indices that records the loading threads and raises for the index `broken`."""

    def __init__(self, broken=None):
        super().__init__(list(range(10)))
        self.broken = broken
        self.threads = []

    def __getitem__(self, index):
        self.threads.append(threading.current_thread().name)
        if index == self.broken:
            raise LiversegError("slice 5 is not what was written")
        return index


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_those_of_the_ordinary_loader(workers):
    dataset = Numbers()
    loader = PrefetchDataLoader(dataset, batch_size=3, num_workers=workers)
    for _ in range(2):
        batches = [batch.tolist() for batch in loader]
        assert batches == [batch.tolist() for batch in DataLoader(dataset, batch_size=3)]
    assert len(loader) == 4


def test_prefetch_factor_depends_on_free_processors():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(os.cpu_count())
        assert prefetch_factor(torch.device("cpu")) == 0
        assert prefetch_factor(torch.device("cuda")) == 2
        if os.cpu_count() > 1:
            torch.set_num_threads(1)
            assert prefetch_factor(torch.device("cpu")) == 2
    finally:
        torch.set_num_threads(threads)


def test_loader_prefetches_a_limited_number_of_batches_in_a_thread():
    dataset = Numbers()
    batches = iter(PrefetchDataLoader(dataset, batch_size=1))
    next(batches)
    batches.close()
    assert len(dataset.threads) <= 4
    assert all(name.startswith("loading") for name in dataset.threads)


def test_loader_raises_an_error_in_place_of_its_batch():
    batches = iter(PrefetchDataLoader(Numbers(broken=5), batch_size=2))
    assert [next(batches).tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(LiversegError, match="slice 5 is not what was written"):
        next(batches)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loading")]


def element(height, width, value):
    return {"image": torch.full((3, height, width), value), "label": torch.ones(1, height, width), "unit": 7}


def test_images_repeat_their_edge_and_labels_get_background():
    small, large = element(4, 5, -1.0), element(6, 8, 0.5)
    small["image"][:, -1, -1] = 1.0
    batch = pad_collate([small, large])
    assert batch["image"].shape == (2, 3, 6, 8)
    assert torch.equal(batch["image"][0, :, :4, :5], small["image"])
    assert (batch["image"][0, :, 3:, 4:] == 1.0).all()  # the corner is repeated, not a soft-tissue zero
    assert torch.equal(batch["label"][0, :, :4, :5], small["label"])
    assert batch["label"][0].sum() == 20
    assert torch.equal(batch["image"][1], large["image"])
    assert batch["unit"].tolist() == [7, 7]
    assert batch["size"].tolist() == [[4, 5], [6, 8]]


def test_integers_are_padded_too():
    elements = [
        {key: value.to(torch.int16) if key != "unit" else value for key, value in element(size, size, size).items()}
        for size in (3, 5)
    ]
    batch = pad_collate(elements)
    assert batch["image"].dtype == torch.int16
    assert (batch["image"][0] == 3).all()
    assert batch["label"][0].sum() == 9


def test_equal_sizes_are_batched_as_they_are():
    batch = pad_collate([element(4, 4, 0.0), element(4, 4, 1.0)])
    assert batch["image"].shape == (2, 3, 4, 4)


def test_augmented_batch_is_cropped_offset_windowed_and_noisy():
    view = RandSlabViewd(16, [1, 1], rotation=0, zoom=0, shift=0, flip=0, hu_offset=0, noise=1)
    elements = [
        {
            "image": torch.full((3, 20, 24), hu, dtype=torch.int16),
            "label": torch.ones(1, 20, 24, dtype=torch.uint8),
        }
        for hu in (-2000, 25, 25)
    ]
    drawn = [view(element) for element in elements]
    drawn[2] |= {"hu_offset": torch.tensor(112.5), "noisy": False}
    image, label = AugmentedBatch(16, [-200, 250])(default_collate(drawn), "cpu")
    assert image.shape == (3, 3, 16, 16) and image.dtype == torch.float32
    assert label.shape == (3, 1, 16, 16) and (label == 1).all()
    assert set(image[0].unique().tolist()) == {-1.0, 1.0}
    assert set(image[1].round(decimals=5).abs().unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(image[2], torch.full((3, 16, 16), 0.5))
    assert (image[1].abs() > 0.5).float().mean().item() == pytest.approx(0.005, rel=0.5)
    *_, positional, keywords = AugmentedBatch(16, [-200, 250], outlines=True)(default_collate(drawn), "cpu")
    assert positional == () and torch.equal(keywords["outlines"], label)


def test_augmented_batch_applies_drawn_scanners():
    view = RandSlabViewd(16, [1, 1], rotation=0, zoom=0, shift=0, flip=0, hu_offset=0, noise=0)
    element = {
        "image": torch.arange(480, dtype=torch.int16).reshape(1, 20, 24).repeat(3, 1, 1) - 100,
        "label": torch.ones(1, 20, 24, dtype=torch.uint8),
        "hu_range": torch.tensor([-50.0, 350.0]),
    }
    prepare = AugmentedBatch(16, [-200, 250])

    def augmented(*scanners, offset=0.0):
        augmentation = SlabAugmentation([view, *scanners]).set_random_state(seed=0)
        drawn = augmentation(element) | {"hu_offset": torch.tensor(offset)}
        return prepare(default_collate([drawn, drawn]), "cpu")[0]

    plain = augmented()
    assert torch.equal(augmented(None), plain)
    torch.testing.assert_close(augmented(RandScannerd()), plain.clamp(-75 / 225, 1))  # to hu_range
    clipped = augmented(RandScannerd(clip_prob=1, clip=[[0, 80]]), offset=10.0)
    torch.testing.assert_close(clipped, (plain + 10 / 225).clamp(-25 / 225, 55 / 225))
    noisy = augmented(RandScannerd(noise_prob=1, noise_hu=(20, 20)))
    assert torch.equal(noisy[0], noisy[1])  # the same seed
    assert (noisy - plain).std().item() == pytest.approx(20 / 225, rel=0.4)
