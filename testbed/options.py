"""Options of a command from the fields of a settings dataclass, their doc lines included.

The dataclass is read, not imported: what it needs would take longer to load than everything else that `--help` does.
"""

from __future__ import annotations

import ast
import inspect
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from testbed.reading import parse_literal

__all__ = ["DocumentedField", "documented_fields", "with_options"]

_KINDS: dict[str, type] = {"int": int, "float": float, "bool": bool, "str": str}


@dataclass(frozen=True)
class DocumentedField:
    """A field of a dataclass as its file says it."""

    name: str
    """The field."""
    annotation: str
    """Its type, such as `float | None`."""
    default: Any
    """Its default value; None where there is none."""
    doc: str
    """The text below it, on one line."""

    @property
    def kind(self) -> type:
        """What somebody types for it: text where several kinds are possible."""
        kinds = [_KINDS[name] for name in self.annotation.replace(" ", "").split("|") if name in _KINDS]
        return str if str in kinds else kinds[0]

    @property
    def mixed(self) -> bool:
        """Whether a number may stand where text may."""
        return "str" in self.annotation and "float" in self.annotation


def documented_fields(file: str | Path, name: str) -> list[DocumentedField]:
    """The public fields of a dataclass that have a text below them, in order.

    Args:
        file: where it is defined.
        name: of the class.

    Example:
        >>> found = documented_fields(__file__, "DocumentedField")
        >>> found[0].name, found[0].annotation, found[0].doc
        ('name', 'str', 'The field.')
    """
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    found = []
    for statement, below in itertools.pairwise(body):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            default = None if statement.value is None else ast.literal_eval(statement.value)
            doc = " ".join(str(below.value.value).split())
            found.append(DocumentedField(statement.target.id, ast.unparse(statement.annotation), default, doc))
    return found


def with_options(
    listed: list[DocumentedField], defaults: Mapping[str, Any] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: give a command that takes `**settings` one option per field; it is called with those that were given.

    Args:
        listed: the fields.
        defaults: values that differ from those of the fields; `None`: no option has a default.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = [
            item
            for item in inspect.signature(command).parameters.values()
            if item.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        options = [
            inspect.Parameter(
                item.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None if defaults is None else defaults.get(item.name, item.default),
                annotation=Annotated[item.kind | None, typer.Option(help=item.doc)],
            )
            for item in listed
        ]
        mixed = {item.name for item in listed if item.mixed}

        def called(*arguments: Any, **written: Any) -> Any:
            given = {name: value for name, value in written.items() if value is not None}
            return command(
                *arguments,
                **{name: parse_literal(value) if name in mixed else value for name, value in given.items()},
            )

        called.__name__, called.__doc__ = command.__name__, command.__doc__
        annotations = inspect.get_annotations(command, eval_str=True)
        called.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [item.replace(annotation=annotations[item.name]) for item in own] + options
        )
        return called

    return decorate
