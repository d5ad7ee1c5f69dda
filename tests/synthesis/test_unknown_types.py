"""Lesions of unknown types: their attenuation, and that no training can draw them."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from liverseg.datalists import read_datalist
from liverseg.errors import LiversegError
from liverseg.labels import LESION_TYPES
from liverseg.synthesis import Surroundings, draw_appearance, draw_shape
from liverseg.synthesis.unknown_types import UNKNOWN_TYPES, UnknownLesion, draw_unknown_lesion

AROUND = Surroundings(110.0, 165.0)
ROOT = Path(__file__).parents[2]
MODULE = "liverseg.synthesis.unknown_types"


def draw(kind: str, count: int = 25, diameter: float = 30.0) -> list[UnknownLesion]:
    rng = np.random.default_rng(3)
    return [draw_unknown_lesion(rng, kind, (5.0, 0.0, -3.0), draw_shape(rng, diameter), AROUND) for _ in range(count)]


def inside(lesion: UnknownLesion) -> tuple[np.ndarray, np.ndarray]:
    """Return HU inside the lesion and depth below its surface in mm, on a grid of 1 mm."""
    axes = [np.arange(at - lesion.reach, at + lesion.reach, 1.0) for at in lesion.centre]
    _, hu = lesion.evaluate(*axes, 0.8)
    q = lesion.shape.round_frame(*(axis - at for axis, at in zip(axes, lesion.centre, strict=True)))
    depth = -lesion.shape.distance(q)
    return hu[depth > 0], depth[depth > 0]


def test_hcc_is_darker_than_the_liver_with_a_bright_capsule() -> None:
    for lesion in draw("hcc"):
        hu, depth = inside(lesion)
        capsule, core = hu[(depth > 0.4) & (depth < 0.6 * lesion.shell_mm)], hu[depth > 5]
        assert 110 + 10 <= np.median(capsule) <= 110 + 35
        assert np.median(core) < 110
        assert len(lesion.seeds) >= 4 and core.std() > 1  # a mosaic from 20 mm on
    assert not any(len(lesion.seeds) for lesion in draw("hcc", diameter=12.0))


def test_abscesses_have_pus_a_wall_and_oedema() -> None:
    cavities = []
    for lesion in draw("abscess"):
        hu, depth = inside(lesion)
        assert 15 <= np.percentile(hu, 1) <= 40
        assert hu.max() >= 108  # the wall
        edge = np.median(hu[(depth > 0.3) & (depth < 0.08 * lesion.shape.radius + 0.6)])
        assert edge < 110
        cavities.append(len(lesion.parts))
    clusters = np.mean(np.array(cavities) > 1)
    assert 0.25 <= clusters <= 0.75


def test_calcified_lesions_have_calcium_in_tissue_darker_than_the_liver() -> None:
    shells = 0
    for lesion in draw("calcified"):
        hu, _ = inside(lesion)
        assert 150 - 10 <= hu.max() <= 510
        assert np.median(hu) < 110 or lesion.shell_mm > 0
        shells += lesion.shell_mm > 0
    assert 2 <= shells <= 16


def test_fat_is_fat_in_soft_tissue() -> None:
    for lesion in draw("fat-containing"):
        hu, _ = inside(lesion)
        assert -95 <= hu.min() <= -15
        assert 70 <= hu.max() <= 130


def test_the_same_seed_gives_the_same_lesion() -> None:
    for kind in UNKNOWN_TYPES:
        first, second = draw(kind, 1)[0], draw(kind, 1)[0]
        assert np.array_equal(inside(first)[0], inside(second)[0])


def test_known_and_unknown_types_are_apart() -> None:
    assert not set(UNKNOWN_TYPES) & set(LESION_TYPES)
    rng = np.random.default_rng(0)
    shape = draw_shape(rng, 20.0)
    for kind in UNKNOWN_TYPES:
        with pytest.raises(ValueError, match="allowed: cyst, hemangioma, metastasis"):
            draw_appearance(rng, kind, shape, AROUND)
    with pytest.raises(ValueError, match="unknown lesion type 'cyst'; allowed: hcc, abscess, calcified"):
        draw_unknown_lesion(rng, "cyst", (0.0, 0.0, 0.0), shape, AROUND)


def test_nothing_in_the_package_imports_them() -> None:
    importers = []
    for path in [*(ROOT / "liverseg").rglob("*.py"), *(ROOT / "bundles").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
            importers += [path for name in names if name.startswith(MODULE)]
    assert not importers
    configs = [*(ROOT / "bundles").rglob("*.yaml"), *(ROOT / "studies").glob("*.yaml")]
    assert len(configs) > 10
    assert not [path for path in configs if "unknown_types" in path.read_text(encoding="utf-8")]


@pytest.mark.integration
def test_what_a_training_imports_does_not_have_them() -> None:
    code = (
        "import sys, liverseg.transforms, liverseg.training, liverseg.bundle.setup, liverseg.synthesis.writer, "
        "liverseg.phantom\n"
        f"sys.exit({MODULE!r} in sys.modules or 'liverseg.synthesis.appearance' not in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_data_lists_refuse_them(tmp_path: Path) -> None:
    items = [{"image": "a.nii.gz", "label": "b.nii.gz", "patient": "a", "fold": 0, "lesion_type": "hcc"}]
    labels = dict(zip("01234", ("background", "liver", *LESION_TYPES), strict=True))
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps({"name": "x", "labels": labels, "training": items, "test": []}), encoding="utf-8")
    with pytest.raises(LiversegError, match="hcc"):
        read_datalist(path)
