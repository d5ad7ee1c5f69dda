"""The folders' order in docs/how_it_works.md is the order of imports."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "how_it_works.md").read_text(encoding="utf-8")
FOLDERS = re.findall(r"^\| `(\w+)/?` \|", PAGE, re.MULTILINE)
PACKAGE = ROOT / "liverseg"


def imported_modules(path):
    """Return the names of the `liverseg` modules that a file imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        yield from (name for name in names if name.startswith("liverseg."))


def test_table_lists_every_folder():
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert sorted(FOLDERS) == sorted(modules | packages)


def test_imports_point_upwards_in_the_table():
    against = []
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts == ("__init__",):
            continue
        allowed = FOLDERS[: FOLDERS.index(parts[0]) + 1]
        for name in imported_modules(path):
            folder = name.split(".")[1]
            if folder in FOLDERS and folder not in allowed:
                against.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not against


def test_each_class_has_a_name_to_itself():
    places = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name.lstrip("_"), []).append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert len(places) > 100
    assert {name: lines for name, lines in places.items() if len(lines) > 1} == {}


def test_documents_name_modules_that_exist():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "bundles").glob("*/docs/*.md")]
    missing = {
        f"{page.relative_to(ROOT)}: {name}"
        for page in pages
        if page.name != "CHANGELOG.md"
        for name in re.findall(r"`(liverseg/[\w/.]+)`", page.read_text(encoding="utf-8"))
        if not (ROOT / name).exists()
    }
    assert not missing
