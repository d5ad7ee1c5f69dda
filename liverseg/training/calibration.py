"""Probabilities of lesion types that mean what they say: one temperature, fitted on validation patients.

A network that is right in six of ten lesions tends to be sure of nine. Its type logits are divided by one number, the
temperature, chosen so that the probabilities of validation lesions become as likely as they can (Guo et al., ICML
2017); which type is the likeliest hardly changes.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator
from monai.utils import CommonKeys
from scipy.ndimage import label as connected
from scipy.optimize import minimize_scalar

from liverseg.labels import JOINT_LABELS, LESION
from liverseg.networks import SlabNetwork, read_record, read_weights, save_state
from liverseg.utils.distributed import all_gather, is_rank_zero

__all__ = ["TypeTemperature", "fitted_temperature"]

_FEWEST_LESIONS = 20
"""Fewer say nothing about a probability; the temperature stays 1."""
_RANGE = (0.5, 10.0)
"""A few lesions that are all named rightly would ask for certainty."""


class TypeTemperature:
    """When a training has ended, fit the temperature of its best weights and write it into their record.

    Attach it to the trainer behind `BestWeights`. The lesions are those the network outlines on a validation slab and
    that overlap a true one, by the vote of their pixels, as inference lets voxels vote. Each counts once, whatever its
    area; one of a volume counts on each of its slices. Several processes put theirs together, and the first one writes.

    Args:
        network: what was trained; it leaves with the weights it came with.
        path: `.pt` file of the best weights, with its record.
        validator: runs over the validation slabs.
    """

    def __init__(self, network: SlabNetwork, path: str | Path, validator: Evaluator) -> None:
        self.network = network
        self.path = Path(path)
        self.validator = validator
        self._logits: list[np.ndarray] = []
        self._types: list[int] = []
        self._learnt = False

    def attach(self, engine: Engine) -> None:
        """Fit after the last epoch; a finished training that is started again has none, and is left as it is."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.note_epoch)
        engine.add_event_handler(Events.COMPLETED, self)

    def note_epoch(self, engine: Engine) -> None:
        """Something has been learnt since the weights were last looked at."""
        self._learnt = True

    def __call__(self, engine: Engine) -> None:
        """Fit, and write the record anew."""
        record = read_record(self.path) if self._learnt else None
        if record is None or len(record.labels) != len(JOINT_LABELS):
            return  # the types are not read off a map
        best = read_weights(self.path)
        last = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        self._logits, self._types = [], []
        looking = self.validator.add_event_handler(Events.ITERATION_COMPLETED, self.look)
        try:
            self.network.load_state_dict(best, strict=False)  # the auxiliary heads are not in it
            self.validator.run()
        finally:
            looking.remove()
            self.network.load_state_dict(last)
        parts = all_gather((self._logits, self._types))
        self._logits = [lesion for logits, _ in parts for lesion in logits]
        self._types = [name for _, types in parts for name in types]
        temperature = fitted_temperature(self._logits, self._types)
        if is_rank_zero() and temperature != record.type_temperature:
            save_state(self.path, best, replace(record, type_temperature=temperature))
        logging.getLogger(__name__).info("type temperature %.3f from %d lesions", temperature, len(self._types))

    def look(self, engine: Engine) -> None:
        """Take the lesions of the batch just validated."""
        output: Any = engine.state.output
        maps = output[CommonKeys.PRED].detach().float()
        true = torch.as_tensor(output[CommonKeys.LABEL])[:, 0].cpu().numpy()
        found = maps.argmax(dim=1).cpu().numpy() >= LESION
        for row in range(len(found)):
            parts, count = connected(found[row])
            for number in range(1, count + 1):
                pixels = parts == number
                types = true[row][pixels]
                types = types[(types >= LESION) & (types < len(JOINT_LABELS))].astype(int)
                if len(types):
                    self._logits.append(maps[row, LESION:][:, torch.from_numpy(pixels)].T.cpu().numpy())
                    self._types.append(int(np.bincount(types).argmax()) - LESION)


def fitted_temperature(logits: list[np.ndarray], types: list[int]) -> float:
    """The temperature under which lesions of known types are likeliest; 1 where there are too few or of one type alone.

    Args:
        logits: of each lesion its pixels' type logits, (pixels, types); the lesion's probabilities are the mean of the
            pixels' softmax.
        types: index of each lesion's true type.
    """
    if len(types) < _FEWEST_LESIONS or len(set(types)) < 2:
        return 1.0
    lesion = np.repeat(np.arange(len(logits)), [len(rows) for rows in logits])
    pixels = np.array([len(rows) for rows in logits])
    stacked = torch.from_numpy(np.concatenate(logits)).double()
    own = stacked.new_tensor(types, dtype=torch.long)[torch.from_numpy(lesion)]

    def surprise(log_temperature: float) -> float:
        of_type = torch.softmax(stacked / np.exp(log_temperature), dim=1).gather(1, own[:, None])[:, 0]
        votes = np.bincount(lesion, of_type.numpy(), minlength=len(pixels)) / pixels
        return float(-np.log(np.maximum(votes, 1e-12)).mean())

    fit = minimize_scalar(surprise, bounds=tuple(np.log(_RANGE)), method="bounded")
    return round(float(np.exp(fit.x)), 4)
