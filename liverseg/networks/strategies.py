"""Which network a weights file is of, among those that can be used on volumes."""

from __future__ import annotations

import os

from liverseg.networks.measuring import MeasuringUNet
from liverseg.networks.se_resunet import SEResUNet
from liverseg.networks.weights import record_if_any

__all__ = ["recorded_network"]

_FOR_VOLUMES: dict[str, type[SEResUNet]] = {"SEResUNet": SEResUNet, "MeasuringUNet": MeasuringUNet}


def recorded_network(weights: str | os.PathLike | None) -> type[SEResUNet]:
    """The class of the network a weights file was made with; the joint network's where nothing tells.

    Never raises: a config asks before it knows whether the weights are there, and loading refuses what does not fit, a
    Y-Net's or a classifier's weights among it: they do not say which type which lesion has.
    """
    record = record_if_any(weights)
    return SEResUNet if record is None else _FOR_VOLUMES.get(record.network, SEResUNet)
