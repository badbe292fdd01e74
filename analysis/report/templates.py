"""How the pages of this folder are made from their templates: escaped, strict about missing values, styled alike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["environment", "source"]

_FOLDER = Path(__file__).parent


def environment() -> Environment:
    """Templates of this folder with the style sheet as `css`; a name that is not given is an error, not empty."""
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["css"] = source("style.css")
    return made


def source(file: str) -> Markup:
    """The text of a file of this folder, to be put into a page as it is."""
    return Markup((_FOLDER / file).read_text(encoding="utf-8"))
