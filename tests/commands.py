"""Bundle commands in a separate process, or in this one, which saves the time of the imports."""

import contextlib
import io
import logging
import os
import runpy
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import monai
import pytest
import torch

from liverseg.inference import find_bundle

PRETRAIN, JOINT = "liver_lesion_pretrain", "liver_lesion_joint"
TRAIN, EVALUATE, EXPORT, INFER = ("train", "phantom"), ("train", "phantom", "evaluate"), ("export",), ("inference",)
TINY = {"crop_size": 64, "batch_size": 8, "epochs": 3, "val_interval": 1, "device": "cpu", "progress": False}
"""Overrides with which a training of the phantom overlay takes seconds."""
_ONE_AT_A_TIME = threading.Lock()
"""Lock, because folder, arguments and streams belong to the process."""


class CommandOutput(NamedTuple):
    """Output of a command in the terminal."""

    code: int
    out: str
    err: str

    @property
    def errors(self):
        """Lines of stderr without MONAI's notice."""
        return [line for line in self.err.splitlines() if line and not line.startswith("parsing config_file ")]

    def refusal(self, code=1):
        """Check the exit code of a refused command and return its one line."""
        assert self.code == code, self.err
        (line,) = self.errors
        assert line.startswith("liverseg: ")
        return line


def bundle_process(bundle, run_id, configs, **overrides):
    """Start `python -m monai.bundle run RUN_ID ...` in the bundle's folder, with pipes for its output."""
    return _started(["-m", "monai.bundle", *_arguments(run_id, configs, overrides)], bundle)


def two_processes_started(bundle, configs, **overrides):
    """Start a training by torchrun in two processes, likewise."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return _started([*torchrun, "-m", "monai.bundle", *_arguments("training", configs, overrides)], bundle)


def _started(words, bundle):
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=find_bundle(bundle),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
    )


def run_bundle(bundle, run_id, configs, **overrides):
    """Run the same command in this process, with the same command line, folder, module and handling of errors."""
    out, err = io.StringIO(), io.StringIO()
    code = run_monai_bundle(_arguments(run_id, configs, overrides), find_bundle(bundle), out, err)
    return CommandOutput(code, out.getvalue(), err.getvalue())


def run_logged_in_process(command, folder, log, environment=None, errors_too=False, started=None, kept_open=()):
    """Replacement of `liverseg.bundle.commands.run_logged` that runs the command in this process, one at a time."""
    assert command[:3] == [sys.executable, "-m", "monai.bundle"]
    with _ONE_AT_A_TIME, pytest.MonkeyPatch.context() as patch, log.open("a", encoding="utf-8") as out:
        for name, value in (environment or {}).items():
            patch.setenv(name, value)
        return run_monai_bundle(command[3:], folder, out, out if errors_too else sys.stderr)


def run_monai_bundle(arguments, folder, out, err):
    """Run `python -m monai.bundle ARGUMENTS` in a folder, in this process, with other streams; return the exit code."""
    with state_put_back(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        os.chdir(folder)
        sys.argv = ["monai.bundle", *arguments]
        code = 0
        try:
            runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
        except SystemExit as stop:
            code = stop.code or 0
        except Exception as error:
            code = 1
            try:
                sys.excepthook(type(error), error, error.__traceback__)
            except SystemExit as stop:
                code = stop.code
    return int(code)


def train(bundle, tree, folder, **overrides):
    """Run a tiny training on a tree with its output in a folder, and weights in `models` in it."""
    run = {"dataset_dir": tree, "output_dir": folder, "ckpt_dir": folder / "models", **TINY}
    return run_bundle(bundle, "training", TRAIN, **{**run, **overrides})


def left_over(folder):
    """Return files below a folder, without complete volumes in the cache."""
    return [path for path in folder.rglob("*") if path.is_file() and not path.match("cache/[!.]*.slices")]


def _arguments(run_id, configs, overrides):
    files = "[" + ",".join(f"'configs/{name}.yaml'" for name in configs) + "]"
    words = ["run", run_id, "--config_file", files]
    for key, value in overrides.items():
        words += [f"--{key}", str(value)]
    return words


@contextlib.contextmanager
def state_put_back():
    """Use one thread, and at the end undo the changes that a bundle command makes in its process."""
    root = logging.getLogger()
    kept = sys.argv, sys.excepthook, sys.path[:], Path.cwd(), root.handlers[:], root.level
    threads, track_meta = torch.get_num_threads(), monai.data.get_track_meta()
    ignite = logging.getLogger("ignite").level
    torch.set_num_threads(1)
    try:
        yield
    finally:
        sys.argv, sys.excepthook, sys.path[:] = kept[:3]
        os.chdir(kept[3])
        root.handlers[:] = kept[4]
        root.setLevel(kept[5])
        logging.getLogger("ignite").setLevel(ignite)
        torch.set_num_threads(threads)
        monai.data.set_track_meta(track_meta)
        monai.utils.set_determinism(None)
