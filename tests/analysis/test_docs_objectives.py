from __future__ import annotations

from dataclasses import fields

import pytest

from analysis.docs_objectives import PICTURES, hyper_parameter_docs, objectives_page, picture_path, picture_signature
from testbed.objectives import make_objective, objective_names


@pytest.mark.parametrize("name", objective_names())
def test_every_hyper_parameter_has_a_doc_line(name):
    objective_class = type(make_objective(name))
    assert set(hyper_parameter_docs(objective_class)) >= {item.name for item in fields(objective_class)}


@pytest.fixture(scope="module")
def page():
    return objectives_page()


@pytest.mark.parametrize("name", objective_names())
def test_every_objective_has_a_section_with_its_parts(name, page):
    section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
    for part in ("```text", "**Reference.**", "**Departures.**", "**Gradient.**", f"](objectives/{name}.svg)"):
        assert part in section
    for item in fields(type(make_objective(name))):
        assert f"| `{item.name}` | " in section


@pytest.mark.parametrize("name", objective_names())
def test_pictures_show_what_the_objectives_do_now(name):
    drawn = picture_path(name).read_text(encoding="utf-8")
    assert drawn.endswith(f"<!-- {picture_signature(name)} -->\n"), "run: python -m analysis.docs_objectives"


def test_no_picture_of_an_objective_that_is_gone():
    assert {path.stem for path in PICTURES.glob("*.svg")} == set(objective_names())
