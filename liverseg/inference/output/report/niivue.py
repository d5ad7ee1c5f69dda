"""NiiVue, the viewer of the report pages, which is part of the package so that pages work offline.

`tools/fetch_niivue.py` in the repository fetches the same file again.
"""

from __future__ import annotations

from pathlib import Path

from liverseg.errors import LiversegError

__all__ = ["NIIVUE", "VERSION", "library_source", "licences"]

VERSION = "0.69.0"
NIIVUE = Path(__file__).parent / "niivue"
"""Folder of the library and its licences."""


def library_source() -> str:
    """Return NiiVue as the text of an ES module.

    Raises:
        LiversegError: if the installed package lacks it.
    """
    # the last line names a source map, which a debugger would look for beside the page
    return _read("index.js").rpartition("//# sourceMappingURL=")[0]


def licences() -> str:
    """Return the licences of NiiVue and of the packages in it, which must go with every copy.

    Raises:
        LiversegError: if the installed package lacks them.
    """
    return f"NiiVue {VERSION}\n\n{_read('LICENSE')}\n{_read('THIRD_PARTY.txt')}"


def _read(name: str) -> str:
    try:
        return (NIIVUE / name).read_text(encoding="utf-8")
    except OSError as error:
        raise LiversegError(f"{NIIVUE / name}: cannot be read ({error.strerror}); install liverseg again") from error
