"""`liverseg train`: a bundle's training, evaluation or export, by the bundle's own command and with its own keys."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from liverseg.bundle.commands import OWN_CONFIGS, bundle_arguments
from liverseg.bundle.paths import find_bundle
from liverseg.errors import ExitCode, UsageError

__all__ = ["add_arguments", "run"]

_BUNDLES = {"pretrain": "liver_lesion_pretrain", "joint": "liver_lesion_joint"}
_CONFIGS = {"training": (["train"], []), "evaluating": (["train"], ["evaluate"]), "export": (["export"], [])}
"""By run, the configs before and after those that are asked for."""
_SEVERAL = "multi_gpu_train"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("bundle", choices=list(_BUNDLES), help="which network")
    parser.add_argument(
        "overrides",
        nargs=argparse.REMAINDER,
        metavar="--config NAME --run ID --processes N --KEY VALUE",
        help="a further config of the bundle, such as phantom, or a file of your own (may be repeated); training "
        "(default), evaluating or export; processes of torchrun, one a device; and the bundle's keys, as its command "
        "takes them: --dataset_dir /data/LiTS --epochs 30",
    )


def run(args: argparse.Namespace) -> ExitCode:
    """Run the verb: this process becomes the bundle's command, so that signals and exit code are its own."""
    parser = _OwnOptions(prog=f"liverseg train {args.bundle}", add_help=False, allow_abbrev=False)
    parser.add_argument("--config", action="append", default=[])
    parser.add_argument("--run", choices=list(_CONFIGS), default="training")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--debug", action="store_true")
    own, keys = parser.parse_known_args(args.overrides)
    if own.processes < 1:
        raise UsageError(f"{own.processes} processes; at least 1 is needed")
    before, after = _CONFIGS[own.run]
    folder = find_bundle(_BUNDLES[args.bundle])
    configs = [_config(folder / "configs", given) for given in own.config]
    asked_for = _SEVERAL in [Path(name).name for name in configs]
    several = [_SEVERAL] if own.processes > 1 and not asked_for else []
    words = bundle_arguments(own.run, [*before, *configs, *several, *after], folder)
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={own.processes}"]
    command = [sys.executable, *(torchrun if own.processes > 1 else []), *words, "--bundle_root", str(folder), *keys]
    environment = {**os.environ, "PYTHONWARNINGS": OWN_CONFIGS}
    if own.debug or args.debug:
        environment["LIVERSEG_DEBUG"] = "1"
    sys.stdout.flush()
    os.execve(command[0], command, environment)


def _config(folder: Path, given: str) -> str:
    """A config's name in the bundle, or a file's path without its ending."""
    if given.endswith(".yaml") and Path(given).is_file():
        return str(Path(given).absolute().with_suffix(""))
    name = given.removeprefix("configs/").removesuffix(".yaml")
    there = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
    if name not in there:
        raise UsageError(f"no config {given!r}: no such file, and {folder} has {', '.join(there)}")
    return name


class _OwnOptions(argparse.ArgumentParser):
    """Its errors are told as the command line tells them."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(message)
