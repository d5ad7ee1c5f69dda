"""Names of a package that are imported when they are first used (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

__all__ = ["lazy_imports"]


def lazy_imports(package: str, names: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Return a package's `__getattr__`, which imports the module of a name when the name is first used.

    So a package can offer functions that need torch or MONAI, whose imports take seconds, beside functions that do not.

    Args:
        package: `__name__` of the package.
        names: what each of its modules defines, by the module's name within the package.
    """
    modules = {name: f"{package}.{module}" for module, defined in names.items() for name in defined}

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(modules[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return get
