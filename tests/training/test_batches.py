"""Batches: loaded ahead as they would be loaded otherwise, errors included; windowed and augmented on the way."""

import os
import threading

import pytest
import torch
from monai.data import DataLoader, Dataset
from torch.utils.data import default_collate

from liverseg.errors import LiversegError
from liverseg.training import AugmentedBatch, PrefetchDataLoader, prefetch_factor
from liverseg.transforms import RandScannerd, RandSlabViewd, SlabAugmentation


class Numbers(Dataset):
    """Elements that tell their number, and which thread asked for them; one of them cannot be read."""

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
    ahead = PrefetchDataLoader(dataset, batch_size=3, num_workers=workers)
    for _ in range(2):
        told = [batch.tolist() for batch in ahead]
        assert told == [batch.tolist() for batch in DataLoader(dataset, batch_size=3)]
    assert len(ahead) == 4


def test_batches_are_loaded_ahead_where_a_processor_is_free():
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


def test_the_next_batches_are_loaded_by_another_thread_and_not_too_many():
    dataset = Numbers()
    batches = iter(PrefetchDataLoader(dataset, batch_size=1))
    next(batches)
    batches.close()
    assert len(dataset.threads) <= 4
    assert all(name.startswith("loading") for name in dataset.threads)


def test_an_error_is_raised_where_its_batch_was_to_come():
    batches = iter(PrefetchDataLoader(Numbers(broken=5), batch_size=2))
    assert [next(batches).tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(LiversegError, match="slice 5 is not what was written"):
        next(batches)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loading")]


def test_a_batch_is_cropped_offset_windowed_and_gets_noise():
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


def test_a_batch_is_seen_by_the_scanners_that_were_drawn():
    view = RandSlabViewd(16, [1, 1], rotation=0, zoom=0, shift=0, flip=0, hu_offset=0, noise=0)
    element = {
        "image": torch.arange(480, dtype=torch.int16).reshape(1, 20, 24).repeat(3, 1, 1) - 100,
        "label": torch.ones(1, 20, 24, dtype=torch.uint8),
        "hu_range": torch.tensor([-50.0, 350.0]),
    }
    prepare = AugmentedBatch(16, [-200, 250])

    def seen(*scanners, offset=0.0):
        chain = SlabAugmentation([view, *scanners]).set_random_state(seed=0)
        one = chain(element) | {"hu_offset": torch.tensor(offset)}
        return prepare(default_collate([one, one]), "cpu")[0]

    plain = seen()
    assert torch.equal(seen(None), plain)
    torch.testing.assert_close(seen(RandScannerd()), plain.clamp(-75 / 225, 1))  # to hu_range
    told = seen(RandScannerd(clip_prob=1, clip=[[0, 80]]), offset=10.0)
    torch.testing.assert_close(told, (plain + 10 / 225).clamp(-25 / 225, 55 / 225))
    noisy = seen(RandScannerd(noise_prob=1, noise_hu=(20, 20)))
    assert torch.equal(noisy[0], noisy[1])  # of one seed
    assert (noisy - plain).std().item() == pytest.approx(20 / 225, rel=0.4)
