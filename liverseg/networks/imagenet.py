"""SE-ResNet-50 trained on ImageNet, as an encoder to start from."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from urllib.error import URLError

import torch
from monai.networks.nets.senet import SE_NET_MODELS
from torch.hub import load_state_dict_from_url

from liverseg.errors import LiversegError, UsageError
from liverseg.files import is_file
from liverseg.networks.slab_network import SlabNetwork
from liverseg.networks.transfer import TransferReport
from liverseg.networks.weights import read_state

__all__ = ["IMAGENET_URL", "imagenet_encoder", "transfer_imagenet"]

IMAGENET_URL: str = SE_NET_MODELS["se_resnet50"]
"""Where MONAI has the weights from: R. Cadene's pretrained-models, trained on ImageNet-1k."""

_RENAMED = (
    (r"(layer[1-4]\.\d\.conv\d)\.(\w+)", r"\1.conv.\2"),
    (r"(layer[1-4]\.\d)\.bn(\d)\.(\w+)", r"\1.conv\2.adn.N.\3"),
    (r"(layer[1-4]\.\d)\.se_module\.fc1\.(\w+)", r"\1.se_layer.fc.0.\2"),
    (r"(layer[1-4]\.\d)\.se_module\.fc2\.(\w+)", r"\1.se_layer.fc.2.\2"),
    (r"(layer[1-4]\.\d)\.downsample\.0\.(\w+)", r"\1.project.conv.\2"),
    (r"(layer[1-4]\.\d)\.downsample\.1\.(\w+)", r"\1.project.adn.N.\2"),
)
_HOW_TO_SUPPLY = f"download {IMAGENET_URL} where there is a network, and give it with --imagenet_weights FILE"


def imagenet_encoder(published: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The published tensors under the names of `SEResUNetEncoder`, the classifier left out.

    The squeezed layers were published as 1×1 convolutions and are linear here.

    Args:
        published: the state_dict as it is downloaded, or one of MONAI's `SEResNet50`, whose names are the encoder's.
    """
    encoder = {}
    for name, tensor in published.items():
        own = name
        for pattern, replacement in _RENAMED:
            own, found = re.subn(f"^{pattern}$", replacement, own)
            if found:
                break
        if own.startswith("layer"):
            encoder[own] = tensor.flatten(1) if ".se_layer." in own and tensor.ndim == 4 else tensor
    return encoder


def transfer_imagenet(network: SlabNetwork, path: str | os.PathLike | None) -> TransferReport:
    """Start the encoder of a full-size network from ImageNet weights, in place.

    Args:
        network: of any strategy; its three slices take the place of red, green and blue.
        path: a local .pth file; None lets MONAI's address be downloaded into torch's hub folder.

    Raises:
        UsageError: if the network is not of the full size, which alone is SE-ResNet-50.
        LiversegError: if the weights cannot be had or do not fit.
    """
    if network.size != "full":
        raise UsageError(
            f"initialisation imagenet: there are ImageNet weights of SE-ResNet-50 alone, which is network_size full; "
            f"network_size is {network.size}"
        )
    source = IMAGENET_URL if path is None else str(path)
    theirs = imagenet_encoder(_downloaded() if path is None else _from_file(Path(path)))
    encoder = network.get_submodule("encoder")
    own = encoder.state_dict()
    unfit = [name for name, tensor in own.items() if name not in theirs or theirs[name].shape != tensor.shape]
    unfit = [name for name in unfit if not name.endswith("num_batches_tracked")]  # older torch did not count batches
    if unfit:
        raise LiversegError(
            f"{source}: not the weights of SE-ResNet-50, {len(unfit)} of {len(own)} tensors are missing or of another "
            f"shape, {unfit[0]} for one; {_HOW_TO_SUPPLY}"
        )
    loaded = {name: tensor for name, tensor in theirs.items() if name in own}
    encoder.load_state_dict(loaded, strict=False)
    names = tuple(f"encoder.{name}" for name in loaded)
    left = {name: "ImageNet has no such part" for name in network.state_dict() if name not in names}
    return TransferReport(loaded=names, left=left)


def _from_file(path: Path) -> dict[str, torch.Tensor]:
    if not is_file(path):
        raise LiversegError(f"imagenet_weights {path}: no such file; {_HOW_TO_SUPPLY}")
    return read_state(path)


def _downloaded() -> Mapping[str, torch.Tensor]:
    try:
        return load_state_dict_from_url(IMAGENET_URL, progress=False, map_location="cpu", weights_only=True)
    except (URLError, OSError, RuntimeError, UnpicklingError) as error:
        reason = " ".join(str(getattr(error, "reason", error)).split())
        raise LiversegError(
            f"initialisation imagenet: {IMAGENET_URL} cannot be had ({reason}); {_HOW_TO_SUPPLY}"
        ) from error
