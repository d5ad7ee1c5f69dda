"""Batch norm folded into the convolutions before it: at inference it is a factor and an offset a channel."""

from __future__ import annotations

from monai.networks.blocks import ADN
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval

__all__ = ["fold_batch_norm"]


def fold_batch_norm(network: nn.Module) -> int:
    """Let convolutions do the batch norm that follows them, in place; the network is for inference from then on.

    Outputs are the same but for rounding. It saves a pass over the features for each.

    Args:
        network: in eval mode; where a `Sequential` has a convolution before a batch norm, or before MONAI's ADN that
            begins with one, the norm becomes an identity.

    Returns:
        How many were folded.

    Raises:
        ValueError: if the network is in training mode, where a batch norm follows the batch.
    """
    if network.training:
        raise ValueError("batch norm of a network in training mode cannot be folded; call eval() first")
    folded = 0
    for module in list(network.modules()):
        if not isinstance(module, nn.Sequential):
            continue
        for index in range(len(module) - 1):
            convolution, follower = module[index], module[index + 1]
            holder, place = (follower, 0) if isinstance(follower, ADN) else (module, index + 1)
            norm = holder[place] if len(holder) else None
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module[index] = fuse_conv_bn_eval(convolution, norm)
                holder[place] = nn.Identity()
                folded += 1
    return folded
