"""`liverseg datalist`: make a data list from a folder of images and labels; check, describe or join lists."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from liverseg.cli.arguments import add_list_arguments, hu_range, some_path
from liverseg.datalists import SLICE_MM, SOURCES, build_datalist, join_datalists
from liverseg.errors import ExitCode

__all__ = ["add_arguments", "run"]

_SPLIT = "No patient is in two parts. Lesion types and lesion load, read from the labels, are similar in all parts."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    tasks = parser.add_subparsers(
        dest="source",
        required=True,
        metavar="source",
        help="the layout of the folder; or check, describe or join",
    )
    for source, help_text in SOURCES.items():
        importer = tasks.add_parser(source, help=help_text, description=f"{help_text}. {_SPLIT}", allow_abbrev=False)
        importer.set_defaults(task=_import)
        writes_volumes = source == "slices"
        relative = "the list's folder, where volumes are written" if writes_volumes else "it"
        importer.add_argument("root", type=some_path, help=f"the folder; paths in the list are relative to {relative}")
        importer.add_argument("-o", "--output", type=some_path, help="the list to write (default: ROOT/datalist.json)")
        importer.add_argument("--name", help="the list's name (default: the folder's)")
        importer.add_argument("--folds", type=int, default=5, help="validation folds (default 5)")
        importer.add_argument(
            "--test",
            type=float,
            default=0.0,
            help="share of the labelled items held out for testing, by patient; 1: all (default 0)",
        )
        importer.add_argument("--seed", type=int, default=0, help="seed of the split (default 0)")
        importer.add_argument(
            "--folds-from", type=some_path, help="take every patient's fold from this list instead of splitting"
        )
        importer.add_argument("--from", dest="origin", help="origin of the data, written into the list")
        importer.add_argument("--licence", help="the data's licence, written into the list")
        importer.set_defaults(table=None, types=None, typed=False, labelled=None, hu=None, pixel_mm=None, slice_mm=None)
        if source == "lits":
            importer.add_argument(
                "--labelled",
                choices=["liver"],
                help="another data set in this layout, whose label maps outline the liver including its lesions, but "
                "no lesions; needs --name, --from and --licence",
            )
        if source == "slices":
            importer.add_argument(
                "--labelled",
                choices=["liver"],
                help="masks are 0, and 1 or 255 for the liver including its lesions (default: they have the values of "
                "the label table)",
            )
            _add_hu(importer)
            importer.add_argument("--pixel-mm", type=float, help="edge of a pixel in mm; needed for PNG and JPEG")
            importer.add_argument(
                "--slice-mm",
                type=float,
                help=f"slice distance in mm for files that do not have it (default {SLICE_MM:g})",
            )
        if source in ("cohort", "slices"):
            importer.add_argument("--table", help="the table's name in ROOT (default: slices.csv or slices.xlsx)")
            importer.add_argument(
                "--types", type=some_path, help="JSON or CSV that maps your type names to cyst, hemangioma, metastasis"
            )
        if source == "ircadb":
            importer.add_argument(
                "--typed",
                action="store_true",
                help="keep only patients whose lesions are all cysts, for the joint bundle",
            )
    _add_join(tasks)
    check = _add_list_task(tasks, "check", "list all defects of a list's files; exit code 1 on errors")
    check.set_defaults(task=_check)
    check.add_argument("--report", type=some_path, help="also write the table as CSV")
    check.add_argument("--against", type=some_path, help="another list, which must not have patients of this one")
    check.add_argument(
        "--repair",
        type=some_path,
        help="folder, outside that of the data, for corrected copies of labels with flipped or reset headers and a "
        "list of them",
    )
    describe = _add_list_task(tasks, "describe", "describe a list by numbers and a picture")
    describe.set_defaults(task=_describe)
    describe.add_argument("-o", "--output", type=some_path, help="folder for the tables as CSV and the picture")


def _add_join(tasks: Any) -> None:
    """Declare `join` and its arguments."""
    help_text = "join lists, with paths relative to one folder"
    join = tasks.add_parser(
        "join",
        help=help_text,
        description="Join lists with the same label table. Nothing is copied, and every item keeps its fold.",
        allow_abbrev=False,
    )
    join.set_defaults(task=_join)
    join.add_argument("lists", nargs="+", type=some_path, metavar="list", help="the lists, two or more")
    join.add_argument("-o", "--output", type=some_path, required=True, help="the list to write")
    join.add_argument("--name", help="its name (default: the names of the lists, joined by +)")
    join.add_argument(
        "--dataset-dirs",
        nargs="+",
        type=some_path,
        metavar="DIR",
        help="folder the paths of each list are relative to, in the order of the lists (default: each list's folder)",
    )
    join.add_argument("--root", type=some_path, help="folder the new paths are relative to (default: the new list's)")
    join.add_argument("--folds", type=int, help="split all training items again (default: every item keeps its fold)")
    join.add_argument("--seed", type=int, default=0, help="seed of that split (default 0)")
    join.add_argument(
        "--prefix-patients",
        action="store_true",
        help="prefix every patient's name with the list's name, if lists use the same name for different people",
    )
    join.add_argument(
        "--same-patients",
        action="store_true",
        help="patients of one name are the same people, as in a list and its copies with synthetic lesions",
    )


def _add_hu(parser: argparse.ArgumentParser) -> None:
    """Declare --hu, whose value may start with a minus sign."""
    parser.add_argument(
        "--hu",
        type=hu_range,
        metavar="LOW:HIGH",
        help="HU of the lowest and the highest pixel value, such as 0:255 or -100:240; needed for PNG and JPEG, in "
        "which HU outside are assumed to be clipped",
    )
    # without this, Python before 3.14 reads -100:240 as an option
    parser._negative_number_matcher = re.compile(r"-\.?\d")


def _add_list_task(tasks: Any, name: str, help_text: str) -> argparse.ArgumentParser:
    """Add the parser of a task that reads a list and its files."""
    description = f"{help_text.capitalize()}. Every file of the list is read."
    task: argparse.ArgumentParser = tasks.add_parser(name, help=help_text, description=description, allow_abbrev=False)
    add_list_arguments(task)
    return task


def run(args: argparse.Namespace) -> ExitCode:
    """Run the subcommand and return its exit code."""
    code: ExitCode = args.task(args)
    return code


def _import(args: argparse.Namespace) -> ExitCode:
    path = build_datalist(
        args.source,
        args.root,
        output=args.output,
        name=args.name,
        folds=args.folds,
        test=args.test,
        seed=args.seed,
        folds_from=args.folds_from,
        table=args.table,
        types=args.types,
        typed=args.typed,
        labelled=args.labelled,
        hu=args.hu,
        pixel_mm=args.pixel_mm,
        slice_mm=args.slice_mm,
        origin=args.origin,
        licence=args.licence,
    )
    print(path)
    if args.source != "slices":
        _print_dataset_dir(path, args.root)
    return ExitCode.DONE


def _join(args: argparse.Namespace) -> ExitCode:
    path = join_datalists(
        args.lists,
        args.output,
        name=args.name,
        dataset_dirs=args.dataset_dirs,
        root=args.root,
        folds=args.folds,
        seed=args.seed,
        prefix_patients=args.prefix_patients,
        same_patients=args.same_patients,
    )
    print(path)
    if args.root is not None:
        _print_dataset_dir(path, args.root)
    return ExitCode.DONE


def _print_dataset_dir(written: Path, folder: Path) -> None:
    """Print the option that commands need for a list outside its files' folder, on stderr: stdout has the path."""
    if written.parent.resolve() != folder.resolve():
        option = f"--dataset-dir {shlex.quote(str(folder))}"
        print(f"its paths are relative to {folder}: give {option} with it", file=sys.stderr)


def _check(args: argparse.Namespace) -> ExitCode:
    # imported here because connected components are slow to import and importers do not need them
    from liverseg.datalists.check import check_datalist, check_report, describe_findings, write_findings
    from liverseg.datalists.repair import check_repair_folder, repair_copies

    folder = args.dataset_dir or args.list.parent
    # checked before every file is read
    if args.repair:
        check_repair_folder(args.list, folder, args.repair)
    if args.report:
        check_report(args.report)
    findings = check_datalist(args.list, folder, against=args.against, workers=args.workers)
    print(describe_findings(findings))
    if args.report:
        print(write_findings(findings, args.report))
    if args.repair:
        repaired = repair_copies(args.list, folder, args.repair, findings)
        print(repaired)
        _print_dataset_dir(repaired, folder)
    return ExitCode.FAILED if (findings["level"] == "error").any() else ExitCode.DONE


def _describe(args: argparse.Namespace) -> ExitCode:
    from liverseg.datalists.describe import describe_datalist  # as above

    description = describe_datalist(args.list, args.dataset_dir or args.list.parent, workers=args.workers)
    print(description.table.to_string())
    print("Three numbers are the median and, in brackets, the 5 % and 95 % quantile.")
    if args.output:
        print(description.write(args.output))
    return ExitCode.DONE
