"""Folders of the bundles and paths of their weights: in a checkout, installed, or given by the user."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

import liverseg
from liverseg.errors import LiversegError

__all__ = [
    "BUNDLES_VARIABLE",
    "STARTER_FOLDER",
    "WEIGHTS_VARIABLE",
    "default_weights",
    "find_bundle",
    "inference_config",
    "starter_weights",
    "weights_path",
]

BUNDLES_VARIABLE = "LIVERSEG_BUNDLES"
"""Environment variable with the folder that holds the bundles."""
WEIGHTS_VARIABLE = "LIVERSEG_WEIGHTS"
"""Environment variable with the weights to use when none are given."""
STARTER_FOLDER = Path(liverseg.__file__).absolute().parent / "weights"
"""Folder of the weights that come with the software, with their licence and model card."""


def find_bundle(name: str) -> Path:
    """Return the folder of one of the project's bundles.

    It is looked for in the folder of `LIVERSEG_BUNDLES`. If that is not set, it is looked for beside the package (a
    checkout), and in `share/liverseg/bundles` of Python's data folders, the user's included (an installation).

    Args:
        name: folder name of the bundle, such as `liver_lesion_joint`.

    Raises:
        LiversegError: if it is in none of these folders.
    """
    named = os.environ.get(BUNDLES_VARIABLE)
    if named:
        roots = [Path(named).absolute()]
    else:
        beside = Path(liverseg.__file__).absolute().parent.parent / "bundles"
        user = sysconfig.get_preferred_scheme("user")
        data = (sysconfig.get_path("data"), sysconfig.get_path("data", scheme=user))
        roots = [beside, *(Path(folder) / "share" / "liverseg" / "bundles" for folder in data)]
    for root in roots:
        if (root / name / "configs").is_dir():
            return root / name
    places = " or ".join(map(str, roots))
    raise LiversegError(f"bundle {name}: not in {places}; set {BUNDLES_VARIABLE} to the folder it is in")


def inference_config(bundle: str | os.PathLike | None = None) -> Path:
    """Return the path of a bundle's `configs/inference.yaml`, by default the joint bundle's.

    Raises:
        LiversegError: if the folder has none.
    """
    folder = Path(bundle).absolute() if bundle is not None else find_bundle("liver_lesion_joint")
    config = folder / "configs" / "inference.yaml"
    if not config.is_file():
        raise LiversegError(f"{folder}: not a bundle's folder, it has no configs/inference.yaml")
    return config


def weights_path(config: Path, weights: str | os.PathLike | None = None) -> Path:
    """Return the absolute path of the given weights, else of `LIVERSEG_WEIGHTS`, else of `default_weights`.

    Args:
        config: path from `inference_config`.
        weights: path of the given weights, if any.

    Raises:
        LiversegError: from `default_weights`.
    """
    return Path(weights or os.environ.get(WEIGHTS_VARIABLE) or default_weights(config.parent.parent)).absolute()


def default_weights(bundle: str | os.PathLike) -> str:
    """Return a bundle's own `models/model.pt` if it has been trained, else the weights that come with the software.

    Args:
        bundle: folder of the bundle.

    Raises:
        LiversegError: from `starter_weights`.
    """
    own = Path(bundle) / "models" / "model.pt"
    starter = None if own.is_file() else starter_weights(Path(bundle).absolute().name)
    return str(own if starter is None else starter)


def starter_weights(bundle: str) -> Path | None:
    """Return the weights that come with the software for a bundle, or None if there are none.

    They have their own licence and are not used without it.

    Args:
        bundle: name of the bundle, such as `liver_lesion_joint`.

    Raises:
        LiversegError: if the licence is not beside them.
    """
    path = STARTER_FOLDER / f"{bundle.removeprefix('liver_lesion_')}.safetensors"
    if not path.is_file():
        return None
    licence = STARTER_FOLDER / "LICENSE"
    if not licence.is_file() or not licence.stat().st_size:
        raise LiversegError(f"{path}: its licence, LICENSE, is missing or empty beside it; install liverseg again")
    return path
