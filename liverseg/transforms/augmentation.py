"""A chain of random transforms for the slabs of a training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.transforms import Compose, Randomizable

from liverseg.errors import UsageError

__all__ = ["SlabAugmentation"]


class SlabAugmentation(Compose):
    """MONAI's `Compose` of random transforms that share one stream of random numbers.

    `Compose` seeds each transform with a number from its own stream. Here all transforms draw from one stream, in
    order, so a transform that is appended does not change the draws of the others, and a single transform draws as it
    does without a chain.

    Args:
        transforms: random dictionary transforms with `arguments()`, in order; None is skipped.

    Raises:
        UsageError: if an element is not such a transform.
    """

    def __init__(self, transforms: Sequence[Any]) -> None:
        transforms = [transform for transform in transforms if transform is not None]
        for transform in transforms:
            if not (isinstance(transform, Randomizable) and callable(getattr(transform, "arguments", None))):
                raise UsageError(
                    f"augmentation: {transform!r} is not a random transform of liverseg.transforms; give a mapping "
                    "with _target_, or null for none"
                )
        super().__init__(transforms)
        self.arguments()  # raises early if names collide

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> SlabAugmentation:
        """Set the stream of random numbers that all transforms share."""
        Randomizable.set_random_state(self, seed, state)
        for transform in self.transforms:
            transform.set_random_state(state=self.R)
        return self

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of all transforms as JSON values.

        Raises:
            ValueError: if two transforms have an argument of the same name.
        """
        merged: dict[str, Any] = {}
        for transform in self.transforms:
            arguments = transform.arguments()
            if duplicates := merged.keys() & arguments.keys():
                raise ValueError(
                    f"augmentation: {', '.join(sorted(duplicates))} belongs to two transforms of the chain"
                )
            merged |= arguments
        return merged
