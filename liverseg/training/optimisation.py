"""Parameter groups with learning rates of their own, and descriptions of optimizer and schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from monai.optimizers import generate_param_groups
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

__all__ = ["describe_optimizer", "describe_schedule", "parameter_groups", "set_batch_norm_momentum"]

_MAP_HEADS = ("head.", "aux_heads.")
_TYPE_HEAD = ("type_head.",)

_Network = TypeVar("_Network", bound=nn.Module)


def parameter_groups(
    network: nn.Module, learning_rate: float, head_factor: float = 1.0, type_head_factor: float = 1.0
) -> list[dict[str, Any]]:
    """Return a network's parameters in three groups: heads of maps, head of types, encoder and decoder.

    A head is a few dozen numbers between the last features and the labels. Adam moves each by no more than about the
    learning rate a step. At the rate that suits pre-trained features, a new head therefore needs thousands of steps to
    name a type; until then it gives all lesions the same type.

    Args:
        network: a network with the heads `head`, `aux_heads` and `type_head`, as far as it has them.
        learning_rate: learning rate of encoder and decoder.
        head_factor: factor of the learning rate for the heads of maps.
        type_head_factor: factor of the learning rate for a head of types that is separate from the map.
    """
    return generate_param_groups(
        network,
        layer_matches=[lambda named: named[0].startswith(_MAP_HEADS), lambda named: named[0].startswith(_TYPE_HEAD)],
        match_types=["filter", "filter"],
        lr_values=[learning_rate * head_factor, learning_rate * type_head_factor],
    )


def set_batch_norm_momentum(network: _Network, momentum: float | None) -> _Network:
    """Set the momentum of every batch norm of a network, in place, and return the network.

    The momentum is the share of a batch in the running mean and variance with which the network is scored.
    EfficientNet-Lite0 has .01, so its statistics follow the weights after some hundred steps. A training on few slices
    takes fewer steps between two validations.

    Args:
        network: with any layers.
        momentum: above 0 and up to 1; None leaves each layer's own.
    """
    if momentum is not None:
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = momentum
    return network


def describe_optimizer(optimizer: Optimizer) -> str:
    """Return an optimizer's class and arguments as text, without the learning rates.

    Example:
        >>> import torch
        >>> describe_optimizer(torch.optim.SGD([torch.zeros(1)], lr=0.1, momentum=0.9))
        'SGD(momentum=0.9, dampening=0, weight_decay=0)'
    """
    group = optimizer.param_groups[0]
    return _describe(optimizer, {name: value for name, value in group.items() if name not in ("lr", "initial_lr")})


def describe_schedule(lr_scheduler: LRScheduler) -> str:
    """Return a schedule's class and arguments as text, like `StepLR(step_size=20, gamma=0.1)`.

    A schedule that loads a checkpoint takes its arguments over, so they are compared first.
    """
    state = lr_scheduler.state_dict()
    return _describe(lr_scheduler, {name: value for name, value in state.items() if name != "last_epoch"})


def _describe(part: Optimizer | LRScheduler, arguments: Mapping[str, Any]) -> str:
    plain = {
        name: value
        for name, value in arguments.items()
        if isinstance(value, int | float | str | tuple) and not isinstance(value, bool) and not name.startswith("_")
    }
    return f"{type(part).__name__}({', '.join(f'{name}={value!r}' for name, value in plain.items())})"
