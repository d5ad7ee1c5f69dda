"""HU of tissues in the portal venous phase, mean and spread between patients; docs/phantom.md has the sources."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["TISSUES", "Tissue", "draw_tissues"]


@dataclass(frozen=True)
class Tissue:
    """Attenuation of a tissue.

    Attributes:
        mean: mean HU at 120 kV, 60 to 80 s after contrast.
        spread: standard deviation between patients, HU.
        texture: standard deviation within a patient, with a grain of about 6 mm, HU.
    """

    mean: float
    spread: float
    texture: float = 0.0


TISSUES: dict[str, Tissue] = {
    "air": Tissue(-1000, 0),
    "lung": Tissue(-850, 25, 22),
    "skin": Tissue(30, 8),
    "fat": Tissue(-104, 4, 5),
    "visceral_fat": Tissue(-98, 5, 9),
    "muscle": Tissue(60, 4, 6),
    "spleen": Tissue(120, 7, 2),
    "kidney": Tissue(172, 12, 4),
    "kidney_medulla": Tissue(150, 12, 4),
    "pancreas": Tissue(98, 8, 9),
    "stomach_wall": Tissue(82, 8),
    "stomach_content": Tissue(18, 9, 6),
    "bowel_wall": Tissue(88, 9),
    "bowel_content": Tissue(24, 9, 10),
    "stool": Tissue(-20, 40, 70),
    "gas": Tissue(-940, 15),
    "gallbladder": Tissue(9, 4),
    "gallbladder_wall": Tissue(52, 8),
    "myocardium": Tissue(108, 8),
    "blood": Tissue(150, 10),
    "cortical_bone": Tissue(520, 60),
    "marrow": Tissue(150, 28, 24),
    "disc": Tissue(88, 8),
    "canal": Tissue(32, 5),
    "cartilage": Tissue(110, 15),
    "pulmonary_vessel": Tissue(60, 10),
}
"""Liver parenchyma and its vessels are in `difficulty`, because they determine how difficult the task is."""


def draw_tissues(rng: np.random.Generator) -> dict[str, float]:
    """Draw a patient's HU of each tissue, within two standard deviations of the mean."""
    return {
        name: float(tissue.mean + tissue.spread * np.clip(rng.standard_normal(), -2, 2))
        for name, tissue in TISSUES.items()
    }
