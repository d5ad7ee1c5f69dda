"""`liverseg train`: train, evaluate or export by a bundle's command and with the bundle's keys."""

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
"""For each run, the configs before and after those of --config."""
_MULTI_GPU = "multi_gpu_train"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument("bundle", choices=list(_BUNDLES), help="the network")
    parser.add_argument(
        "overrides",
        nargs=argparse.REMAINDER,
        metavar="--config NAME --run ID --processes N --KEY VALUE",
        help="config: another config of the bundle, such as phantom, or your own file (may be repeated); run: training "
        "(default), evaluating or export; processes: of torchrun, one per device; keys: those of the bundle, such as "
        "--dataset_dir /data/LiTS --epochs 30",
    )


def run(args: argparse.Namespace) -> ExitCode:
    """Run the subcommand. This process becomes the bundle's command, and so has its signals and exit code."""
    parser = _RaisingParser(prog=f"liverseg train {args.bundle}", add_help=False, allow_abbrev=False)
    parser.add_argument("--config", action="append", default=[])
    parser.add_argument("--run", choices=list(_CONFIGS), default="training")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--debug", action="store_true")
    options, keys = parser.parse_known_args(args.overrides)
    if options.processes < 1:
        raise UsageError(f"{options.processes} processes; at least 1 is needed")
    before, after = _CONFIGS[options.run]
    folder = find_bundle(_BUNDLES[args.bundle])
    configs = [_config(folder / "configs", given) for given in options.config]
    if options.processes > 1 and _MULTI_GPU not in [Path(name).name for name in configs]:
        configs.append(_MULTI_GPU)
    arguments = bundle_arguments(options.run, [*before, *configs, *after], folder)
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={options.processes}"]
    launcher = torchrun if options.processes > 1 else []
    command = [sys.executable, *launcher, *arguments, "--bundle_root", str(folder), *keys]
    environment = {**os.environ, "PYTHONWARNINGS": OWN_CONFIGS}
    if options.debug or args.debug:
        environment["LIVERSEG_DEBUG"] = "1"
    sys.stdout.flush()
    os.execve(command[0], command, environment)


def _config(folder: Path, given: str) -> str:
    """Return the name of a bundle's config, or the path of a file without its suffix."""
    if given.endswith(".yaml") and Path(given).is_file():
        return str(Path(given).absolute().with_suffix(""))
    name = given.removeprefix("configs/").removesuffix(".yaml")
    names = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
    if name not in names:
        raise UsageError(f"no config {given!r}: no such file, and {folder} has {', '.join(names)}")
    return name


class _RaisingParser(argparse.ArgumentParser):
    """An argument parser that raises usage errors."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(message)
