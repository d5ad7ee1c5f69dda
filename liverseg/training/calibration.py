"""Temperature scaling of the lesion types (Guo et al., ICML 2017), fitted on validation patients.

A network with 60 % accuracy tends to predict with 90 % confidence. Dividing its type logits by one number, the
temperature, maximises the likelihood of the validation lesions and hardly changes which type is the likeliest.
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
from scipy.ndimage import label as connected_components
from scipy.optimize import minimize_scalar

from liverseg.labels import JOINT_LABELS, LESION
from liverseg.networks import SlabNetwork, read_record, read_weights, save_state
from liverseg.utils.distributed import all_gather, is_rank_zero
from liverseg.utils.tensors import channel_argmax

__all__ = ["TypeTemperature", "fit_temperature"]

_MIN_LESIONS = 20
"""Fewer lesions do not determine a probability; the temperature stays 1."""
_RANGE = (0.5, 10.0)
"""The lower bound keeps a few lesions that are all classified correctly from giving certainty."""


class TypeTemperature:
    """Handler that fits the temperature of the best weights at the end of a training and writes it into their record.

    Attach it to the trainer after `BestWeights`. The fit uses the lesions that the network outlines on a validation
    slab and that overlap a true one; their pixels vote, as the voxels do at inference. Each lesion counts once,
    whatever its area, and a lesion of a volume once on each of its slices. In distributed training the lesions of all
    processes are used, and the first process writes.

    Args:
        network: the trained network; its weights are the same afterwards.
        path: `.pt` file of the best weights, with its record.
        validator: engine that runs over the validation slabs; its epoch and scores are the same afterwards.
    """

    def __init__(self, network: SlabNetwork, path: str | Path, validator: Evaluator) -> None:
        self.network = network
        self.path = Path(path)
        self.validator = validator
        self._logits: list[np.ndarray] = []
        self._types: list[int] = []

    def attach(self, engine: Engine) -> None:
        """Fit after the last epoch, before its checkpoint is saved."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.end_epoch)
        engine.add_event_handler(Events.COMPLETED, self.fit_if_missing)

    def end_epoch(self, engine: Engine) -> None:
        """Fit if no epoch follows."""
        if engine.should_terminate or engine.state.epoch == engine.state.max_epochs:
            self(engine)

    def fit_if_missing(self, engine: Engine) -> None:
        """Fit at the end of a training without an epoch left, such as one resumed with less patience.

        A finished training that is started again has a temperature already, unless it is exactly 1.
        """
        record = read_record(self.path) if self.path.exists() else None
        if record is not None and record.type_temperature == 1:
            self(engine)

    def __call__(self, engine: Engine) -> None:
        """Fit the temperature and write the record."""
        record = read_record(self.path)
        if record is None or len(record.labels) != len(JOINT_LABELS):
            return  # the network's map has no types
        best = read_weights(self.path)
        last = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        self._logits, self._types = [], []
        validated = self.validator.state
        epoch, scores = validated.epoch, dict(validated.metrics)  # of the last epoch, which later handlers write
        handle = self.validator.add_event_handler(Events.ITERATION_COMPLETED, self.update)
        try:
            self.network.load_state_dict(best, strict=False)  # it has no auxiliary heads
            self.validator.run()
        finally:
            handle.remove()
            self.network.load_state_dict(last)
            validated.epoch, validated.metrics = epoch, scores
        gathered = all_gather((self._logits, self._types))
        self._logits = [lesion for logits, _ in gathered for lesion in logits]
        self._types = [lesion_type for _, types in gathered for lesion_type in types]
        temperature = fit_temperature(self._logits, self._types)
        if is_rank_zero() and temperature != record.type_temperature:
            save_state(self.path, best, replace(record, type_temperature=temperature))
        logging.getLogger(__name__).info("type temperature %.3f from %d lesions", temperature, len(self._types))

    def update(self, engine: Engine) -> None:
        """Collect the lesions of the last validated batch."""
        output: Any = engine.state.output
        maps = output[CommonKeys.PRED].detach().float()
        true = torch.as_tensor(output[CommonKeys.LABEL])[:, 0].cpu().numpy()
        predicted = channel_argmax(maps).cpu().numpy() >= LESION
        for row in range(len(predicted)):
            components, count = connected_components(predicted[row])
            for number in range(1, count + 1):
                pixels = components == number
                types = true[row][pixels]
                types = types[(types >= LESION) & (types < len(JOINT_LABELS))].astype(int)
                if len(types):
                    self._logits.append(maps[row, LESION:][:, torch.from_numpy(pixels)].T.cpu().numpy())
                    self._types.append(int(np.bincount(types).argmax()) - LESION)


def fit_temperature(logits: list[np.ndarray], types: list[int]) -> float:
    """Return the temperature that maximises the likelihood of lesions of known types.

    It is 1 if there are fewer than 20 lesions or only one type.

    Args:
        logits: type logits of each lesion's pixels, (pixels, types); the lesion's probabilities are the mean of the
            pixels' softmax.
        types: index of each lesion's true type.
    """
    if len(types) < _MIN_LESIONS or len(set(types)) < 2:
        return 1.0
    lesion = np.repeat(np.arange(len(logits)), [len(rows) for rows in logits])
    pixels = np.array([len(rows) for rows in logits])
    stacked = torch.from_numpy(np.concatenate(logits)).double()
    true = stacked.new_tensor(types, dtype=torch.long)[torch.from_numpy(lesion)]

    def negative_log_likelihood(log_temperature: float) -> float:
        of_pixels = torch.softmax(stacked / np.exp(log_temperature), dim=1).gather(1, true[:, None])[:, 0]
        of_lesions = np.bincount(lesion, of_pixels.numpy(), minlength=len(pixels)) / pixels
        return float(-np.log(np.maximum(of_lesions, 1e-12)).mean())

    fit = minimize_scalar(negative_log_likelihood, bounds=tuple(np.log(_RANGE)), method="bounded")
    return round(float(np.exp(fit.x)), 4)
