"""`docs/objectives.md` and its pictures, generated from the docstrings and fields of the registered objectives.

`python -m analysis.documents` writes the page; `python -m analysis.docs_objectives` draws the pictures.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np

from analysis.gradient_weights import describe, gradient_weight_curves, gradient_weight_figure
from analysis.plots import svg_source
from testbed.objectives import Objective, make_objective, objective_names
from testbed.reductions import reductions

__all__ = ["draw_pictures", "hyper_parameter_docs", "objectives_page", "picture_path", "picture_signature"]

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "objectives"

_INTRODUCTION = """\
# Objectives

Each loss is `make_objective("name", **hyper_parameters)`. r = p/q is the ratio of the current to the old probability of
a token, z = log r, A its advantage, ℓ its loss, and F its gradient weight: dℓ/dlog p = -F·A. Clip bounds are offsets
from 1 unless stated otherwise. Every objective also takes `reduction`; |z| is limited to 20, for ratios of whole
responses that of the response and not of its tokens.

The mean is over the B responses, of n_i tokens, and the N tokens of an optimiser step. It also decides what a
coefficient means: what a wrapper adds per token (an entropy bonus, a penalty) goes through the mean of its base, so
that one coefficient is n times as strong where the mean is (1/B) Σ_i Σ_t as where it is (1/N) Σ_i Σ_t. The bonus can
have a mean of its own.

![Weight of a token over the length of its response, by mean, whole and in two micro-batches](token_weights.svg)

`testbed.reductions.token_weights` gives the weight of every token in closed form, for a step that is split into
micro-batches too. Above, eight responses in two micro-batches, the short ones and the long ones: where each divides by
its own counts, a token mean lets the short responses weigh almost five times as much, and the means over responses are
as they were because both parts have four.

The pictures below show F for a response of a single token, beside PPO with a clip of 0.2.
"""


def objectives_page() -> str:
    """The page: a table of all objectives, then a section each."""
    rows = ["| objective | what it does | reduction | mean | advantage |", "|---|---|---|---|---|"]
    for name in objective_names():
        objective = make_objective(name)
        rows.append(
            f"| [`{name}`](#{name}) | {_cell(describe(name).splitlines()[0])} | `{objective.reduction}` "
            f"| {_mean(objective.reduction)} | `{objective.advantage}` |"
        )
    sections = (_section(make_objective(name)) for name in objective_names())
    return "\n".join([_INTRODUCTION, *rows, "", *sections])


def hyper_parameter_docs(objective_class: type[Objective]) -> dict[str, str]:
    """The doc line below each field, own and inherited.

    Example:
        >>> from testbed.objectives.dapo import DAPO
        >>> hyper_parameter_docs(DAPO)["clip_high"]
        'ε_high ≥ 0: the ratio may rise to 1 + ε_high.'
    """
    found: dict[str, str] = {}
    for level in reversed(objective_class.__mro__):
        if issubclass(level, Objective):
            found |= dict(_field_docs(level))
    return found


def picture_path(name: str) -> Path:
    """Where the picture of an objective lies."""
    return PICTURES / f"{name}.svg"


def picture_signature(name: str) -> str:
    """A digest of what the picture shows, to six digits: it tells an outdated picture from one drawn elsewhere."""
    digest = hashlib.sha256()
    for curve in gradient_weight_curves(name):
        # Adding 0 makes one of the two zeros.
        values = np.round(np.stack([curve.positive, curve.negative]), 6) + 0.0
        digest.update(curve.label.encode())
        digest.update(values.tobytes())
    return digest.hexdigest()[:16]


def draw_pictures() -> list[Path]:
    """Draw the picture of every objective; returns the files written."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    written = []
    for name in objective_names():
        path = picture_path(name)
        path.write_text(
            f"{svg_source(gradient_weight_figure(name)).rstrip()}\n<!-- {picture_signature(name)} -->\n",
            encoding="utf-8",
        )
        written.append(path)
    return written


def _section(objective: Objective) -> str:
    name, objective_class = objective.name, type(objective)
    text = describe(name)
    parts = [f"## {name}", "", _as_markdown(text), ""]
    documented = hyper_parameter_docs(objective_class)
    parts += ["| hyper-parameter | default | meaning |", "|---|---|---|"]
    for item in sorted(fields(objective_class), key=lambda item: item.name == "reduction"):
        default = objective.reduction if item.name == "reduction" else item.default
        parts.append(f"| `{item.name}` | `{default}` | {_cell(documented[item.name])} |")
    for preset, settings in objective_class.presets.items():
        written = ", ".join(f"{key}={value}" for key, value in settings.items())
        parts += ["", f'`preset="{preset}"`: `{written}`.']
    if objective.needs:
        parts += ["", f"Reads {', '.join(f'`{field}`' for field in objective.needs)} of the batch."]
    if objective.needs_whole_batch:
        parts += ["", "Needs the whole batch of an optimiser step: micro-batches give other numbers."]
    if objective.exact_on_policy:
        parts += ["", f"At ratio 1 its gradient is not the exact policy gradient: {objective.exact_on_policy}."]
    picture = picture_path(name).relative_to(ROOT / "docs").as_posix()
    parts += ["", f"![Gradient weight of {name} over the ratio, for positive and negative advantages]({picture})", ""]
    return "\n".join(parts)


def _as_markdown(text: str) -> str:
    """Indented formulas become code blocks; the named sections become paragraphs with a bold first word."""
    blocks: list[str] = []
    for block in text.split("\n\n"):
        lines = block.splitlines()
        if all(line.startswith("    ") for line in lines):
            blocks.append("```text\n" + textwrap.dedent(block) + "\n```")
            continue
        for line in lines:
            if line.startswith(("Reference:", "Departures:", "Gradient:")):
                title, _, rest = line.partition(":")
                blocks.append(f"**{title}.**{rest}")
            elif line.startswith("    ") or (blocks and lines[0] is not line):
                blocks[-1] += f"\n{line.strip()}"
            else:
                blocks.append(line)
    return "\n\n".join(blocks)


def _mean(reduction: str) -> str:
    """The formula that a reduction's docstring starts with."""
    return (inspect.getdoc(reductions[reduction]) or "").partition(":")[0].partition(" with ")[0].partition(",")[0]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _field_docs(level: type) -> Iterator[tuple[str, str]]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(level))).body
    assert isinstance(definition, ast.ClassDef)
    for statement, below in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            yield statement.target.id, " ".join(below.value.value.split())


if __name__ == "__main__":
    for drawn in draw_pictures():
        print(drawn.relative_to(ROOT))
