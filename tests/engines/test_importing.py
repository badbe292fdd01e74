from __future__ import annotations

import importlib
import sys

import pytest

from testbed.engines.importing import import_alone
from testbed.errors import ConfigError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes modules of a package of this name, whose `__init__` raises unless another is given."""

    def write(**modules):
        files = {"__init__": "raise RuntimeError('the whole engine')", **modules}
        for name, text in files.items():
            file = tmp_path / "someengine" / f"{name.replace('__sub__', 'losses/')}.py"
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()
        return tmp_path

    yield write
    for name in [name for name in sys.modules if name.startswith("someengine")]:
        del sys.modules[name]


def test_a_module_is_imported_without_its_package(package):
    package(
        __sub__policy="from someengine.helper import one\nfrom .other import two\nthree = one + two\n", helper="one = 1"
    )
    package(__sub__other="two = 2", __sub____init__="raise RuntimeError('the losses')")
    assert import_alone("someengine.losses.policy").three == 3


def test_nothing_of_the_engine_stays_behind(package):
    package(loss="value = 1")
    import_alone("someengine.loss")
    assert not [name for name in sys.modules if name.startswith("someengine")]


def test_what_was_imported_before_stays(package):
    package(__init__="whole = True", loss="value = 1")
    before = importlib.import_module("someengine")
    import_alone("someengine.loss")
    assert sys.modules["someengine"] is before
    assert before.whole


def test_a_package_that_is_missing_is_named(package):
    package(loss="import nowhere_to_be_found")
    message = "someengine is installed, but someengine.loss does not import here: nowhere_to_be_found is missing"
    with pytest.raises(ConfigError, match=message):
        import_alone("someengine.loss")


STANDING_IN = """
import nowhere
from nowhere.deep import Base, decorate

class Child(Base):
    pass

@decorate
def loss(value: Base | None = None):
    return 2

@decorate(1)
def other():
    return 3

ready = bool(nowhere.is_initialized())
"""


def test_a_stand_in_takes_what_a_module_does_at_import(package):
    package(loss=STANDING_IN)
    module = import_alone("someengine.loss", stand_ins=["nowhere"])
    assert (module.loss(), module.ready, module.Child.__bases__) == (2, False, (object,))
    assert "nowhere" not in sys.modules


def test_a_stand_in_replaces_a_module_of_the_engine_and_no_package_that_is_there(package):
    package(loss="import json\nfrom someengine.heavy import thing\ntext = json.dumps([1])", heavy="raise RuntimeError")
    module = import_alone("someengine.loss", stand_ins=["someengine.heavy", "json"])
    assert module.text == "[1]"


def test_an_engine_that_is_absent_is_named():
    with pytest.raises(ConfigError, match="nowhere is not installed"):
        import_alone("nowhere.loss")
