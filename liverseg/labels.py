"""The one label table: index, name, colour and SNOMED CT code of everything the networks can say.

Two tables follow from it: five channels for the joint network, three for the pre-training one, where every lesion type
is simply `lesion`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    import torch

__all__ = [
    "FACE_CONNECTIVITY",
    "INDETERMINATE",
    "JOINT_LABELS",
    "LESION",
    "LESION_TYPES",
    "LIVER",
    "LIVER_OR_LESION",
    "PRETRAIN_LABELS",
    "UNTYPED_LESION",
    "Label",
    "is_lesion",
    "label_names",
    "labels_for",
    "result_labels",
]


@dataclass(frozen=True)
class Label:
    """One row of the label table.

    Attributes:
        index: value in a label map and channel of the network's output.
        name: lower-case English name, as written in data lists and tables.
        color: RGB, each 0 to 255, for previews and viewers.
        snomed_code: SNOMED CT concept id, None where there is nothing to code.
        snomed_meaning: the concept's preferred term.
    """

    index: int
    name: str
    color: tuple[int, int, int]
    snomed_code: str | None = None
    snomed_meaning: str | None = None


_BACKGROUND = Label(0, "background", (0, 0, 0))
_LIVER = Label(1, "liver", (221, 130, 101), "10200004", "Liver")

JOINT_LABELS: tuple[Label, ...] = (
    _BACKGROUND,
    _LIVER,
    Label(2, "cyst", (86, 180, 233), "85057007", "Cyst of liver"),
    Label(3, "hemangioma", (240, 228, 66), "93469006", "Hemangioma of liver"),
    Label(4, "metastasis", (213, 94, 0), "94381002", "Metastatic malignant neoplasm to liver"),
)
"""Contract of the joint network: 0 background, 1 liver, 2 cyst, 3 hemangioma, 4 metastasis. Lesion colours are from the
Okabe-Ito palette, which colour-blind readers can tell apart."""

PRETRAIN_LABELS: tuple[Label, ...] = (
    _BACKGROUND,
    _LIVER,
    Label(2, "lesion", (213, 94, 0), "300331000", "Lesion of liver"),
)
"""Contract of the pre-training network and of LiTS: 0 background, 1 liver, 2 lesion."""

INDETERMINATE = Label(len(JOINT_LABELS), "indeterminate", (204, 121, 167), "300331000", "Lesion of liver")
"""A lesion whose likeliest type is not likely enough. No network says it and no data list has it: it is in results
alone, behind the labels of the joint network."""

LIVER: int = _LIVER.index
LESION: int = 2
"""First lesion label in both tables: every label value at or above it is a lesion."""

LESION_TYPES: tuple[str, ...] = tuple(label.name for label in JOINT_LABELS[LESION:])

FACE_CONNECTIVITY: Final[dict[int, Literal[4, 6]]] = {2: 4, 3: 6}
"""Connectivity of lesions by number of dimensions: voxels that share a face, or pixels that share an edge, are one
lesion (the LiTS convention, Bilic et al. 2023)."""

LIVER_OR_LESION: int = 254
"""Stands in the target of a network where a partially labelled map does not tell lesions from liver. In no file."""

UNTYPED_LESION: int = 255
"""Stands in the target of the joint network where a lesion is outlined whose type is not known. In no file."""


def label_names(labels: tuple[Label, ...]) -> tuple[str, ...]:
    """The names of a label table in channel order."""
    return tuple(label.name for label in labels)


def is_lesion(target: torch.Tensor) -> torch.Tensor:
    """Where a target holds a lesion, of whatever type; where that is not known, it does not.

    Args:
        target: label values, `LIVER_OR_LESION` and `UNTYPED_LESION` among them, any shape.
    """
    return (target >= LESION) & (target != LIVER_OR_LESION)


def labels_for(num_channels: int) -> tuple[Label, ...]:
    """The label table a network with `num_channels` output channels speaks.

    Raises:
        ValueError: if no table has that many rows.
    """
    for table in (PRETRAIN_LABELS, JOINT_LABELS):
        if len(table) == num_channels:
            return table
    raise ValueError(f"no label table has {num_channels} channels; there are tables of 3 (pre-training) and 5 (joint)")


def result_labels(num_channels: int) -> tuple[Label, ...]:
    """The label table of results of a network with `num_channels` output channels: its own, and `INDETERMINATE` where
    it tells types apart.

    Raises:
        ValueError: as `labels_for`.
    """
    labels = labels_for(num_channels)
    return (*labels, INDETERMINATE) if labels is JOINT_LABELS else labels
