"""Every registered objective has value tests, and they notice when the objective is broken on purpose.

`tests/objectives/test_<name>.py` holds the value tests, functions whose names start with `test_value`, and `mutate`,
which breaks the objective through monkeypatching: a flipped sign, a swapped bound, a lost stop-gradient.
"""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from testbed.objectives import objective_names


def load(name: str) -> ModuleType:
    path = Path(__file__).parent / f"test_{name}.py"
    assert path.exists(), f"{name} is registered without {path.name}"
    specification = importlib.util.spec_from_file_location(f"values_of_{name}", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def failures(module: ModuleType, fixtures: dict[str, Any]) -> list[str]:
    tests = [(name, test) for name, test in vars(module).items() if name.startswith("test_value")]
    assert tests, f"{module.__name__} has no function test_value…"
    failed = []
    for name, test in tests:
        arguments = {key: fixtures[key] for key in inspect.signature(test).parameters}
        try:
            test(**arguments)
        except AssertionError:
            failed.append(name)
    return failed


@pytest.mark.parametrize("name", objective_names())
def test_a_broken_variant_fails_its_value_tests(name: str, tokens: Any, check: Any) -> None:
    module, fixtures = load(name), {"tokens": tokens, "check": check}
    assert failures(module, fixtures) == []
    with pytest.MonkeyPatch.context() as patch:
        module.mutate(patch)
        assert failures(module, fixtures) != [], f"{name}: {inspect.getdoc(module.mutate)}: no value test noticed"
