"""Checkpoints: an interrupted training resumes where it stopped and ends as an uninterrupted one does."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

import liverseg
from liverseg.bundle.effective import NEUTRAL, earlier_configs, is_expression
from liverseg.errors import LiversegError, OutputError
from liverseg.training.optimisation import describe_optimizer, describe_schedule
from liverseg.utils.distributed import all_gather, is_rank_zero
from liverseg.utils.files import atomic_write

__all__ = ["RunCheckpoint"]

_FORMAT = 2
"""Format of the settings: 2 is `liverseg.bundle.config.training_settings`. Checkpoints without a number have the
settings that the configs listed by hand, see `_listed_settings`."""

_REMEDY = "choose another output_dir and ckpt_dir, or start over with --resume False"


class RunCheckpoint:
    """Save a checkpoint after every epoch, and resume from it before the first.

    Random state needs no saving: data order, augmentation and torch's generator are seeded from the epoch's number (see
    `EpochSeed` and `SlabDataset`). Attach it last to the trainer, so that an epoch's validation and schedule are done
    when it is saved. In a training of several processes, rank 0 saves and all load.

    Args:
        path: checkpoint file, replaced after every epoch.
        parts: objects to save by name, each with state_dict and load_state_dict: network, optimizer, scheduler,
            `BestWeights`.
        settings: settings of the run, JSON-able. A checkpoint with other settings is refused, so that no run continues
            as something else. Texts that begin with $ or @ are expressions of the config. They are compared only with
            those of the same version of liverseg, since another one may build the same objects by other names.
        resume: False ignores and replaces an existing checkpoint.
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
        """Load the checkpoint if there is one.

        Raises:
            LiversegError: if it cannot be read or is of a run with other settings.
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
            raise LiversegError(f"{self.path}: the checkpoint cannot be read; {_REMEDY}") from error
        if "format" not in saved:
            ours = _listed_settings(self.settings, self.parts, engine)
        else:
            ours = self.settings
            if saved.get("liverseg") != liverseg.__version__:
                settings, ours = _without_expressions(settings), _without_expressions(ours)
        difference = _first_difference(settings, ours)
        if difference is not None:
            name, *values = difference
            theirs, own = ("null" if value is None else repr(value) for value in values)
            raise LiversegError(
                f"{self.path}: the checkpoint is of a run with {name} {theirs}, this run has {own}; {_REMEDY}"
            )
        for name, part in self.parts.items():
            part.load_state_dict(saved["parts"][name])
        # ignite continues from here: see Engine.run
        engine.state.epoch = epoch
        engine.state.iteration = epoch * (engine.state.epoch_length or 0)
        logging.getLogger(__name__).info("resumed from %s after epoch %d", self.path, epoch)
        if "best" in self.parts:
            self.parts["best"].stop_if_due(engine)

    def save(self, engine: Engine) -> None:
        """Save the state after the epoch that has just ended.

        Raises:
            OutputError: if the file cannot be written.
        """
        if not is_rank_zero():
            return
        content = {
            "epoch": engine.state.epoch,
            "format": _FORMAT,
            "liverseg": liverseg.__version__,
            "settings": json.dumps(self.settings),
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
        }
        try:
            with atomic_write(self.path, "the checkpoint") as temporary:
                torch.save(content, temporary)
        except RuntimeError as error:  # torch reports a full disk as RuntimeError
            raise OutputError(f"{self.path}: the checkpoint cannot be written ({error})") from error


def _first_difference(theirs: Any, ours: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """Return the first key whose values differ, with both values, or None.

    A missing key counts as null, and null as False or as the neutral value of the key: a version without the key did
    what that value does.
    """
    if isinstance(theirs, list) and isinstance(ours, list) and any(isinstance(value, Mapping) for value in theirs):
        theirs, ours = dict(enumerate(theirs)), dict(enumerate(ours))
    if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        prefix = f"{name}::" if name else ""
        pairs = ((f"{prefix}{key}", theirs.get(key), ours.get(key)) for key in {**theirs, **ours})
        return next(filter(None, (_first_difference(old, new, key) for key, old, new in pairs)), None)
    if theirs is None and name in NEUTRAL and NEUTRAL[name] == ours:
        return None
    is_off = all(value is None or value is False for value in (theirs, ours))
    return None if is_off or theirs == ours else (name, theirs, ours)


def _without_expressions(settings: Any) -> Any:
    """Return settings without the texts that are expressions of a config."""
    if isinstance(settings, Mapping):
        return {key: _without_expressions(value) for key, value in settings.items() if not is_expression(value)}
    if isinstance(settings, list):
        return [_without_expressions(value) for value in settings if not is_expression(value)]
    return settings


def _listed_settings(settings: Mapping[str, Any], parts: Mapping[str, Any], engine: Engine) -> dict[str, Any]:
    """Return this run's settings as the configs listed them by hand before they were computed.

    Args:
        settings: this run's settings as they are now.
        parts: network, optimizer, lr_scheduler and, in the joint bundle, fine_tuner.
        engine: the trainer, whose dataset has the augmentation.
    """
    names = "strategy network datalist fold seed batch_size augmentation lesion_free repeats learning_rate head_factor"
    names += " type_head_factor optimizer lr_scheduler amp class_weights dice_weight type_weight balanced_types"
    names += " key_score liver_crop plan initialisation pretrain_weights carry_heads imagenet_weights hu_window"
    listed = {name: settings.get(name) for name in [*names.split(), "slab_spacing_mm", "pixel_mm"]}
    network = parts["network"].arguments()
    listed["network"] = {name: value for name, value in network.items() if name != "sum_types"}  # a key of its own
    loader: Any = engine.state.dataloader
    listed["augmentation"] = loader.dataset.transform.arguments()
    listed["optimizer"] = describe_optimizer(parts["optimizer"])
    listed["lr_scheduler"] = describe_schedule(parts["lr_scheduler"])
    if "fine_tuner" in parts:
        listed["plan"] = [str(stage) for stage in parts["fine_tuner"].plan]
    elif listed["initialisation"] == "scratch":
        listed["initialisation"] = None  # the pre-training had no other
    # keys that those versions did not have; in their checkpoints they count as null
    known = earlier_configs().keys("train")
    listed |= {key: value for key, value in settings.items() if key not in known}
    plain: dict[str, Any] = json.loads(json.dumps(listed, default=str))
    return plain
