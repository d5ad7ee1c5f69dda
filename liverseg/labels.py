"""The label table: index, name, colour and SNOMED CT code of every class of the networks.

There are two versions: five channels for the joint network, and three for the pre-training network, in which every
lesion type is `lesion`.
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
        snomed_code: SNOMED CT concept id; None if there is nothing to code.
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
Okabe-Ito palette, which colour-blind readers can distinguish."""

PRETRAIN_LABELS: tuple[Label, ...] = (
    _BACKGROUND,
    _LIVER,
    Label(2, "lesion", (213, 94, 0), "300331000", "Lesion of liver"),
)
"""Contract of the pre-training network and of LiTS: 0 background, 1 liver, 2 lesion."""

INDETERMINATE = Label(len(JOINT_LABELS), "indeterminate", (204, 121, 167), "300331000", "Lesion of liver")
"""A lesion whose likeliest type is not likely enough. Networks and data lists do not have this label, only results do,
after the labels of the joint network."""

LIVER: int = _LIVER.index
LESION: int = 2
"""First lesion label in both tables: every label value at or above it is a lesion."""

LESION_TYPES: tuple[str, ...] = tuple(label.name for label in JOINT_LABELS[LESION:])

FACE_CONNECTIVITY: Final[dict[int, Literal[4, 6]]] = {2: 4, 3: 6}
"""Connectivity of lesions by number of dimensions: voxels that share a face, or pixels that share an edge, are one
lesion (the LiTS convention, Bilic et al. 2023)."""

LIVER_OR_LESION: int = 254
"""Value in a network's target where a partially labelled map does not distinguish lesions from liver. Not in files."""

UNTYPED_LESION: int = 255
"""Value in the joint network's target where the type of an outlined lesion is not known. Not in files."""


def label_names(labels: tuple[Label, ...]) -> tuple[str, ...]:
    """Return the names of a label table in channel order."""
    return tuple(label.name for label in labels)


def is_lesion(target: torch.Tensor) -> torch.Tensor:
    """Return where a target holds a lesion of any type; False where that is not known.

    Args:
        target: label values, including `LIVER_OR_LESION` and `UNTYPED_LESION`, any shape.
    """
    return (target >= LESION) & (target != LIVER_OR_LESION)


def labels_for(num_channels: int) -> tuple[Label, ...]:
    """Return the label table of a network with `num_channels` output channels.

    Raises:
        ValueError: if no table has that many rows.
    """
    for table in (PRETRAIN_LABELS, JOINT_LABELS):
        if len(table) == num_channels:
            return table
    raise ValueError(f"no label table has {num_channels} channels; there are tables of 3 (pre-training) and 5 (joint)")


def result_labels(num_channels: int) -> tuple[Label, ...]:
    """Return the label table of a network's results: its own, followed by `INDETERMINATE` if the network types lesions.

    Args:
        num_channels: output channels of the network.

    Raises:
        ValueError: as `labels_for`.
    """
    labels = labels_for(num_channels)
    return (*labels, INDETERMINATE) if labels is JOINT_LABELS else labels
