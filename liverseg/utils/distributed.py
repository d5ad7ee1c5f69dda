"""Distributed training: process group, rank, barriers, error reporting.

torchrun starts the processes and ends all of them when one fails. Without torchrun, the functions act as in a group of
one process.
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

_TORCHRUN_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_OVERLAY = "configs/multi_gpu_train.yaml"


def init_process_group(device: torch.device | str, wait_minutes: float) -> torch.device:
    """Join the process group of this training and return the device of this process.

    GPUs use NCCL, one for each process; CPUs use gloo, with the processors divided between the processes. All
    processes but the first log only warnings.

    Args:
        device: a CPU or a GPU without index.
        wait_minutes: time a process waits for another before it gives up, as while that one reads volumes.

    Raises:
        UsageError: if torchrun has not started this process, or there are fewer GPUs than processes.
    """
    missing = [name for name in _TORCHRUN_VARIABLES if name not in os.environ]
    if missing:
        raise UsageError(
            f"{_OVERLAY} is for processes that torchrun starts, and there is no {missing[0]} in the environment; start "
            "with torchrun --standalone --nproc_per_node=2 -m monai.bundle, not with python, or leave it out"
        )
    device = torch.device(device)
    local_rank = int(os.environ["LOCAL_RANK"])
    if device.type == "cuda":
        if device.index:
            raise UsageError(f"device {device}: each process takes the GPU of its local rank; take auto, cuda or cpu")
        count = torch.cuda.device_count()
        if int(os.environ["LOCAL_WORLD_SIZE"]) > count:
            raise UsageError(
                f"{os.environ['LOCAL_WORLD_SIZE']} processes on a machine of {count} GPUs; use "
                f"--nproc_per_node={count} or fewer"
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(available_cpus())  # torchrun sets one thread for each process
    if not distributed.is_initialized():
        hook = sys.excepthook
        distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            timeout=timedelta(minutes=wait_minutes),
            device_id=device if device.type == "cuda" else None,
        )
        sys.excepthook = hook  # torch wraps it in a hook that loses the message
    if not is_rank_zero():
        logging.getLogger().setLevel(logging.WARNING)
    return device


def destroy_process_group() -> None:
    """Leave the process group at the end of training."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def check_torchrun() -> None:
    """Refuse several processes of torchrun without a process group.

    Raises:
        UsageError: if there are any: each would train for itself, and all would write to the same files.
    """
    count = _torchrun_processes()
    if count > 1 and not distributed.is_initialized():
        raise UsageError(
            f"torchrun has started {count} processes, each of which would train for itself; add {_OVERLAY} as last "
            "config file, or start with python -m monai.bundle"
        )


def require_single_process() -> None:
    """Refuse several processes of torchrun, for work that cannot be distributed.

    Raises:
        UsageError: if there are any.
    """
    count = _torchrun_processes()
    if count > 1:
        raise UsageError(
            f"torchrun has started {count} processes, but only training is distributed; start with python -m "
            f"monai.bundle, without {_OVERLAY}"
        )


def _torchrun_processes() -> int:
    """Return the number of processes that torchrun has started; other launchers set WORLD_SIZE too, for other uses."""
    return int(os.environ["WORLD_SIZE"]) if {"TORCHELASTIC_RUN_ID", "WORLD_SIZE"} <= {*os.environ} else 1


def world_size() -> int:
    """Return the number of processes in the group."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_rank_zero() -> bool:
    """Return whether this is the process that writes files and reports progress."""
    return rank() == 0


def barrier() -> None:
    """Wait until all processes have reached this call."""
    if world_size() > 1:
        distributed.barrier()


def all_gather(own: Any) -> list[Any]:
    """Return the values of all processes, by rank; every process must call it.

    Args:
        own: value of this process; it must be picklable.
    """
    if world_size() == 1:
        return [own]
    gathered: list[Any] = [None] * world_size()
    distributed.all_gather_object(gathered, own)
    return gathered


def available_cpus() -> int:
    """Return the processors of this process: those it may run on, divided by torchrun's processes on this machine."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = os.environ.get("LOCAL_WORLD_SIZE", "1") if "TORCHELASTIC_RUN_ID" in os.environ else "1"
    return max(1, cpus // int(processes))


def report_once(line: str) -> bool:
    """Return whether this process should report a line: True in the first process of torchrun that asks.

    Used for errors that all processes raise. It asks torchrun's store, since there may be no process group yet, and
    returns True if the store cannot be reached.
    """
    if _torchrun_processes() > 1:
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
