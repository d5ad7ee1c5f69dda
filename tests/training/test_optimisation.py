"""Groups of parameters (map heads, type head, others): complete, disjoint, each with its rate."""

import pytest
import torch

from liverseg.networks import SEResUNet, SlabClassifier, YNet
from liverseg.training import describe_optimizer, describe_schedule, parameter_groups, set_batch_norm_momentum


@pytest.mark.parametrize("build", [SEResUNet, YNet, SlabClassifier])
@pytest.mark.parametrize("deep_supervision", [False, True])
def test_every_parameter_is_in_one_group_and_heads_learn_at_their_own_rate(build, deep_supervision):
    network = build("small", deep_supervision=deep_supervision)
    groups = torch.optim.Adam(parameter_groups(network, 0.001, 10, 2), lr=0.001).param_groups
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = [[names[id(parameter)] for parameter in group["params"]] for group in groups]
    assert sorted(name for group in found for name in group) == sorted(names.values())
    assert [group["lr"] for group in groups] == [0.01, 0.002, 0.001]
    assert found[1] == [name for name in names.values() if name.startswith("type_head.")]
    assert found[0] == [name for name in names.values() if name.startswith(("head.", "aux_heads."))]


def test_optimizers_and_schedules_are_distinguished_by_their_arguments():
    adam = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=0.1, weight_decay=0.5)
    assert describe_optimizer(adam) == "Adam(betas=(0.9, 0.999), eps=1e-08, weight_decay=0.5)"
    schedule = torch.optim.lr_scheduler.StepLR(adam, 20, 0.1)
    before = describe_schedule(schedule)
    adam.step()
    schedule.step()
    assert describe_schedule(schedule) == before == "StepLR(step_size=20, gamma=0.1)"
    assert describe_schedule(torch.optim.lr_scheduler.CosineAnnealingLR(adam, 16)) != before


def test_the_momentum_of_every_batch_norm_is_set_and_none_keeps_it():
    network = SEResUNet("lite")
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    own = [norm.momentum for norm in norms]
    assert {0.01, 0.1} == {*own}
    assert set_batch_norm_momentum(network, None) is network
    assert [norm.momentum for norm in norms] == own
    set_batch_norm_momentum(network, 0.3)
    assert {norm.momentum for norm in norms} == {0.3}
