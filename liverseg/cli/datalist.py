"""`liverseg datalist`: from a folder of images and labels to a data list with patients kept apart, and its check."""

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

_SPLIT = "Patients stay whole; lesion types and lesion load, read from the labels, are spread evenly over the parts."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    tasks = parser.add_subparsers(
        dest="source",
        required=True,
        metavar="source",
        help="a folder's layout; or check, describe or join lists",
    )
    for source, help_text in SOURCES.items():
        importer = tasks.add_parser(source, help=help_text, description=f"{help_text}. {_SPLIT}", allow_abbrev=False)
        importer.set_defaults(task=_import)
        beside = source == "slices"
        relative = "the list's folder, where volumes are written" if beside else "it"
        importer.add_argument("root", type=some_path, help=f"the folder; paths in the list are relative to {relative}")
        importer.add_argument("-o", "--output", type=some_path, help="the list to write (default: ROOT/datalist.json)")
        importer.add_argument("--name", help="the list's name (default: the folder's)")
        importer.add_argument("--folds", type=int, default=5, help="validation folds (default 5)")
        importer.add_argument(
            "--test",
            type=float,
            default=0.0,
            help="share of the labelled items held out as test list, whole patients at a time; 1: all (default 0)",
        )
        importer.add_argument("--seed", type=int, default=0, help="seed of the split (default 0)")
        importer.add_argument(
            "--folds-from", type=some_path, help="take every patient's fold from this list, instead of splitting anew"
        )
        importer.add_argument("--from", dest="origin", help="where the data come from, written into the list")
        importer.add_argument("--licence", help="the data's licence, written into the list")
        importer.set_defaults(table=None, types=None, typed=False, labelled=None, hu=None, pixel_mm=None, slice_mm=None)
        if source == "lits":
            importer.add_argument(
                "--labelled",
                choices=["liver"],
                help="another set in this layout, whose label maps outline the whole liver and tell no lesions apart; "
                "needs --name, --from and --licence",
            )
        if source == "slices":
            importer.add_argument(
                "--labelled",
                choices=["liver"],
                help="masks of 0, and 1 or 255, outline the whole liver and tell no lesions apart (default: they hold "
                "values of the label table)",
            )
            _add_hu(importer)
            importer.add_argument("--pixel-mm", type=float, help="edge of a pixel in mm; needed for PNG and JPEG")
            importer.add_argument(
                "--slice-mm",
                type=float,
                help=f"slice distance in mm where files do not tell it (default {SLICE_MM:g})",
            )
        if source in ("cohort", "slices"):
            importer.add_argument("--table", help="the table's name in ROOT (default: slices.csv or slices.xlsx)")
            importer.add_argument(
                "--types", type=some_path, help="JSON or CSV that maps your words to cyst, hemangioma, metastasis"
            )
        if source == "ircadb":
            importer.add_argument(
                "--typed",
                action="store_true",
                help="keep only patients whose lesions are all cysts, as a list for the joint bundle",
            )
    _add_join(tasks)
    check = _of_a_list(tasks, "check", "every defect of a list's files in one table; exit code 1 on errors")
    check.set_defaults(task=_check)
    check.add_argument("--report", type=some_path, help="also write the table as CSV")
    check.add_argument("--against", type=some_path, help="another list that must have none of this one's patients")
    check.add_argument(
        "--repair",
        type=some_path,
        help="folder outside the data's: copies of labels with flipped or reset headers, mended, and a list of them",
    )
    describe = _of_a_list(tasks, "describe", "what a list holds, in numbers and a picture")
    describe.set_defaults(task=_describe)
    describe.add_argument("-o", "--output", type=some_path, help="folder for the tables as CSV and the picture")


def _add_join(tasks: Any) -> None:
    """Declare `join` and its arguments."""
    help_text = "several lists as one, with paths from one folder"
    join = tasks.add_parser(
        "join",
        help=help_text,
        description="Several lists of one label table as one. Nothing is copied, and every item keeps its fold.",
        allow_abbrev=False,
    )
    join.set_defaults(task=_join)
    join.add_argument("lists", nargs="+", type=some_path, metavar="list", help="the lists, two or more")
    join.add_argument("-o", "--output", type=some_path, required=True, help="the list to write")
    join.add_argument("--name", help="its name (default: those of the lists, with + between)")
    join.add_argument(
        "--dataset-dirs",
        nargs="+",
        type=some_path,
        metavar="DIR",
        help="folder of each list's paths, in the order of the lists (default: each list's own)",
    )
    join.add_argument("--root", type=some_path, help="folder the new paths are relative to (default: the new list's)")
    join.add_argument("--folds", type=int, help="split all training items anew (default: every item keeps its fold)")
    join.add_argument("--seed", type=int, default=0, help="seed of that split (default 0)")
    join.add_argument(
        "--prefix-patients",
        action="store_true",
        help="begin every patient's name with its list's, where lists call different people the same",
    )
    join.add_argument(
        "--same-patients",
        action="store_true",
        help="patients of one name are the same people, as in a list and its copies with synthetic lesions",
    )


def _add_hu(parser: argparse.ArgumentParser) -> None:
    """Declare --hu, whose value may begin with a minus sign."""
    parser.add_argument(
        "--hu",
        type=hu_range,
        metavar="LOW:HIGH",
        help="HU of the lowest and of the highest value that a pixel can have, as 0:255 or -100:240; needed for PNG "
        "and JPEG, HU beyond are taken to be clipped",
    )
    # Python before 3.14 takes -100:240 for an option otherwise
    parser._negative_number_matcher = re.compile(r"-\.?\d")


def _of_a_list(tasks: Any, name: str, help_text: str) -> argparse.ArgumentParser:
    """The parser of a task that reads a list and its files."""
    description = f"{help_text.capitalize()}. Every file of the list is read."
    task: argparse.ArgumentParser = tasks.add_parser(name, help=help_text, description=description, allow_abbrev=False)
    add_list_arguments(task)
    return task


def run(args: argparse.Namespace) -> ExitCode:
    """Run the verb; returns its exit code."""
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
        _tell_folder(path, args.root)
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
        _tell_folder(path, args.root)
    return ExitCode.DONE


def _tell_folder(written: Path, folder: Path) -> None:
    """What the next command needs where a list is not in the folder of its files: on stderr, stdout has its path."""
    if written.parent.resolve() != folder.resolve():
        option = f"--dataset-dir {shlex.quote(str(folder))}"
        print(f"its paths are relative to {folder}: give {option} with it", file=sys.stderr)


def _check(args: argparse.Namespace) -> ExitCode:
    # imported here: connected components are slow to import, and no importer needs them
    from liverseg.datalists.check import check_datalist, check_report, describe_findings, write_findings
    from liverseg.datalists.repair import check_repair_folder, repair_copies

    folder = args.dataset_dir or args.list.parent
    # every file is read in between: what can be refused before is
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
        _tell_folder(repaired, folder)
    return ExitCode.FAILED if (findings["level"] == "error").any() else ExitCode.DONE


def _describe(args: argparse.Namespace) -> ExitCode:
    from liverseg.datalists.describe import describe_datalist  # as above

    description = describe_datalist(args.list, args.dataset_dir or args.list.parent, workers=args.workers)
    print(description.table.to_string())
    print("Three numbers are the median and, in brackets, the 5 % and 95 % quantile.")
    if args.output:
        print(description.write(args.output))
    return ExitCode.DONE
