"""Where the bundles are: in a checkout, installed, or where the user says."""

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
"""Environment variable that names the folder the bundles are in."""
WEIGHTS_VARIABLE = "LIVERSEG_WEIGHTS"
"""Environment variable that names the weights to use when none are given."""
STARTER_FOLDER = Path(liverseg.__file__).absolute().parent / "weights"
"""Where the weights that come with the software are, with their licence and model card."""


def find_bundle(name: str) -> Path:
    """The folder of one of the project's bundles.

    Looked for in the folder `LIVERSEG_BUNDLES` names and, where that is not set, beside the package (a checkout) and in
    `share/liverseg/bundles` where Python's packages put their data (an installation, the user's own included).

    Args:
        name: the bundle's folder name, as `liver_lesion_joint`.

    Raises:
        LiversegError: if it is in none of them.
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
    """The `configs/inference.yaml` of a bundle's folder; by default the joint bundle's.

    Raises:
        LiversegError: if the folder has none.
    """
    folder = Path(bundle).absolute() if bundle is not None else find_bundle("liver_lesion_joint")
    config = folder / "configs" / "inference.yaml"
    if not config.is_file():
        raise LiversegError(f"{folder}: not a bundle's folder, it has no configs/inference.yaml")
    return config


def weights_path(config: Path, weights: str | os.PathLike | None = None) -> Path:
    """The weights given, else those `LIVERSEG_WEIGHTS` names, else `default_weights`; absolute.

    Args:
        config: from `inference_config`.
        weights: the weights given.

    Raises:
        LiversegError: from `default_weights`.
    """
    return Path(weights or os.environ.get(WEIGHTS_VARIABLE) or default_weights(config.parent.parent)).absolute()


def default_weights(bundle: str | os.PathLike) -> str:
    """A bundle's own `models/model.pt` if it has been trained, else the weights that come with the software.

    Args:
        bundle: the bundle's folder.

    Raises:
        LiversegError: from `starter_weights`.
    """
    own = Path(bundle) / "models" / "model.pt"
    starter = None if own.is_file() else starter_weights(Path(bundle).absolute().name)
    return str(own if starter is None else starter)


def starter_weights(bundle: str) -> Path | None:
    """The weights that come with the software for a bundle; None if there are none for it.

    They are published under a licence of their own, and are not used without it.

    Args:
        bundle: its name, as `liver_lesion_joint`.

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
