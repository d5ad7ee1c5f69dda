"""SE-ResNet U-Net in two sizes, and the hand-over of its weights from training to training."""

from liverseg.networks.se_resunet import SIZES, NetworkSize, SEResUNet

__all__ = ["SIZES", "NetworkSize", "SEResUNet"]
