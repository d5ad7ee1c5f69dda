"""The 2.5-D U-Net with an SE-ResNet encoder in two sizes, or with EfficientNet-Lite0."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from liverseg.errors import UsageError
from liverseg.labels import LESION
from liverseg.networks.base import SlabNetwork
from liverseg.networks.blocks import DecoderStage, LastStage, SEBottleneck, SEResidualBlock
from liverseg.networks.efficientnet_lite import EfficientNetLiteEncoder

__all__ = [
    "SIZES",
    "NetworkSize",
    "SEResUNet",
    "SEResUNetDecoder",
    "SEResUNetEncoder",
    "get_size",
    "initialise",
    "join_types",
    "make_encoder",
    "pad_to_stride",
]


@dataclass(frozen=True)
class NetworkSize:
    """Channels and blocks of one network size.

    Attributes:
        design: encoder: SE-ResNet-50, an SE-ResNet of basic blocks, or EfficientNet-Lite0; the channels and blocks of
            the first and the last are fixed.
        encoder: channels at strides 2, 4, 8, 16 and 32.
        decoder: channels at strides 16, 8, 4, 2 and 1.
        blocks: residual blocks of `layer1` to `layer4` of an SE-ResNet.
    """

    design: Literal["se_resnet50", "se_resnet", "efficientnet_lite0"]
    encoder: tuple[int, int, int, int, int]
    decoder: tuple[int, int, int, int, int]
    blocks: tuple[int, int, int, int] = (0, 0, 0, 0)


SIZES: dict[str, NetworkSize] = {
    "full": NetworkSize("se_resnet50", (64, 256, 512, 1024, 2048), (256, 128, 64, 32, 16), (3, 4, 6, 3)),
    "small": NetworkSize("se_resnet", (16, 32, 64, 96, 128), (64, 48, 32, 16, 8), (1, 2, 2, 2)),
    "lite": NetworkSize("efficientnet_lite0", (16, 24, 40, 112, 320), (64, 48, 32, 16, 8)),
}
"""`full` is the paper's encoder with a decoder of about the same cost. `small` trains on two CPU cores in minutes: its
channels are multiples of 16, the floats of a CPU's vector register, and few at full resolution, which takes half of the
time. `lite` is the smallest encoder whose ImageNet weights are available as a package."""

_STRIDE = 32
_AUX_STRIDES = (2, 4, 8)


class SEResUNetEncoder(nn.Module):
    """SE-ResNet encoder of five stages, `layer0` to `layer4`, at strides 2 to 32.

    The full size is SE-ResNet-50 without its classifier, under the tensor names of MONAI's `SEResNet50`, so that its
    ImageNet weights load by name.

    Args:
        size: channels and blocks.
        in_channels: slices of a slab.
    """

    def __init__(self, size: NetworkSize, in_channels: int) -> None:
        super().__init__()
        widths = size.encoder
        is_50 = size.design == "se_resnet50"
        kernel_size, layer = (7, _bottleneck_layer) if is_50 else (3, _basic_layer)
        self.layer0 = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(in_channels, widths[0], kernel_size, stride=2, padding=kernel_size // 2, bias=False),
                bn1=nn.BatchNorm2d(widths[0]),
                relu1=nn.ReLU(inplace=True),
                pool=nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True),
            )
        )
        self.layer1 = layer(widths[0], widths[1], size.blocks[0], 1)
        self.layer2 = layer(widths[1], widths[2], size.blocks[1], 2)
        self.layer3 = layer(widths[2], widths[3], size.blocks[2], 2)
        self.layer4 = layer(widths[3], widths[4], size.blocks[3], 2)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Map slabs (batch, in_channels, H, W), H and W multiples of 32, to features at strides 2, 4, 8, 16, 32."""
        # layer0 is convolution, norm, ReLU and pooling; the skip connection leaves before the pooling, at stride 2
        at_2 = self.layer0[2](self.layer0[1](self.layer0[0](x)))
        at_4 = self.layer1(self.layer0[3](at_2))
        at_8 = self.layer2(at_4)
        at_16 = self.layer3(at_8)
        return [at_2, at_4, at_8, at_16, self.layer4(at_16)]


def _basic_layer(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = SEResidualBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *(SEResidualBlock(out_channels, out_channels) for _ in range(blocks - 1)))


def _bottleneck_layer(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
    width = out_channels // 4
    first = SEBottleneck(in_channels, width, stride)
    return nn.Sequential(first, *(SEBottleneck(out_channels, width) for _ in range(blocks - 1)))


class SEResUNetDecoder(nn.Module):
    """Decoder of five stages, `stage16` to `stage1`, each named after the stride of its output.

    The last stage takes the slab itself as its skip connection. This keeps the edges of lesions a few pixels across
    without an encoder stage at full resolution, which would cost more than all the others.

    Args:
        size: channels and blocks.
        in_channels: slices of a slab.
    """

    def __init__(self, size: NetworkSize, in_channels: int) -> None:
        super().__init__()
        encoder, decoder = size.encoder, size.decoder
        self.stage16 = DecoderStage(encoder[4], encoder[3], decoder[0])
        self.stage8 = DecoderStage(decoder[0], encoder[2], decoder[1])
        self.stage4 = DecoderStage(decoder[1], encoder[1], decoder[2])
        self.stage2 = DecoderStage(decoder[2], encoder[0], decoder[3])
        self.stage1 = LastStage(decoder[3], in_channels, decoder[4])

    def forward(self, slab: torch.Tensor, features: list[torch.Tensor]) -> list[torch.Tensor]:
        """Map the slab and the encoder's features to the decoder's features at strides 1, 2, 4 and 8."""
        at_16 = self.stage16(features[4], features[3])
        at_8 = self.stage8(at_16, features[2])
        at_4 = self.stage4(at_8, features[1])
        at_2 = self.stage2(at_4, features[0])
        return [self.stage1(at_2, slab), at_2, at_4, at_8]


class SEResUNet(SlabNetwork):
    """U-Net with SE-ResNet encoder, long skip connections and an SE residual block in every decoder stage.

    After Heker & Greenspan 2020; the widths of the decoder are ours. Tensor names are grouped as `encoder.*`,
    `decoder.*`, `head.*` and, with deep supervision, `aux_heads.*`.

    Args:
        size: a key of `SIZES`.
        in_channels: slices of a slab.
        out_channels: rows of the label table: 3 for pre-training, 5 for the joint network.
        deep_supervision: also supervise maps at strides 2, 4 and 8.
        sum_types: in evaluation mode, a pixel is lesion where the summed probability of all types is above that of
            liver and that of background (ours). Otherwise the probability of one type has to be, and an outline is
            smaller, or missing, where the network is uncertain of the type. Without effect on a map without types.

    Raises:
        UsageError: if the size is unknown.

    Example:
        >>> network = SEResUNet("small", out_channels=5).eval()
        >>> network(torch.zeros(1, 3, 200, 173)).shape
        torch.Size([1, 5, 200, 173])
    """

    def __init__(
        self,
        size: str = "full",
        in_channels: int = 3,
        out_channels: int = 5,
        deep_supervision: bool = False,
        sum_types: bool = False,
    ) -> None:
        super().__init__(size, in_channels, out_channels, deep_supervision)
        network_size = get_size(size)
        self.stride = _STRIDE
        self.sum_types = sum_types and out_channels > LESION + 1
        self.lesion = LESION  # TorchScript reads attributes, but no constants of other modules
        self.encoder = make_encoder(network_size, in_channels)
        self.decoder = SEResUNetDecoder(network_size, in_channels)
        self.head = nn.Conv2d(network_size.decoder[4], out_channels, kernel_size=1)
        self.aux_heads = nn.ModuleDict()
        if deep_supervision:
            for stride, channels in zip(_AUX_STRIDES, network_size.decoder[3:0:-1], strict=True):
                self.aux_heads[f"stride{stride}"] = nn.Conv2d(channels, out_channels, kernel_size=1)
        self.apply(initialise)

    def arguments(self) -> dict[str, Any]:
        """Return the constructor arguments that build this network again."""
        # the default is left out: records and checkpoints from before the argument existed stay valid
        return {**super().arguments(), **({"sum_types": True} if self.sum_types else {})}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits of a batch of slabs of any height and width.

        Args:
            x: (batch, in_channels, H, W), HU already windowed to [-1, 1].

        Returns:
            (batch, out_channels, H, W). In training mode with deep supervision (batch, 4, out_channels, H, W): the
            final map, then the maps at strides 2, 4 and 8, enlarged to full size. In evaluation mode with `sum_types`,
            the logits are those of `join_types`.
        """
        slab = pad_to_stride(x)
        features = self.decoder(slab, self.encoder(slab))
        maps = self._maps(self.head(features[0]), features, x.shape[2], x.shape[3])
        if self.training or not self.sum_types:
            return maps
        # sums over channels are four times as fast in contiguous memory
        logits = maps.float().contiguous()
        others, types = logits[:, : self.lesion], logits[:, self.lesion :]
        return join_types(others, torch.logsumexp(types, dim=1, keepdim=True), types)

    def _maps(self, padded: torch.Tensor, features: list[torch.Tensor], height: int, width: int) -> torch.Tensor:
        """Crop the padded slab's logits to its own size; in deeply supervised training, append the coarser maps."""
        logits = padded[:, :, :height, :width]
        if not (self.training and self.deep_supervision):
            return logits
        # the loss needs float32 or more, and interpolating few channels is three times as fast in contiguous memory
        dtype = torch.promote_types(logits.dtype, torch.float32)
        maps = [logits.to(dtype).contiguous()]
        for level, head in enumerate(self.aux_heads.values()):
            coarse = head(features[level + 1]).to(dtype).contiguous()
            enlarged = functional.interpolate(
                coarse, size=[padded.shape[2], padded.shape[3]], mode="bilinear", align_corners=False
            )
            maps.append(enlarged[:, :, :height, :width])
        return torch.stack(maps, dim=1)


def join_types(others: torch.Tensor, lesion: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
    """Join logits of lesion or not and logits of the lesion's type to those of a map with types.

    The likeliest type gets the lesion's logit, so that uncertainty between types never makes an outline smaller. The
    ratios between the types' probabilities are those of `types`. The summed probability of the types becomes higher
    than the lesion's the more even they are: with three even types, odds three times as high.

    Args:
        others: background and liver, (batch, 2, H, W).
        lesion: lesion of any type, (batch, 1, H, W).
        types: (batch, lesion types, H, W).

    Returns:
        Logits (batch, 2 + lesion types, H, W).
    """
    return torch.cat([others, lesion + types - types.amax(dim=1, keepdim=True)], dim=1)


def make_encoder(size: NetworkSize, in_channels: int) -> nn.Module:
    """Build the encoder of a size, from slabs of `in_channels` slices to features at strides 2, 4, 8, 16 and 32."""
    if size.design == "efficientnet_lite0":
        return EfficientNetLiteEncoder(in_channels)
    return SEResUNetEncoder(size, in_channels)


def get_size(size: str) -> NetworkSize:
    """Return a size by its name.

    Raises:
        UsageError: if the size is unknown.
    """
    if size not in SIZES:
        raise UsageError(f"network size {size!r} is not known; there are {', '.join(SIZES)}")
    return SIZES[size]


def pad_to_stride(x: torch.Tensor, stride: int = _STRIDE) -> torch.Tensor:
    """Pad slabs (batch, channels, H, W) below and on the right to multiples of the deepest stride.

    Edge voxels are repeated: a rim of zeros would look like soft tissue.
    """
    below = (stride - x.shape[2] % stride) % stride
    right = (stride - x.shape[3] % stride) % stride
    return functional.pad(x, [0, right, 0, below], mode="replicate")


def initialise(module: nn.Module) -> None:
    """Apply He's initialisation to convolutions, for heads without the factor of two that a following ReLU needs."""
    if isinstance(module, nn.Conv2d):
        is_head = module.bias is not None
        nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if is_head else "relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
