"""The examples in docstrings run."""

import doctest
import importlib
from pathlib import Path

import pytest

import liverseg

PACKAGE = Path(liverseg.__file__).parent
WITH_EXAMPLES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.integration
@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_of_a_module(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
