"""Two-pass inference: labels from the liver's box equal those of the complete CT."""

import numpy as np
import pytest
import torch

from liverseg.inference import LiverCascade, SlabInferer
from liverseg.inference.components import keep_largest_liver
from liverseg.inference.progress import StageTimer


class Counting(torch.nn.Module):
    """Network that labels a voxel by its HU only, so that its labels do not depend on the box, and counts pixels."""

    def __init__(self):
        super().__init__()
        self.pixels = 0
        self.register_buffer("centres", torch.tensor([-1000.0, 110.0, 10.0, 180.0, 60.0]).view(1, 5, 1, 1))

    def forward(self, slabs):
        self.pixels += slabs.shape[0] * slabs.shape[2] * slabs.shape[3]
        hu = slabs[:, 1:2] * 225 + 25
        return -((hu - self.centres.clamp(-200, 250)) ** 2) / 50


def body(shape=(60, 128, 160), middle=(30, 60, 60), radii=(16, 22, 30), lesion=180):
    """Return air with a liver, a lesion in it and a smaller separate organ of the liver's HU."""
    z, y, x = np.meshgrid(*map(np.arange, shape), indexing="ij")
    hu = np.full(shape, -1000, np.int16)
    hu[sum(((a - m) / r) ** 2 for a, m, r in zip((z, y, x), middle, radii, strict=True)) < 1] = 110
    hu[(z - middle[0]) ** 2 + (y - middle[1]) ** 2 + (x - middle[2]) ** 2 < 16] = lesion
    hu[middle[0] - 3 : middle[0] + 3, 100:110, 130:150] = 110
    return hu


def slabs():
    return SlabInferer(amp=False)


@pytest.mark.integration
@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"middle": (8, 60, 60)},  # the scan starts within the liver
        {"middle": (30, 12, 60)},
        {"radii": (9, 22, 30)},
        {"radii": (29, 50, 55)},  # beyond the first margin, since the coarse pass misses the tips
    ],
)
@pytest.mark.parametrize("spacing", [(3.0, 1.5, 1.5), (5.0, 0.75, 0.75), (1.0, 3.0, 2.0)])
def test_labels_are_those_of_the_complete_ct(kind, spacing):
    hu = body(**kind)
    complete = keep_largest_liver(slabs()(hu, Counting()))
    assert complete.inside.max() == 3
    counting = Counting()
    found = LiverCascade(slabs())(hu, counting, spacing=spacing)
    np.testing.assert_array_equal(found.labels, complete.labels)
    np.testing.assert_allclose(found.type_probabilities, complete.type_probabilities, atol=1e-6)
    assert found.shape == hu.shape
    if not kind:
        assert counting.pixels < 0.6 * hu.size


@pytest.mark.integration
def test_the_box_grows_until_it_holds_the_liver():
    # a coarse pass that finds only the middle of a long liver
    hu = body(radii=(28, 50, 30), shape=(60, 160, 160), middle=(30, 80, 80))

    class OnlyTheMiddle(SlabInferer):
        def liver(self, inputs, network, slices, reduction=1, slice_mm=None, in_plane_mm=None):
            mask = super().liver(inputs, network, slices, reduction, slice_mm, in_plane_mm)
            kept = np.zeros_like(mask)
            kept[3:5, 76 // reduction : 84 // reduction, 76 // reduction : 84 // reduction] = True
            return mask & kept

    complete = keep_largest_liver(slabs()(hu, Counting()))
    found = LiverCascade(OnlyTheMiddle(amp=False), step_mm=15)(hu, Counting(), spacing=(2.0, 1.5, 1.5))
    np.testing.assert_array_equal(found.labels, complete.labels)


@pytest.mark.integration
def test_a_liver_seen_at_full_resolution_alone_is_found():
    class FarSighted(SlabInferer):
        def liver(self, inputs, network, slices, reduction=1, slice_mm=None, in_plane_mm=None):
            mask = super().liver(inputs, network, slices, reduction, slice_mm, in_plane_mm)
            return mask if reduction == 1 else np.zeros_like(mask)

    hu = body()
    found = LiverCascade(FarSighted(amp=False))(hu, Counting(), spacing=(3.0, 0.7, 0.7))
    np.testing.assert_array_equal(found.labels, keep_largest_liver(slabs()(hu, Counting())).labels)


def test_without_a_liver_there_is_an_empty_box():
    found = LiverCascade(slabs())(np.full((9, 40, 50), -1000, np.int16), Counting())
    assert found.inside.size == 0
    assert found.labels.shape == (9, 40, 50)
    assert not found.labels.any()
    assert found.warnings == ()


@pytest.mark.integration
def test_what_is_framed_by_bone_is_a_head():
    hu = body()
    _, y, x = np.meshgrid(*map(np.arange, hu.shape), indexing="ij")
    ring = ((y - 60) / 30) ** 2 + ((x - 60) / 38) ** 2
    hu[(ring > 1) & (ring < 1.3)] = 900
    found = LiverCascade(slabs())(hu, Counting(), spacing=(3.0, 1.5, 1.5))
    assert not found.labels.any()
    assert "bone, as in a head" in found.warnings[0]
    # such an amount in a body larger than a head is contrast medium or metal
    assert LiverCascade(slabs())(hu, Counting(), spacing=(3.0, 7.0, 7.0)).labels.any()
    assert LiverCascade(slabs(), find_liver=False)(hu, Counting(), spacing=(3.0, 1.5, 1.5)).labels.any()


@pytest.mark.integration
def test_of_all_of_the_ct_the_largest_part_is_kept():
    hu, counting = body(), Counting()
    found = LiverCascade(slabs(), find_liver=False)(hu, counting)
    assert counting.pixels == hu.size
    np.testing.assert_array_equal(found.labels, keep_largest_liver(slabs()(hu, Counting())).labels)
    assert not found.labels[:, 100:110, 130:150].any()


def test_a_given_mask_is_the_liver_and_lesions_that_touch_it_are_kept_complete():
    hu = body()
    mask = (hu == 110) | (hu == 180)
    mask[:, :, :60] = False  # it excludes half of the liver and half of the lesion
    mask[28:32, 100:110, 130:150] = False
    hu[30, 60, 40:44] = 10  # a lesion in the other half, outside the mask
    counting = Counting()
    found = LiverCascade(slabs())(hu, counting, spacing=(3.0, 1.5, 1.5), liver=mask)
    labels = found.labels
    np.testing.assert_array_equal(labels == 3, hu == 180)
    np.testing.assert_array_equal(labels >= 1, mask | (hu == 180))
    assert counting.pixels < hu.size
    assert len(found.type_probabilities) == (hu == 180).sum()
    empty = LiverCascade(slabs())(hu, counting, liver=np.zeros_like(mask))
    assert not empty.labels.any()


def test_a_lesion_that_extends_beyond_a_mask_is_kept_complete():
    hu = body(shape=(60, 160, 160), middle=(30, 40, 40))
    mask = hu == 110
    mask[:, 90:] = False
    hu[20:40, 40:120, 38:46] = 180  # far beyond the mask and its margin
    found = LiverCascade(slabs())(hu, Counting(), spacing=(3.0, 1.5, 1.5), liver=mask)
    np.testing.assert_array_equal(found.labels == 3, hu == 180)


def test_impossible_distances_are_refused():
    with pytest.raises(ValueError, match="must be above 0"):
        LiverCascade(slabs(), step_mm=0)


def test_a_lobe_that_the_coarse_pass_found_on_one_slice_only_is_kept_complete():
    hu = np.full((60, 128, 160), -1000, np.int16)
    hu[10:50, 40:70, 30:60] = 110
    hu[34:36, 40:70, 60:80] = 110  # joins the lobe to the rest
    hu[20:36, 40:70, 80:110] = 110
    hu[24:30, 50:54, 90:100] = 180

    class Forgetful(SlabInferer):
        def liver(self, inputs, network, slices, reduction=1, slice_mm=None, in_plane_mm=None):
            mask = super().liver(inputs, network, slices, reduction, slice_mm, in_plane_mm)
            mask[slices < 32, :, 70:] = False
            return mask

    found = LiverCascade(Forgetful(amp=False))(hu, Counting(), spacing=(3.0, 1.5, 1.5))
    np.testing.assert_array_equal(found.labels > 0, hu > 0)
    np.testing.assert_array_equal(found.labels == 3, hu == 180)


def test_a_lesion_that_fills_a_gap_of_the_mask_is_kept():
    hu = np.full((60, 128, 160), -1000, np.int16)
    hu[10:50, 40:70, 30:60] = 110
    hu[24:36, 40:70, 30:60] = 180
    found = LiverCascade(slabs())(hu, Counting(), spacing=(3.0, 1.5, 1.5), liver=hu == 110)
    np.testing.assert_array_equal(found.labels == 3, hu == 180)


@pytest.mark.integration
def test_types_of_a_lesion_across_windows_are_in_order():
    """Lesion voxels of different HU have different rows, also in windows inserted before the first."""
    hu = body(radii=(28, 30, 30), lesion=110)
    random = np.random.default_rng(0)
    hu[8:50, 55:66, 55:66] = random.integers(150, 200, (42, 11, 11))

    class UpperHalf(SlabInferer):
        def liver(self, inputs, network, slices, reduction=1, slice_mm=None, in_plane_mm=None):
            mask = super().liver(inputs, network, slices, reduction, slice_mm, in_plane_mm)
            mask[slices < 30] = False
            return mask

    soft = {"amp": False, "type_temperature": 200.0}
    complete = keep_largest_liver(SlabInferer(**soft)(hu, Counting()))
    found = LiverCascade(UpperHalf(**soft))(hu, Counting(), spacing=(3.0, 1.5, 1.5))
    np.testing.assert_array_equal(found.labels, complete.labels)
    assert len(np.unique(complete.type_probabilities[:, 1])) > 20
    np.testing.assert_allclose(found.type_probabilities, complete.type_probabilities, atol=1e-6)


@pytest.mark.parametrize("missed", [0, 30])
def test_stages_report_progress_up_to_the_end(missed):
    class Upper(SlabInferer):
        def liver(self, inputs, network, slices, reduction=1, slice_mm=None, in_plane_mm=None):
            mask = super().liver(inputs, network, slices, reduction, slice_mm, in_plane_mm)
            mask[slices < missed] = False
            return mask

    reported = []
    stages = StageTimer(lambda stage, part: reported.append((stage, part)))
    LiverCascade(Upper(amp=False))(body(), Counting(), spacing=(3.0, 1.5, 1.5), stages=stages)
    parts = [part for stage, part in reported if stage == "network"]
    assert [stage for stage, _ in reported] == ["liver", *["network"] * len(parts)]
    assert parts[0] == 0 and parts[-1] == 1 and len(parts) > 10
    assert list(stages.seconds) == ["liver", "network"] and min(stages.seconds.values()) > 0


def test_no_liver_has_no_fine_pass():
    stages = StageTimer()
    LiverCascade(slabs())(np.full((9, 40, 50), -1000, np.int16), Counting(), stages=stages)
    assert list(stages.seconds) == ["liver"]


def test_a_window_that_grows_computes_no_more_than_the_slices_that_need_it():
    hu = np.full((40, 128, 160), -1000, np.int16)
    hu[2:38, 40:70, 20:50] = 110
    hu[20:22, 40:70, 50:140] = 110  # a flat lobe between the evaluated slices
    counting = Counting()
    found = LiverCascade(slabs())(hu, counting, spacing=(3.0, 1.5, 1.5))
    np.testing.assert_array_equal(found.labels > 0, hu > 0)
    straight = Counting()
    LiverCascade(slabs())(np.where(np.arange(160) < 50, hu, -1000).astype(np.int16), straight, spacing=(3.0, 1.5, 1.5))
    assert straight.pixels < counting.pixels < straight.pixels + 20 * 128 * 160


@pytest.mark.integration
@pytest.mark.parametrize(("spacing", "share"), [((3.0, 0.7, 0.95), 0.55), ((3.0, 2.0, 2.0), 2.2)])
def test_a_network_with_a_pixel_size_agrees_with_its_result_of_the_complete_ct(spacing, share):
    hu = body(shape=(40, 224, 256), middle=(20, 110, 110), radii=(16, 44, 60))
    sized = SlabInferer(amp=False, pixel_mm=1.5)
    complete = keep_largest_liver(sized(hu, Counting(), in_plane_mm=spacing[1:])).labels >= 1
    plain, counting = Counting(), Counting()
    LiverCascade(slabs())(hu, plain, spacing=spacing)
    found = LiverCascade(sized)(hu, counting, spacing=spacing).labels >= 1
    # the network's pixels have other positions in a window than in the complete slice
    assert (found != complete).sum() < 0.02 * complete.sum()
    assert (found != ((hu == 110) | (hu == 180))).sum() < 0.1 * complete.sum()
    assert counting.pixels < share * plain.pixels  # the coarse pass has pixels of about 1.5 mm in both
