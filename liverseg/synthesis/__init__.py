"""Synthetic focal lesions, typed, to be painted into CTs of livers, of patients as of phantoms."""

from liverseg.synthesis.appearance import Appearance, Surroundings, alike, draw_appearance
from liverseg.synthesis.distributions import draw_count, draw_diameter, draw_patient, draw_section, draw_types
from liverseg.synthesis.lesion import Lesion, draw_lesion
from liverseg.synthesis.shape import Shape, draw_shape, smooth_min

__all__ = [
    "Appearance",
    "Lesion",
    "Shape",
    "Surroundings",
    "alike",
    "draw_appearance",
    "draw_count",
    "draw_diameter",
    "draw_lesion",
    "draw_patient",
    "draw_section",
    "draw_shape",
    "draw_types",
    "smooth_min",
]
