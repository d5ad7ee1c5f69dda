"""Words that this project does not use, in code, configs and pages: the field has better ones."""

import ast
import io
import re
import tokenize
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = [
    path
    for folder in ("liverseg", "benchmarks", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path != Path(__file__)
]
CONFIGS = sorted((ROOT / "bundles").rglob("*.yaml"))
PAGES = [path for name in ("*.md", "docs/*.md", "bundles/*/docs/*.md") for path in sorted(ROOT.glob(name))]

WORDS = {
    r"told|tells?": "report, log, print, say or state",
    r"begun": "started",
    r"whole(?! numbers?\b)": "complete, entire or atomic",
    r"in hand|in the hands of": "the field's term",
}
"""Patterns, each with what to write instead. "A whole number" is what messages call an integer."""

NAMES = r"(?:^|_)(?:told|tells?|begun|in_words|so_far)(?:_|$)|^one$|^hands?$"
"""Pattern of names of functions, classes, arguments and variables."""

EVENTS = {"begun", "run begun", "ray begun for it"}
"""Values in `run.jsonl` and `soak.jsonl`, formats that other programs read."""


def _prose(path):
    """Comments, docstrings and messages of a module, each with its line."""
    source = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in EVENTS:
            yield node.lineno, node.value


def _names(path):
    """Names that a module defines, each with its line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id


def _found(path, lines):
    for number, text in lines:
        for pattern, better in WORDS.items():
            for match in re.finditer(rf"\b(?:{pattern})\b", text, re.IGNORECASE):
                yield f"{path.relative_to(ROOT)}:{number}: {match[0]!r}; write {better}"


def test_words_of_modules():
    assert not [line for path in MODULES for line in _found(path, _prose(path))]


def test_names_in_modules():
    names = [(path.relative_to(ROOT), *found) for path in MODULES for found in _names(path)]
    assert len(names) > 10000
    assert not [found for found in names if re.search(NAMES, found[-1])]


def test_words_of_pages_and_configs():
    found = []
    for path in [*CONFIGS, *PAGES]:
        text = re.sub(r"`[^`\n]*`", "``", path.read_text(encoding="utf-8"))  # names and quotations stay
        found += _found(path, enumerate(text.splitlines(), 1))
    assert not found


def test_the_patterns_find_what_they_are_for():
    lines = [(1, "The user is told of it."), (2, "a whole number of slices"), (3, "the Whole file")]
    assert [text.split("'")[1] for text in _found(ROOT / "README.md", lines)] == ["told", "Whole"]
    names = ["in_words", "ended_in_words", "one", "hand", "zone", "untold", "handler"]
    assert [name for name in names if re.search(NAMES, name)] == names[:4]
