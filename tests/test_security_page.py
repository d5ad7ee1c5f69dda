"""docs/security.md lists the present limits."""

import re
from importlib import import_module
from pathlib import Path

PAGE = (Path(__file__).parents[1] / "docs" / "security.md").read_text(encoding="utf-8")
UNITS = {"GiB": 1 << 30, "MiB": 1 << 20}


def test_limits_are_those_of_the_modules():
    documented = {}
    for module, row in re.findall(r"^\| `liverseg/imageio/(\w+)\.py` \| (.+) \|$", PAGE, re.MULTILINE):
        found = re.findall(r"`([A-Z_]+)` (\d+)(?: (GiB|MiB))?", row)
        documented |= {(module, name): int(number) * UNITS.get(unit, 1) for name, number, unit in found}
    limits = {
        (module, name): getattr(import_module(f"liverseg.imageio.{module}"), name)
        for module in ("nifti", "dicom_series", "archives")
        for name in vars(import_module(f"liverseg.imageio.{module}"))
        if name.startswith(("MAX_", "SMALL_"))
    }
    assert documented == limits and len(limits) == 15
