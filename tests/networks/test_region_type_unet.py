"""Regions of lesions, their measurements, and the network that names them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from liverseg.errors import LiversegError, UsageError
from liverseg.labels import LESION_TYPES, LIVER_OR_LESION, UNTYPED_LESION
from liverseg.networks import RegionTypeUNet, SEResUNet, SlabOutput, export_weights, load_weights
from liverseg.networks.lesion_regions import Regions, label_regions
from liverseg.networks.region_type_unet import RegionTypeHead
from liverseg.training import SlabLoss, StackedDeepSupervisionLoss

SLABS = torch.rand(2, 3, 50, 70) * 2 - 1


def learnt_network(**arguments):
    """A network whose head is not symmetric in the labels, so that it finds lesions of all types in noise."""
    torch.manual_seed(0)
    network = RegionTypeUNet("small", **arguments)
    with torch.no_grad():
        network.head.weight.normal_(std=0.5)
    return network


def test_regions_are_numbered_over_the_batch_and_touch_by_edges():
    lesion = torch.zeros(2, 20, 20, dtype=torch.bool)
    lesion[0, 2:5, 2:5] = lesion[0, 5:8, 5:8] = True  # they touch by a corner
    lesion[1, 2:5, 2:5] = True
    regions = label_regions(lesion)
    assert regions.count == 3
    assert [int((regions.ids == number).sum()) for number in (1, 2, 3)] == [9, 9, 9]
    assert len(regions.ids[1].unique()) == 2


def test_a_cyst_that_touches_another_lesion_is_a_region_of_its_own():
    lesion = torch.zeros(2, 60, 60, dtype=torch.bool)
    cyst = lesion.clone()
    lesion[1, 10:30, 8:24] = cyst[1, 10:30, 8:24] = True
    lesion[1, 14:26, 24:40] = True
    regions = label_regions(lesion, cyst)
    assert regions.count == 2
    assert torch.equal(regions.ids[1] == regions.ids[1, 20, 10], cyst[1])
    assert label_regions(lesion).count == 1


def test_more_regions_than_16_bits_count():
    lesion = (torch.arange(128)[:, None] + torch.arange(128)) % 2 == 0  # pixels that touch by corners
    regions = label_regions(lesion.expand(10, -1, -1))
    assert regions.count == 10 * 128 * 64
    assert torch.equal(regions.ids[regions.ids > 0], torch.arange(1, regions.count + 1))


def test_cysts_are_separated_from_every_lesion_of_a_batch():
    lesion = torch.zeros(2, 120, 120, dtype=torch.bool)
    cyst = lesion.clone()
    for row in range(0, 120, 15):
        for column in range(0, 120, 20):
            lesion[:, row : row + 10, column : column + 16] = True
            cyst[:, row : row + 10, column : column + 8] = True
    regions = label_regions(lesion, cyst)
    assert regions.count == 2 * 2 * 8 * 6
    for number in range(1, regions.count + 1):
        region = regions.ids == number
        assert region.sum() == 80
        assert cyst[region].float().mean() in (0, 1)


@pytest.mark.parametrize("part", [(slice(16, 34), slice(16, 34)), (slice(10, 40), slice(10, 12))])
def test_a_necrotic_centre_or_a_thin_edge_is_no_cyst(part):
    lesion = torch.zeros(1, 60, 60, dtype=torch.bool)
    cyst = lesion.clone()
    lesion[0, 10:40, 10:40] = True
    cyst[0][part] = True
    assert label_regions(lesion, cyst).count == 1


def test_measurements_are_those_of_the_parts_of_a_region():
    rng = np.random.default_rng(0)
    slab = torch.from_numpy(rng.normal(0.4, 0.1, (1, 3, 64, 64)).astype(np.float32))
    lesion = torch.zeros(1, 64, 64, dtype=torch.bool)
    lesion[0, 20:36, 24:44] = True
    slab[0, :, 20:36, 24:44] -= 0.5
    liver = ~lesion
    head = RegionTypeHead(3, 4)
    head.layers = torch.nn.Identity()
    types, features = torch.randn(1, 3, 64, 64), torch.zeros(1, 4, 16, 16)
    described = head(slab, label_regions(lesion), liver, types, features)[0].detach().numpy()

    inside = lesion[0].numpy()
    square = np.ones((5, 5), bool)
    core = ndimage.binary_erosion(inside, square)
    around = ndimage.binary_dilation(inside, np.ones((13, 13), bool))
    rim = ndimage.binary_dilation(inside, square)
    values = slab[0].numpy()
    smooth = torch.nn.functional.avg_pool2d(slab, 3, 1, 1, count_include_pad=False)[0].numpy()
    reference = values[1][around & ~rim].mean()
    expected = [*torch.softmax(types, 1)[0][:, inside].mean(1)]
    for part in (core, inside & ~core, rim & ~inside):
        means, stds = values[:, part].mean(1), values[:, part].std(1)
        expected += [*(means - 0.3) / 0.25, *(means - reference) / 0.25, *stds / 0.1]
    for extreme in (smooth[1][inside].min(), smooth[1][inside].max()):
        expected += [(extreme - 0.3) / 0.25, (extreme - reference) / 0.25]
    expected += [(reference - 0.3) / 0.25, (np.log(inside.sum()) - 4.5) / 1.2]
    np.testing.assert_allclose(described, expected, rtol=1e-3, atol=1e-3)


def test_measurements_of_a_region_do_not_depend_on_other_slabs_or_distant_regions():
    torch.manual_seed(0)
    slabs, types, features = torch.rand(3, 3, 96, 96), torch.randn(3, 3, 96, 96), torch.zeros(3, 4, 24, 24)
    lesion = torch.zeros(3, 96, 96, dtype=torch.bool)
    lesion[0, 40:52, 40:55] = lesion[0, 4:9, 80:90] = lesion[2, 60:80, 10:30] = True
    head = RegionTypeHead(3, 4).eval()
    together = head(slabs, label_regions(lesion), ~lesion, types, features)
    alone = lesion[:1].clone()
    alone[0, :20] = False
    separately = head(slabs[:1], label_regions(alone), ~lesion[:1], types[:1], features[:1])
    torch.testing.assert_close(together[1:2], separately)


def test_tiny_regions_at_the_edge_of_a_slab_are_described_by_finite_numbers():
    lesion = torch.zeros(1, 32, 32, dtype=torch.bool)
    lesion[0, 0, 0] = lesion[0, 31, 10:12] = True
    head = RegionTypeHead(3, 4, evidence="both").eval()
    slab, types = torch.full((1, 3, 32, 32), -1.0), torch.zeros(1, 3, 32, 32)
    logits = head(slab, label_regions(lesion), torch.zeros_like(lesion), types, torch.ones(1, 4, 8, 8))
    assert logits.shape == (2, len(LESION_TYPES))
    assert logits.isfinite().all()


def test_each_region_has_one_type_and_the_outline_of_summed_types():
    network = learnt_network().eval()
    joint = SEResUNet("small", out_channels=5, sum_types=True).eval()
    joint.load_state_dict(network.state_dict(), strict=False)
    with torch.no_grad():
        logits, of_joint = network(SLABS), joint(SLABS)
    assert logits.shape == (2, 5, 50, 70)
    labels = logits.argmax(dim=1)
    assert torch.equal(labels.clamp(max=2), of_joint.argmax(dim=1).clamp(max=2))
    torch.testing.assert_close(logits[:, :2], of_joint[:, :2])
    regions = label_regions(labels >= 2, of_joint[:, 2:].argmax(dim=1) == 0)
    assert regions.count > 3
    types = logits[:, 2:].softmax(dim=1).permute(0, 2, 3, 1)
    for number in range(1, regions.count + 1):
        of_region = types[regions.ids == number]
        torch.testing.assert_close(of_region, of_region[:1].expand_as(of_region))


class FixedMap(torch.nn.Module):
    """In place of a network's head, so that lesions are where a test wants them."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, features):
        return self.logits


def test_regions_are_named_in_their_box_as_on_complete_slabs():
    network = learnt_network(evidence="both").eval()
    maps = torch.randn(2, 5, 64, 96)  # padded from 50 x 70
    maps[:, 1] += 9
    maps[0, 2:, 33:39, 41:58] += 20
    maps[1, 2:, 30:45, 51:60] += 20
    network.head = FixedMap(maps)
    seen = {}
    network.decoder.register_forward_hook(lambda module, inputs, output: seen.update(features=output[2]))
    hook = network.type_head.register_forward_hook(
        lambda module, inputs, output: seen.update(inputs=inputs, logits=output)
    )
    with torch.no_grad():
        logits = network(SLABS)
        hook.remove()
        own = maps[:, :, :50, :70]
        lesion = own.argmax(dim=1) >= 2
        regions = label_regions(lesion, own[:, 2:].argmax(dim=1) == 0)
        expected = network.type_head(SLABS, regions, own.argmax(dim=1) == 1, own[:, 2:], seen["features"])
    assert seen["inputs"][0].shape[2:] == (26, 34)  # rows 24 to 49, the last; columns 32 to 65
    assert regions.count == 2
    torch.testing.assert_close(seen["logits"], expected)
    assert torch.equal(logits.argmax(dim=1) >= 2, lesion)


def test_slabs_without_a_lesion_keep_the_types_of_their_pixels():
    network = learnt_network().eval()
    maps = torch.randn(2, 5, 64, 96)
    maps[:, 1] += 9
    network.head = FixedMap(maps)
    with torch.no_grad():
        types = network(SLABS)[:, 2:].log_softmax(dim=1)
    torch.testing.assert_close(types, maps[:, 2:, :50, :70].log_softmax(dim=1))


def test_training_names_true_outlines_as_well_and_regions_weigh_the_same():
    labels = torch.zeros(2, 1, 50, 70, dtype=torch.uint8)
    labels[0, 0, 5:20, 5:20], labels[0, 0, 5:20, 20:40], labels[1, 0, 30:33, 30:33] = 2, 4, 3
    network = learnt_network(deep_supervision=True).train()
    output = network(SLABS, outlines=labels)
    assert isinstance(output, SlabOutput)
    assert output.maps.shape == (2, 4, 5, 50, 70)
    assert output.types.shape == (2, 2, len(LESION_TYPES), 50, 70)
    of_true = output.weights[:, 1]
    for label in (2, 3, 4):
        assert of_true[labels[:, 0] == label].sum() == pytest.approx(1)
    assert of_true[labels[:, 0] < 2].sum() == 0
    assert network(SLABS).types.shape[1] == 1


def test_true_lesions_are_compared_with_a_liver_whose_other_lesions_are_unknown():
    labels = torch.zeros(2, 1, 50, 70, dtype=torch.uint8)
    labels[:, :, 5:20, 5:40] = 1
    labels[:, :, 8:16, 8:16] = 2
    unknown = torch.where(labels == 1, LIVER_OR_LESION, labels)
    network = learnt_network().train()
    with torch.no_grad():
        known, partial = (network(SLABS, outlines=outlines).types[:, 1] for outlines in (labels, unknown))
    assert known.any() and torch.equal(known, partial)


def test_lesions_of_unknown_type_are_not_named():
    labels = torch.full((2, 1, 50, 70), 1, dtype=torch.uint8)
    labels[0, :, 8:16, 8:16], labels[0, :, 8:16, 30:40] = UNTYPED_LESION, 3
    of_true = learnt_network().train()(SLABS, outlines=labels).weights[:, 1]
    assert torch.equal(of_true > 0, labels[:, 0] == 3)


def test_a_network_in_float64_has_logits_in_float64():
    network = learnt_network().double().eval()
    with torch.no_grad():
        logits = network(SLABS.double())
        single = network.float()(SLABS)
    assert logits.dtype == torch.float64
    assert (logits.argmax(dim=1) == single.argmax(dim=1)).float().mean() > 0.99
    torch.testing.assert_close(logits[:, :2], single[:, :2].double(), rtol=1e-3, atol=1e-3)


def test_types_of_regions_learn_only_their_head():
    network = learnt_network().train()
    network(SLABS).types.sum().backward()
    learnt = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert learnt == {name for name, _ in network.named_parameters() if name.startswith("type_head.")}


@pytest.mark.parametrize("evidence", ["features", "both"])
def test_features_as_evidence_learn_from_types(evidence):
    network = learnt_network(evidence=evidence).train()
    network(SLABS).types.square().sum().backward()
    assert network.head.weight.grad is None
    assert network.decoder.stage4.block.conv1.conv.weight.grad.abs().sum() > 0
    assert network.arguments()["evidence"] == evidence


def test_unknown_evidence_is_refused():
    with pytest.raises(UsageError, match="evidence 'size' is not known; there are measurements, features, both"):
        RegionTypeUNet("small", evidence="size")


def test_weights_of_other_evidence_are_refused_by_its_name(record, tmp_path):
    network = RegionTypeUNet("small", evidence="both")
    path = tmp_path / "regions.safetensors"
    labels = ("background", "liver", *LESION_TYPES)
    of_network = replace(record, network="RegionTypeUNet", arguments=network.arguments(), labels=labels)
    export_weights(path, network.state_dict(), of_network)
    with pytest.raises(LiversegError, match="does not fit: evidence both in the file, measurements in the network; "):
        load_weights(RegionTypeUNet("small"), path)
    load_weights(RegionTypeUNet("small", evidence="both"), path)


def test_slabs_without_lesions_have_no_types_and_no_loss_of_types():
    network = learnt_network().train()
    with torch.no_grad():
        network.head.bias[0] = 100
    output = network(SLABS, outlines=torch.zeros(2, 1, 50, 70))
    assert output.weights.sum() == 0
    of_map = torch.nn.CrossEntropyLoss()
    loss = SlabLoss(StackedDeepSupervisionLoss(lambda maps, labels: of_map(maps, labels[:, 0].long())))
    labels = torch.zeros(2, 1, 50, 70, dtype=torch.uint8)
    torch.testing.assert_close(loss(output, labels), of_map(output.maps, labels[:, 0].long()))
    assert torch.equal(network.eval()(SLABS).argmax(dim=1), torch.zeros(2, 50, 70, dtype=torch.int64))


def test_a_head_learns_to_distinguish_rims_from_centres():
    """Lesions of two types have the same mean; one is bright in its centre, the other at its edge."""
    generator = torch.Generator().manual_seed(0)
    grid = torch.arange(64) - 32
    distance = (grid[:, None] ** 2 + grid**2).float().sqrt()

    def batch(count):
        radii = 8 + 8 * torch.rand(count, generator=generator)
        kinds = torch.randint(0, 2, (count,), generator=generator)
        depth = (radii[:, None, None] - distance).clamp(min=0)
        inside = depth > 0
        bright = torch.where(kinds[:, None, None] == 0, depth > 3, depth <= 3)
        slab = 0.4 + 0.1 * torch.randn(count, 3, 64, 64, generator=generator)
        return slab + 0.3 * (bright & inside)[:, None], inside, kinds

    torch.manual_seed(0)
    head = RegionTypeHead(3, 4)
    optimizer = torch.optim.Adam(head.parameters(), 0.01)

    def name(slab, inside):
        count = len(slab)
        types, features = torch.zeros(count, 3, 64, 64), torch.zeros(count, 4, 16, 16)
        return head(slab, Regions(inside * torch.arange(1, count + 1)[:, None, None], count), ~inside, types, features)

    for _ in range(40):
        slab, inside, kinds = batch(16)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(name(slab, inside), kinds).backward()
        optimizer.step()
    slab, inside, kinds = batch(64)
    assert (name(slab, inside).argmax(dim=1) == kinds).float().mean() > 0.95


def test_the_core_of_a_region_ends_where_another_region_begins():
    """A lesion is described alike alone and beside a second one, but for the rim outside and the liver around it."""
    torch.manual_seed(0)
    slab, types, features = torch.rand(1, 3, 64, 64), torch.zeros(1, 3, 64, 64), torch.zeros(1, 4, 16, 16)
    ids = torch.zeros(1, 64, 64, dtype=torch.int64)
    ids[0, 20:40, 10:30] = 1
    beside = ids.clone()
    beside[0, 20:40, 30:50] = 2
    head = RegionTypeHead(3, 4)
    head.layers = torch.nn.Identity()
    alone = head(slab, Regions(ids, 1), ids == 0, types, features)[0]
    touching = head(slab, Regions(beside, 2), beside == 0, types, features)[0]
    means, stds = slice(3, 6), slice(9, 12)  # after the types of pixels: the core's means, contrasts and deviations
    for part in (means, stds):
        torch.testing.assert_close(touching[part], alone[part])
