"""The cases of a tree of phantoms: file names, seeds and main lesion types."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from liverseg.phantom import difficulty as d
from liverseg.phantom.patient import Coverage

__all__ = ["Case", "cohort_cases", "lits_cases"]

_LITS, _COHORT = 1, 2
"""A word of every seed, so that the two trees never share a patient."""


@dataclass(frozen=True)
class Case:
    """One phantom to be written.

    Attributes:
        name: name of the patient.
        image, label, record: paths relative to the tree's root.
        seed: entropy of the case's seed sequence.
        matrix: in-plane pixels along one edge.
        coverage: range of the scan.
        main_type: type of the first lesion.
        typed: whether the label map has lesion types; otherwise every lesion is 2.
    """

    name: str
    image: str
    label: str
    record: str
    seed: tuple[int, ...]
    matrix: int
    coverage: Coverage
    main_type: str
    typed: bool

    def is_complete(self, root: Path) -> bool:
        """Whether image, label and record exist; each is written atomically, the record last."""
        return all((root / path).is_file() for path in (self.image, self.label, self.record))


def _main_types(count: int, words: tuple[int, ...]) -> list[str]:
    """Draw a type for each case; at every length, the counts are as close to the shares as whole numbers allow."""
    kinds = list(d.PATIENT_TYPES)
    shares = np.array([d.PATIENT_TYPES[kind] for kind in kinds])
    rng = np.random.default_rng(np.random.SeedSequence(words))
    counts = np.zeros(len(kinds))
    chosen = []
    for number in range(count):
        deficit = shares * (number + 1) - counts + 0.6 * rng.random(len(kinds))
        best = int(np.argmax(deficit))
        counts[best] += 1
        chosen.append(kinds[best])
    return chosen


def lits_cases(volumes: int, matrix: int, seed: int) -> list[Case]:
    """List the cases of a LiTS-like tree, numbered from 0."""
    return [
        Case(
            name=f"lits-{number:03d}",
            image=f"volume-{number}.nii.gz",
            label=f"segmentation-{number}.nii.gz",
            record=f"records/case-{number}.json",
            seed=(seed, _LITS, number),
            matrix=matrix,
            coverage=Coverage.ABDOMEN,
            main_type=kind,
            typed=False,
        )
        for number, kind in enumerate(_main_types(volumes, (seed, _LITS)))
    ]


def cohort_cases(patients: int, matrix: int, seed: int) -> list[Case]:
    """List the cases of a typed cohort, numbered from 1."""
    return [
        Case(
            name=(name := f"patient-{number:03d}"),
            image=f"images/{name}.nii.gz",
            label=f"labels/{name}.nii.gz",
            record=f"records/{name}.json",
            seed=(seed, _COHORT, number),
            matrix=matrix,
            coverage=Coverage.LIVER,
            main_type=kind,
            typed=True,
        )
        for number, kind in enumerate(_main_types(patients, (seed, _COHORT)), 1)
    ]
