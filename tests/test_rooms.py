"""Rooms are entered by their doors: no module imports another package's private modules or names.

import-linter's contract keeps private modules at home; that every name with an underscore stays there too, and that
tests enter what they mirror only, it cannot say.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

from tests.private_modules import PrivateModules

ROOT = Path(__file__).parents[1]
PACKAGES = ("analysis", "envs", "models", "testbed")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Dotted names a file imports, `package.module.name` for `from package.module import name`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_private(part: str) -> bool:
    return part.startswith("_") and not part.startswith("__")


def trespasses(package: str, imported: str) -> bool:
    """Whether a file of this package may not import that: it is private to a package the file is not in."""
    parts = imported.split(".")
    for place, part in enumerate(parts):
        if is_private(part):
            # A private module belongs to its package, a private name to its module's package.
            module = (ROOT / Path(*parts[: place + 1])).with_suffix(".py").is_file()
            home = ".".join(parts[: place if module else place - 1])
            return parts[0] in PACKAGES and not f"{package}.".startswith(f"{home}.")
    return False


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_private_is_imported_from_another_package(path: Path) -> None:
    package = ".".join(path.relative_to(ROOT).parent.parts)
    assert [name for name in imports(path) if trespasses(package, name)] == []


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: path.name)
def test_a_test_enters_private_modules_of_the_package_it_mirrors_only(path: Path) -> None:
    mirrored = path.relative_to(ROOT / "tests").parent.parts
    homes = {".".join(mirrored), ".".join(("testbed", *mirrored))}
    modules = [name.rpartition(".")[0] for name in imports(path)] + list(imports(path))
    private = {name for name in modules if name.split(".")[0] in PACKAGES and is_module(name)}
    assert {name for name in private if not any(f"{name}.".startswith(f"{home}.") for home in homes)} == set()


def is_module(name: str) -> bool:
    """Whether this is a private module."""
    parts = name.split(".")
    return is_private(parts[-1]) and (ROOT / Path(*parts)).with_suffix(".py").is_file()


@pytest.mark.parametrize(
    ("package", "imported", "refused"),
    [
        ("analysis.claims", "testbed.objectives._base.Wrapper", True),
        ("testbed.objectives", "testbed.objectives._base.Wrapper", False),
        ("analysis", "analysis.theory._prediction", True),
        ("analysis.theory", "analysis.theory._prediction", False),
        ("analysis", "testbed.finetune._trainer_settings", True),
        ("testbed", "testbed.finetune._trainer_settings", False),
        ("analysis", "torch._dynamo", False),
        ("analysis", "analysis.verify.__doc__", False),
    ],
)
def test_what_trespassing_is(package: str, imported: str, refused: bool) -> None:
    assert trespasses(package, imported) == refused


def test_the_contract_names_who_enters_a_private_module_from_outside() -> None:
    graph = grimp.ImportGraph()
    for importer in ("testbed.objectives.erc", "testbed.cli"):
        graph.add_import(importer=importer, imported="testbed.objectives._base")
    check = PrivateModules("private", {}, {}).check(graph, verbose=False)
    assert check.metadata["trespasses"] == [("testbed.cli", "testbed.objectives._base")]
    assert not check.kept
