"""Interrupted trainings go on where they stopped and end as if they had not."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from liverseg.errors import LiversegError
from liverseg.utils.distributed import all_gather, is_rank_zero
from liverseg.utils.files import atomic_write

__all__ = ["RunCheckpoint"]

_HOW_TO_GO_ON = "choose another output_dir and ckpt_dir, or start over with --resume False"


class RunCheckpoint:
    """Write a checkpoint after every epoch, and take one up before the first.

    Random state needs no saving: data order, augmentation and torch's generator are seeded from the epoch's number (see
    `EpochSeed` and `SlabDataset`). Attach it last to the trainer, so that an epoch's validation and schedule are done
    when it is saved. Of several processes the first one saves, and all of them take up what it saved.

    Args:
        path: checkpoint file, replaced whole after every epoch.
        parts: what to save under which name, each with state_dict and load_state_dict: network, optimizer, scheduler,
            `BestWeights`.
        settings: what the run was started with, JSON-able. A checkpoint of other settings is refused, so that no run
            goes on as something it is not.
        resume: False ignores, and replaces, a checkpoint that is there.
    """

    def __init__(
        self, path: str | Path, parts: Mapping[str, Any], settings: Mapping[str, Any], resume: bool = True
    ) -> None:
        self.path = Path(path)
        self.parts = dict(parts)
        self.settings = json.loads(json.dumps(dict(settings), default=str))
        self.resume = resume

    def attach(self, engine: Engine) -> None:
        """Load when the trainer starts, save when an epoch ends."""
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def load(self, engine: Engine) -> None:
        """Take up the checkpoint if there is one.

        Raises:
            LiversegError: if it cannot be read or belongs to a run with other settings.
        """
        found = self.resume and self.path.exists()
        if len({*all_gather(found)}) > 1:
            raise LiversegError(
                f"{self.path}: not every process sees this checkpoint; output_dir must be one folder for all"
            )
        if not found:
            return
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
            settings, epoch = json.loads(saved["settings"]), int(saved["epoch"])
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
            raise LiversegError(f"{self.path}: the checkpoint cannot be read; {_HOW_TO_GO_ON}") from error
        other = [key for key in {**settings, **self.settings} if settings.get(key) != self.settings.get(key)]
        if other:
            key = other[0]
            raise LiversegError(
                f"{self.path}: the checkpoint is of a run with {key} {settings.get(key)!r}, this run has "
                f"{self.settings.get(key)!r}; {_HOW_TO_GO_ON}"
            )
        for name, part in self.parts.items():
            part.load_state_dict(saved["parts"][name])
        # ignite counts on from here: see Engine.run
        engine.state.epoch = epoch
        engine.state.iteration = epoch * (engine.state.epoch_length or 0)
        logging.getLogger(__name__).info("resumed from %s after epoch %d", self.path, epoch)
        if "best" in self.parts:
            self.parts["best"].stop_if_due(engine)

    def save(self, engine: Engine) -> None:
        """Write the state after the epoch just ended.

        Raises:
            LiversegError: if the file cannot be written.
        """
        if not is_rank_zero():
            return
        content = {
            "epoch": engine.state.epoch,
            "settings": json.dumps(self.settings),
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
        }
        try:
            with atomic_write(self.path) as unfinished:
                torch.save(content, unfinished)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            raise LiversegError(f"{self.path}: the checkpoint cannot be written ({error})") from error
