"""One training in several processes: who they are, how they meet, wait for each other and tell their errors.

torchrun starts the processes and ends all of them when one fails. What is here works in a single process too, where
that process is the first of one.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from liverseg.bundle.validation import check_values
from liverseg.errors import UsageError
from liverseg.utils.files import sha256_text

__all__ = [
    "all_gather",
    "available_cpus",
    "barrier",
    "check_torchrun",
    "destroy_process_group",
    "init_process_group",
    "is_rank_zero",
    "rank",
    "report_once",
    "require_single_process",
    "world_size",
]

_OF_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_OVERLAY = "configs/multi_gpu_train.yaml"


def init_process_group(device: torch.device | str, wait_minutes: float) -> torch.device:
    """Meet the other processes of this training, and take the device of this one's number.

    On GPUs they talk by NCCL and each has its own; on the CPU by gloo, and the processors are shared out. Processes but
    the first log warnings alone.

    Args:
        device: a CPU or a GPU, whose number does not count.
        wait_minutes: how long a process waits for another before it gives up, e.g. while that one reads volumes.

    Raises:
        UsageError: if torchrun has not started this process, or there are fewer GPUs than processes.
    """
    check_values(wait_minutes=wait_minutes)
    missing = [name for name in _OF_TORCHRUN if name not in os.environ]
    if missing:
        raise UsageError(
            f"{_OVERLAY} is for processes that torchrun starts, and there is no {missing[0]} in the environment; begin "
            "with torchrun --standalone --nproc_per_node=2 -m monai.bundle, not with python, or leave it out"
        )
    device = torch.device(device)
    number = int(os.environ["LOCAL_RANK"])
    if device.type == "cuda":
        if device.index:
            raise UsageError(f"device {device}: each process takes the GPU of its own number; take auto, cuda or cpu")
        count = torch.cuda.device_count()
        if int(os.environ["LOCAL_WORLD_SIZE"]) > count:
            raise UsageError(
                f"{os.environ['LOCAL_WORLD_SIZE']} processes on a machine of {count} GPUs; say "
                f"--nproc_per_node={count} or fewer"
            )
        device = torch.device("cuda", number)
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(available_cpus())  # torchrun allows each process one alone
    if not distributed.is_initialized():
        hook = sys.excepthook
        distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            timeout=timedelta(minutes=wait_minutes),
            device_id=device if device.type == "cuda" else None,
        )
        sys.excepthook = hook  # torch puts one of its own in front, which loses the words of one that ends the program
    if not is_rank_zero():
        logging.getLogger().setLevel(logging.WARNING)
    return device


def destroy_process_group() -> None:
    """Part from the other processes, when all is done."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def check_torchrun() -> None:
    """Refuse to be one of several processes that torchrun has started and that have not met.

    Raises:
        UsageError: each would train for itself, and all of them write to the same files.
    """
    count = _started()
    if count > 1 and not distributed.is_initialized():
        raise UsageError(
            f"torchrun has started {count} processes, each of which would train for itself; add {_OVERLAY} as last "
            "config file, or begin with python -m monai.bundle"
        )


def require_single_process() -> None:
    """Refuse to be one of several processes that torchrun has started.

    Raises:
        UsageError: this is no work to be shared.
    """
    if _started() > 1:
        raise UsageError(
            f"torchrun has started {_started()} processes, but only training is shared; begin with python -m "
            f"monai.bundle, without {_OVERLAY}"
        )


def _started() -> int:
    """How many processes torchrun has started; other launchers set WORLD_SIZE for purposes of their own."""
    return int(os.environ["WORLD_SIZE"]) if {"TORCHELASTIC_RUN_ID", "WORLD_SIZE"} <= {*os.environ} else 1


def world_size() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """This one's number, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_rank_zero() -> bool:
    """Whether this is the process that writes and tells."""
    return rank() == 0


def barrier() -> None:
    """Go on when every process has come here."""
    if world_size() > 1:
        distributed.barrier()


def all_gather(own: Any) -> list[Any]:
    """What every process gives, by their numbers; all of them must ask.

    Args:
        own: anything that can be pickled.
    """
    if world_size() == 1:
        return [own]
    given: list[Any] = [None] * world_size()
    distributed.all_gather_object(given, own)
    return given


def available_cpus() -> int:
    """Processors for this process: those it may run on, shared out where torchrun has started several here."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    beside = os.environ.get("LOCAL_WORLD_SIZE", "1") if "TORCHELASTIC_RUN_ID" in os.environ else "1"
    return max(1, there // int(beside))


def report_once(line: str) -> bool:
    """Whether no other process of torchrun's has told this line: what is wrong for all is told once.

    Asked of torchrun's own store, since the processes may not have met yet; where it cannot be asked the line is told.
    """
    if _started() > 1:
        with suppress(Exception):
            store = distributed.TCPStore(
                os.environ["MASTER_ADDR"],
                int(os.environ["MASTER_PORT"]),
                is_master=False,
                timeout=timedelta(seconds=5),
            )
            start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            return store.add(f"liverseg/{start}/{sha256_text(line)}", 1) == 1
    return True
