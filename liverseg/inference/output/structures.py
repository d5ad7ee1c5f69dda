"""The structures of a result, liver and lesions, as segmentations with one entry for each of them list them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from liverseg.inference.lesions import LesionMap
from liverseg.labels import LIVER, Label

__all__ = ["Structure", "list_structures"]


@dataclass(frozen=True)
class Structure:
    """The liver or a lesion.

    Attributes:
        lesion_id: id of the lesion; 0 for the liver.
        name: type and id, such as "metastasis 3", or "liver".
        label: row of the label table.
    """

    lesion_id: int
    name: str
    label: Label


def list_structures(lesions: LesionMap, labels: Sequence[Label]) -> list[Structure]:
    """Return the liver and each lesion in order of id; nothing if there is neither liver nor lesion.

    Args:
        lesions: the lesion map.
        labels: its label table.

    Raises:
        ValueError: if a lesion's label is missing in the table.
    """
    by_index = {label.index: label for label in labels}
    types = list(map(int, lesions.types))
    if unknown := {*types} - {*by_index}:
        raise ValueError(f"lesions of labels {sorted(unknown)}, which the label table does not have")
    if not lesions.inside.any():
        return []
    found = [
        Structure(number, f"{by_index[kind].name} {number}", by_index[kind]) for number, kind in enumerate(types, 1)
    ]
    return [Structure(0, by_index[LIVER].name, by_index[LIVER]), *found]
