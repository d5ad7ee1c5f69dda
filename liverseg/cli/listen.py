"""`liverseg listen`: a DICOM node that computes the studies it receives and sends the results."""

from __future__ import annotations

import argparse
import ipaddress
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from liverseg.cli.arguments import seconds, some_path
from liverseg.cli.inference_arguments import add_inference_arguments, inference_overrides
from liverseg.errors import ExitCode, UsageError, one_line, suggest
from liverseg.pacs.settings import OTHER_OBJECTS, SUMMARIES, NodeSettings, RemoteNode

__all__ = ["add_arguments", "run"]

_DEFAULTS = {name: field.default for name, field in NodeSettings.__dataclass_fields__.items()}
_LISTS = ("allow_ae", "allow_address")
_FLAG_VALUES = {"true": True, "True": True, "false": False, "False": False}
_NOT_IN_CONFIG = ("config", "check", "debug", "folder", "help")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments. Defaults are None, so that a config's values are known from them."""
    parser.add_argument("folder", type=some_path, help="folder for received studies, results and logs")
    parser.add_argument("--config", type=some_path, help="YAML file with the options below, such as port: 104")
    parser.add_argument("--check", action="store_true", help="send a C-ECHO to the running node and count its studies")

    node = parser.add_argument_group("node")
    node.add_argument("--ae-title", help=_default("AE title of this node", "ae_title"))
    node.add_argument("--address", help=_default("local address to listen at; 0.0.0.0 for all", "address"))
    node.add_argument("--port", type=int, help=_default("TCP port", "port"))
    node.add_argument(
        "--quiet-seconds",
        type=seconds,
        help=_default("a study is complete after this time without an instance", "quiet_seconds"),
    )
    node.add_argument(
        "--others",
        choices=OTHER_OBJECTS,
        help="objects that are not CT: refuse (default), or ignore: answer with a warning and do not keep them",
    )
    node.add_argument("--retry-failed", action="store_true", default=None, help="try failed studies again")

    results = parser.add_argument_group("results")
    results.add_argument("--destination", metavar="AE@HOST:PORT", help="send SEG and SR there (default: keep them)")
    results.add_argument("--summary", choices=SUMMARIES, help="also send the picture (default: none)")
    results.add_argument(
        "--commit", action=argparse.BooleanOptionalAction, help="ask the destination for storage commitment"
    )
    results.add_argument("--send-days", type=float, help=_default("give up sending after these days", "send_days"))
    results.add_argument("--keep-days", type=float, help="delete studies this many days after they were sent")

    access = parser.add_argument_group("access")
    access.add_argument("--allow-ae", action="append", metavar="AE", help="AE title that may connect; may be repeated")
    access.add_argument(
        "--allow-address", action="append", metavar="NET", help="address or network that may connect; may be repeated"
    )
    access.add_argument("--tls-cert", type=some_path, help="certificate (PEM): accept only TLS")
    access.add_argument("--tls-key", type=some_path, help="its key (PEM, without password)")
    access.add_argument("--tls-ca", type=some_path, help="authorities (PEM): peers need a certificate of theirs")
    access.add_argument(
        "--destination-tls", action=argparse.BooleanOptionalAction, help="connect to the destination by TLS"
    )

    limits = parser.add_argument_group("limits")
    limits.add_argument("--max-associations", type=int, help=_default("associations at a time", "max_associations"))
    limits.add_argument("--max-pdu", type=int, help=_default("bytes of a PDU", "max_pdu"))
    limits.add_argument("--max-instances", type=int, help=_default("instances of a study", "max_instances"))
    limits.add_argument("--max-study-gb", type=float, help=_default("GiB of a study", "max_study_gb"))
    limits.add_argument(
        "--min-free-gb", type=float, help=_default("refuse instances if fewer GiB are free", "min_free_gb")
    )
    limits.add_argument("--case-timeout", type=seconds, help="seconds after which a case has failed (default 3600)")
    limits.add_argument("--grace", type=seconds, help="seconds to finish current work at the end (default 20)")
    limits.add_argument("--workers", type=int, help="cases at a time (default 1)")
    limits.add_argument("--cpus", type=float, help="processors of each worker (default: an equal share)")
    add_inference_arguments(parser.add_argument_group("inference"))  # type: ignore[arg-type]


def _default(text: str, name: str) -> str:
    value = _DEFAULTS[name]
    return f"{text} (default {f'{value:g}' if isinstance(value, float) else value})"


def run(args: argparse.Namespace) -> ExitCode:
    """Run the subcommand and return its exit code."""
    from liverseg.batch.workers import TimeLimits
    from liverseg.pacs.node import check_node, end_process, run_node

    if args.debug:
        os.environ["LIVERSEG_DEBUG"] = "1"
    if args.config is not None:
        _merge_config(args)
    settings = _settings(args)
    if args.check:
        check_node(settings)
        return ExitCode.DONE
    overrides = inference_overrides(args)
    overrides.pop("keep_identifiers")  # one of the node's settings
    if settings.destination is not None and args.dicom is False:
        raise UsageError("--no-dicom, but results are sent as DICOM: leave out --no-dicom or --destination")
    if settings.summary != "none" and args.preview is False:
        raise UsageError("--no-preview, but --summary sends the preview: leave one of them out")
    limits = TimeLimits()
    run_node(
        settings,
        weights=args.weights,
        bundle=args.bundle,
        workers=args.workers,
        cpus=args.cpus,
        limits=TimeLimits(case=args.case_timeout or limits.case, grace=args.grace or limits.grace),
        retry_failed=bool(args.retry_failed),
        **overrides,
    )
    end_process(ExitCode.DONE)
    return ExitCode.DONE


def _settings(args: argparse.Namespace) -> NodeSettings:
    given: dict[str, Any] = {name: getattr(args, name) for name in _DEFAULTS if getattr(args, name) is not None}
    given |= {name: tuple(given[name]) for name in _LISTS if name in given}
    if "destination" in given:
        given["destination"] = RemoteNode.parse(given["destination"])
    if "allow_address" in given:
        given["allow_address"] = tuple(map(_network, given["allow_address"]))
    return NodeSettings(**given)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise UsageError(
            f"allow-address {text!r}; an address or a network is needed, such as 10.0.0.5 or 10.0.0.0/24"
        ) from None


class _ConfigParser(argparse.ArgumentParser):
    """Parses the options of a config; its errors name the file."""

    path: Path

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.path}: {message}")


def _merge_config(args: argparse.Namespace) -> None:
    """Set the options that the command line does not give from the config.

    Raises:
        UsageError: if the config cannot be read, or has an unknown option or a wrong value.
    """
    import yaml

    try:
        # all values as text, as on a command line: YAML would read the AE title 0123 as 83, and NO as false
        content = yaml.load(args.config.read_text(encoding="utf-8"), yaml.BaseLoader) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{args.config}: cannot be read as YAML ({one_line(error)})") from error
    parser = _ConfigParser(add_help=False, allow_abbrev=False)
    parser.path = args.config
    add_arguments(parser)
    options = {option[2:]: action for action in parser._actions for option in action.option_strings}
    names = {name for name in options if not name.startswith("no-")} - {*_NOT_IN_CONFIG}
    if not isinstance(content, Mapping):
        raise UsageError(f"{args.config}: options and values are needed, such as port: 104")
    words: list[str] = []
    for name, value in content.items():
        if name not in names:
            match = suggest(str(name), names)
            raise UsageError(
                f"{args.config}: unknown option {str(name)!r}; "
                f"{f'did you mean {match}?' if match else 'the options of liverseg listen are allowed'}"
            )
        words += _words(args.config, str(name), value, options[name])
    for name, value in vars(parser.parse_args([str(args.folder), *words])).items():
        if getattr(args, name, None) is None:
            setattr(args, name, value)


def _words(config: Path, name: str, value: Any, option: argparse.Action) -> Sequence[str]:
    """Return an option of a config as words of a command line.

    Raises:
        UsageError: if the value is of another kind than the option's.
    """
    if option.nargs == 0:  # a flag
        if not isinstance(value, str) or value not in _FLAG_VALUES:
            raise UsageError(f"{config}: {name} is {value!r}; true or false is needed")
        negation = [f"--no-{name}"] if f"--no-{name}" in option.option_strings else []
        return [f"--{name}"] if _FLAG_VALUES[value] else negation
    values = value if isinstance(value, list) and name.replace("-", "_") in _LISTS else [value]
    if not all(isinstance(item, str) and item for item in values):
        kind = "values are" if name.replace("-", "_") in _LISTS else "one value is"
        raise UsageError(f"{config}: {name} is {value!r}; {kind} needed")
    return [f"--{name}={item}" for item in values]
