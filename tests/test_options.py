"""The options of `compare` and `sweep` are the fields of the settings, read without importing them."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import testbed.simulation.settings
from testbed.cli import app
from testbed.options import documented_fields, with_options
from testbed.simulation import Settings, simulate

FILE = testbed.simulation.settings.__file__
LISTED = documented_fields(FILE, "Settings")


def test_reading_the_file_finds_what_importing_finds() -> None:
    assert [item.name for item in LISTED] == [item.name for item in fields(Settings)]
    assert {item.name: item.default for item in LISTED} == {item.name: item.default for item in fields(Settings)}
    assert all(item.doc.endswith((".", "`")) for item in LISTED)


def test_the_signature_of_simulate_lists_every_setting() -> None:
    parameters = inspect.signature(simulate).parameters
    assert list(parameters)[:6] == ["objective", "env", "model", "initial", "seeds", "seed"]
    assert {name: item.default for name, item in parameters.items() if name in vars(Settings())} == {
        item.name: item.default for item in fields(Settings)
    }


@pytest.mark.parametrize("command", ["compare", "sweep"])
def test_every_setting_is_an_option_with_its_doc_line(command: str) -> None:
    shown = " ".join(CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output.split())
    for item in LISTED:
        assert f"--{item.name.replace('_', '-')} " in shown
        assert item.doc.split(",")[0] in shown


@pytest.fixture
def seen() -> dict[str, Any]:
    return {}


def called(seen: dict[str, Any], defaults: dict[str, Any] | None, *arguments: str) -> dict[str, Any]:
    program = typer.Typer()

    @program.command()
    @with_options(LISTED, defaults)
    def command(name: str, **settings: Any) -> None:
        seen.update(settings, name=name)

    done = CliRunner().invoke(program, ["it", *arguments])
    assert done.exit_code == 0, done.output
    return seen


def test_a_command_gets_what_was_given(seen: dict[str, Any]) -> None:
    given = ["--epochs", "2", "--mismatch", "0.1", "--no-sampled-metrics", "--learning-rate", "3"]
    expected = {"name": "it", "epochs": 2, "mismatch": 0.1, "sampled_metrics": False, "learning_rate": 3.0}
    assert called(seen, None, *given) == expected


def test_text_stays_text_where_a_number_may_stand(seen: dict[str, Any]) -> None:
    assert called(seen, None, "--mismatch", "noise(scale=0.1)")["mismatch"] == "noise(scale=0.1)"


def test_defaults_are_those_of_the_fields_or_the_commands(seen: dict[str, Any]) -> None:
    found = called(seen, {"steps": 7})
    assert (found["steps"], found["epochs"], found["device"]) == (7, 4, "cpu")
    assert "advantage" not in found
    assert Settings(**{name: value for name, value in found.items() if name != "name"}) == Settings(steps=7)


def test_a_field_without_a_text_is_no_option(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('class A:\n    shown: int = 1\n    """Shown."""\n    hidden: int = 2\n')
    assert [item.name for item in documented_fields(tmp_path / "a.py", "A")] == ["shown"]
