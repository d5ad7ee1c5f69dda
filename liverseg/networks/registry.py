"""Which network a weights file is of, among those that can be used on volumes."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Final

from liverseg.networks.lesion_type_unet import LesionTypeUNet
from liverseg.networks.se_resunet import SEResUNet
from liverseg.networks.weights import try_read_record

__all__ = ["network_from_weights"]

_FOR_VOLUMES: dict[str, type[SEResUNet]] = {"SEResUNet": SEResUNet, "LesionTypeUNet": LesionTypeUNet}
_OWN_ARGUMENTS: Final = {"LesionTypeUNet": ("evidence", "windows")}


def network_from_weights(weights: str | os.PathLike | None) -> Callable[..., SEResUNet]:
    """Builds the network a weights file was made with, given size and channels; the joint network where nothing tells.

    Never raises: a config asks before it knows whether the weights are there, and loading refuses what does not fit, a
    Y-Net's or a classifier's weights among it: they do not say which type which lesion has.
    """
    record = try_read_record(weights)
    if record is None:
        return SEResUNet
    names = _OWN_ARGUMENTS.get(record.network, ())
    return partial(
        _FOR_VOLUMES.get(record.network, SEResUNet),
        **{name: record.arguments[name] for name in names if name in record.arguments},
    )
