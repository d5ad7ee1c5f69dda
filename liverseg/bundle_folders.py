"""Where the bundles are: in a checkout, installed, or where the user says."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

import liverseg
from liverseg.errors import LiversegError

__all__ = ["BUNDLES_VARIABLE", "find_bundle"]

BUNDLES_VARIABLE = "LIVERSEG_BUNDLES"
"""Environment variable that names the folder the bundles are in."""


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
