"""Count modules and imports of the package, and the modules that a command passes through.

python benchmarks/structure.py imports [CHECKOUT]
python benchmarks/structure.py walk [--checkout CHECKOUT] predict scan.nii.gz results --liver none

`walk` runs a `liverseg` command and its worker processes under a profiler. A crossing is a pair of functions of
different modules, the first of which calls the second, directly or through a library. Calls during imports are not
counted.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PROFILER = """
import atexit, json, os, sys, threading

root, folder = os.environ["WALK_PACKAGE"] + os.sep, os.environ["WALK_OUTPUT"]
calls = set()
OPTIMIZED = 1  # code flag that functions have, and class bodies and modules have not


def module(code):
    return code.co_filename[len(root):] if code.co_filename.startswith(root) else None


def is_function(code):
    return module(code) is not None and code.co_flags & OPTIMIZED and not code.co_name.startswith("<")


def on_call(frame, event, argument):
    if event != "call" or not is_function(frame.f_code):
        return
    caller = frame.f_back
    while caller is not None and not is_function(caller.f_code):
        if module(caller.f_code) and not caller.f_code.co_flags & OPTIMIZED:
            return  # an import is running
        caller = caller.f_back
    code = caller.f_code if caller is not None else None
    source = (module(code), code.co_qualname) if code is not None else (None, None)
    calls.add((*source, module(frame.f_code), frame.f_code.co_qualname))


def write():
    sys.setprofile(None)
    threading.setprofile(None)
    with open(os.path.join(folder, f"{os.getpid()}.json"), "w") as file:
        json.dump(list(calls), file)


def leave(code, leave=os._exit):
    write()
    leave(code)


os._exit = leave  # called by workers of a batch at their end
atexit.register(write)
threading.setprofile(on_call)
sys.setprofile(on_call)
"""
"""Content of a `sitecustomize` module, which every Python process imports at its start."""


def main() -> None:
    """Run the chosen command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    imports = commands.add_parser("imports")
    imports.add_argument("checkout", nargs="?", type=Path, default=Path())
    walk = commands.add_parser("walk")
    walk.add_argument("--checkout", type=Path, default=Path())
    walk.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if options.command == "imports":
        count_imports(options.checkout.resolve())
    else:
        count_calls(options.checkout.resolve(), options.arguments)


def count_imports(checkout: Path) -> None:
    """Print the numbers of modules and of modules with one importer, and an import circle if there is one."""
    paths = {
        ".".join(path.relative_to(checkout).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (checkout / "liverseg").rglob("*.py")
    }
    graph = {name: set(_imported(path, paths)) - {name} for name, path in paths.items()}
    importers = Counter(target for targets in graph.values() for target in targets)
    print("modules", len(paths))
    print("modules at the top", sum(path.parent == checkout / "liverseg" for path in paths.values()))
    print("modules with one importer", sum(importers[name] == 1 for name in paths))
    # `liverseg` itself imports its functions when they are first used
    modules = {name: targets - {"liverseg"} for name, targets in graph.items() if name != "liverseg"}
    print("circle of imports", _circle(modules) or "none")


def _imported(path: Path, modules: dict[str, Path]) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [name if name in modules else node.module for name in full]
    return [name for name in found if name in modules]


def _circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def count_calls(checkout: Path, arguments: list[str]) -> None:
    """Run a command and print the modules, functions, crossings and pairs of modules of each process."""
    with tempfile.TemporaryDirectory() as folder:
        hook = Path(folder) / "hook"
        hook.mkdir()
        (hook / "sitecustomize.py").write_text(PROFILER, encoding="utf-8")
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(hook), str(checkout)]),
            "WALK_PACKAGE": str(checkout / "liverseg"),
            "WALK_OUTPUT": folder,
        }
        start = "import sys; sys.argv[0] = 'liverseg'; from liverseg.cli.main import main; sys.exit(main())"
        code = subprocess.run([sys.executable, "-c", start, *arguments], env=environment, check=False).returncode
        print("exit code", code)
        union: set[str] = set()
        for path in sorted(Path(folder).glob("*.json")):
            rows = json.loads(path.read_text(encoding="utf-8"))
            modules = {row[2] for row in rows}
            if not modules:
                continue
            crossings = {tuple(row) for row in rows if row[0] not in (None, row[2])}
            print(
                f"process {path.stem}: {len(modules)} modules, {len({(row[2], row[3]) for row in rows})} functions, "
                f"{len(crossings)} crossings, {len({(row[0], row[2]) for row in crossings})} pairs of modules"
            )
            union |= modules
        print("modules in all processes", len(union))


if __name__ == "__main__":
    main()
