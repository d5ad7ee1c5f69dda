"""Which network a weights file is of, among those that can be used on volumes."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Final

from liverseg.networks.lesion_type_unet import MeasuringUNet
from liverseg.networks.se_resunet import SEResUNet
from liverseg.networks.weights import record_if_any

__all__ = ["recorded_network"]

_FOR_VOLUMES: dict[str, type[SEResUNet]] = {"SEResUNet": SEResUNet, "MeasuringUNet": MeasuringUNet}
_OWN_ARGUMENTS: Final = {"MeasuringUNet": ("evidence", "windows")}


def recorded_network(weights: str | os.PathLike | None) -> Callable[..., SEResUNet]:
    """Builds the network a weights file was made with, given size and channels; the joint network where nothing tells.

    Never raises: a config asks before it knows whether the weights are there, and loading refuses what does not fit, a
    Y-Net's or a classifier's weights among it: they do not say which type which lesion has.
    """
    record = record_if_any(weights)
    if record is None:
        return SEResUNet
    names = _OWN_ARGUMENTS.get(record.network, ())
    return partial(
        _FOR_VOLUMES.get(record.network, SEResUNet),
        **{name: record.arguments[name] for name in names if name in record.arguments},
    )
