"""Synthetic typed focal lesions for CTs of livers, both of patients and of phantoms."""

from liverseg.synthesis.appearance import Appearance, Surroundings, draw_appearance, match_contrast
from liverseg.synthesis.distributions import draw_count, draw_diameter, draw_patient, draw_section, draw_types
from liverseg.synthesis.lesion import Lesion, draw_lesion
from liverseg.synthesis.shape import Shape, draw_shape, smooth_min

__all__ = [
    "Appearance",
    "Lesion",
    "Shape",
    "Surroundings",
    "draw_appearance",
    "draw_count",
    "draw_diameter",
    "draw_lesion",
    "draw_patient",
    "draw_section",
    "draw_shape",
    "draw_types",
    "match_contrast",
    "smooth_min",
]
