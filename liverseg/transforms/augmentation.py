"""The chain of random transforms that the training data set gives a slab."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.transforms import Compose, Randomizable

from liverseg.errors import UsageError

__all__ = ["SlabAugmentation"]


class SlabAugmentation(Compose):
    """MONAI's `Compose` of random transforms, with one stream of random numbers and with their arguments.

    `Compose` seeds every member anew, with a number from its own stream; here all draw from one stream, in order. So a
    member that is added behind the others leaves what they draw as it was, and one that is alone draws what it draws
    without a chain.

    Args:
        transforms: random dictionary transforms with `arguments()`, in order; None is left out.

    Raises:
        UsageError: if one of them is not such a transform.
    """

    def __init__(self, transforms: Sequence[Any]) -> None:
        members = [one for one in transforms if one is not None]
        for member in members:
            if not (isinstance(member, Randomizable) and callable(getattr(member, "arguments", None))):
                raise UsageError(
                    f"augmentation: {member!r} is not a random transform of liverseg.transforms; give a mapping with "
                    "_target_, or null for none"
                )
        super().__init__(members)
        self.arguments()

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> SlabAugmentation:
        """Give every member the same stream of random numbers."""
        Randomizable.set_random_state(self, seed, state)
        for member in self.transforms:
            member.set_random_state(state=self.R)
        return self

    def arguments(self) -> dict[str, Any]:
        """What all members draw from, as JSON holds it.

        Raises:
            ValueError: if two members have a name in common.
        """
        together: dict[str, Any] = {}
        for member in self.transforms:
            own = member.arguments()
            if twice := together.keys() & own.keys():
                raise ValueError(f"augmentation: {', '.join(sorted(twice))} belongs to two transforms of the chain")
            together |= own
        return together
