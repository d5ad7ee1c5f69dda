"""HTML pages from the templates in `liverseg/templates`."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from liverseg.errors import LiversegError

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

__all__ = ["TEMPLATES", "read_markup", "render"]

TEMPLATES = Path(__file__).parents[1] / "templates"


def render(template: str, /, **values: Any) -> str:
    """Fill in a template of `TEMPLATES`.

    Every value is escaped, in text and in attributes, unless it is a `markupsafe.Markup`. The same values give the same
    text.

    Raises:
        LiversegError: if the installed package lacks a template.
    """
    try:
        return _environment().get_template(template).render(values)
    except OSError as error:  # TemplateNotFound is an OSError
        raise _unreadable(getattr(error, "name", None) or template, error) from error


def read_markup(name: str) -> Markup:
    """Read a file of `TEMPLATES` that goes into a page as it is, such as a script.

    Raises:
        LiversegError: if the installed package lacks it.
    """
    from markupsafe import Markup

    try:
        return Markup((TEMPLATES / name).read_text(encoding="utf-8"))
    except OSError as error:
        raise _unreadable(name, error) from error


@cache
def _environment() -> Environment:
    # imported here: most runs write no page
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}  # NaN is not JSON
    return environment


def _unreadable(name: str, error: OSError) -> LiversegError:
    return LiversegError(f"{TEMPLATES / name}: cannot be read ({error.strerror or error}); install liverseg again")
