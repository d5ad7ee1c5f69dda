"""What an optimizer is given to train: heads apart from the rest."""

from __future__ import annotations

from typing import Any

from monai.optimizers import generate_param_groups
from torch import nn

__all__ = ["parameter_groups"]

_HEADS = ("head.", "aux_heads.")


def parameter_groups(network: nn.Module, learning_rate: float, head_factor: float = 1.0) -> list[dict[str, Any]]:
    """Parameters of a SEResUNet in two groups for an optimizer: its heads, then encoder and decoder.

    A head is a few dozen numbers between the last features and the labels. Adam moves each by no more than about the
    learning rate a step, so a new head at the rate that suits pre-trained features takes thousands of steps to name a
    type; until then all lesions are called the same.

    Args:
        network: with parameters under `head.` and `aux_heads.`.
        learning_rate: of encoder and decoder.
        head_factor: the heads learn at this multiple of it.
    """
    return generate_param_groups(
        network,
        layer_matches=[lambda named: named[0].startswith(_HEADS)],
        match_types=["filter"],
        lr_values=[learning_rate * head_factor],
    )
