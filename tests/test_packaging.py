"""The promises of pyproject.toml, constraints.txt and the floors, checked against what is there."""

from __future__ import annotations

import importlib.metadata
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import testbed

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ABOVE_FLOOR_0 = {"__main__", "cli", "engines", "finetune", "options", "simulation"}


def pinned_versions() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def test_constraints_are_exact_and_portable() -> None:
    # A local version tag, a path or an address would tie the file to the machine that wrote it.
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line)] == []


@pytest.mark.parametrize("extra", [None, "dev"])
def test_every_requirement_is_pinned_within_its_range(extra: str | None) -> None:
    project = PROJECT["project"]
    requirements = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
    pins = pinned_versions()
    for requirement in map(Requirement, requirements):
        name = canonicalize_name(requirement.name)
        assert name in pins
        assert requirement.specifier.contains(pins[name])


def test_version_is_stated_once_and_the_same() -> None:
    assert testbed.__version__ == PROJECT["project"]["version"]


def test_console_script_points_at_the_command_line() -> None:
    assert PROJECT["project"]["scripts"] == {"testbed": "testbed.cli:main"}
    scripts = importlib.metadata.entry_points(group="console_scripts", name="testbed")
    assert [script.value for script in scripts] == ["testbed.cli:main"]


def test_report_ships_its_templates() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["analysis.report"]
    folder = ROOT / "analysis" / "report"
    shipped = {path for pattern in patterns for path in folder.glob(pattern)}
    others = {path for path in folder.iterdir() if path.is_file() and path.suffix != ".py"}
    assert shipped == others
    assert shipped


def test_floor_0_loads_nothing_but_torch() -> None:
    # A fresh interpreter, because this one has loaded everything already.
    modules = [m.name for m in pkgutil.iter_modules(testbed.__path__) if m.name not in ABOVE_FLOOR_0]
    assert "objectives" in modules
    program = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module('testbed.' + name)\n"
        "heavy = ['pandas', 'gymnasium', 'transformers', 'matplotlib', 'seaborn', 'typer']\n"
        "rooms = ['envs', 'models', 'analysis']\n"
        "print([name for name in heavy + rooms if name in sys.modules])\n"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert result.stderr == ""
    assert result.stdout.strip() == "[]"
