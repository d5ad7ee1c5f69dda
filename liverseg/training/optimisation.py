"""What an optimizer is given to train, heads apart from the rest, and what it and its schedule are, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai.optimizers import generate_param_groups
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

__all__ = ["describe_optimizer", "describe_schedule", "parameter_groups"]

_MAP_HEADS = ("head.", "aux_heads.")
_TYPE_HEAD = ("type_head.",)


def parameter_groups(
    network: nn.Module, learning_rate: float, head_factor: float = 1.0, type_head_factor: float = 1.0
) -> list[dict[str, Any]]:
    """Parameters of a network in three groups for an optimizer: heads of maps, head of types, encoder and decoder.

    A head is a few dozen numbers between the last features and the labels. Adam moves each by no more than about the
    learning rate a step, so a new head at the rate that suits pre-trained features takes thousands of steps to name a
    type; until then all lesions are called the same.

    Args:
        network: whose heads are `head`, `aux_heads` and `type_head`.
        learning_rate: of encoder and decoder.
        head_factor: the heads of maps learn at this multiple of it.
        type_head_factor: the head that names types apart from the map, if there is one, at this multiple.
    """
    return generate_param_groups(
        network,
        layer_matches=[lambda named: named[0].startswith(_MAP_HEADS), lambda named: named[0].startswith(_TYPE_HEAD)],
        match_types=["filter", "filter"],
        lr_values=[learning_rate * head_factor, learning_rate * type_head_factor],
    )


def describe_optimizer(optimizer: Optimizer) -> str:
    """An optimizer's class and arguments, the learning rates left out, to tell one run's from another's.

    Example:
        >>> import torch
        >>> describe_optimizer(torch.optim.SGD([torch.zeros(1)], lr=0.1, momentum=0.9))
        'SGD(momentum=0.9, dampening=0, weight_decay=0)'
    """
    group = optimizer.param_groups[0]
    return _describe(optimizer, {name: value for name, value in group.items() if name not in ("lr", "initial_lr")})


def describe_schedule(lr_scheduler: LRScheduler) -> str:
    """A schedule's class and arguments, as `StepLR(step_size=20, gamma=0.1)`.

    A checkpoint's own arguments would replace those of the schedule that takes it up.
    """
    state = lr_scheduler.state_dict()
    return _describe(lr_scheduler, {name: value for name, value in state.items() if name != "last_epoch"})


def _describe(what: Any, arguments: Mapping[str, Any]) -> str:
    plain = {
        name: value
        for name, value in arguments.items()
        if isinstance(value, int | float | str | tuple) and not isinstance(value, bool) and not name.startswith("_")
    }
    return f"{type(what).__name__}({', '.join(f'{name}={value!r}' for name, value in plain.items())})"
