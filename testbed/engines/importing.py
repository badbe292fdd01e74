"""One module of an engine, without what the packages around it need: a loss is a page of PyTorch, its engine is not."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from testbed.errors import ConfigError

__all__ = ["import_alone"]


def import_alone(name: str, *, stand_ins: Collection[str] = ()) -> ModuleType:
    """Import a module of an engine without running its parents' `__init__`.

    What it imports itself is imported; modules of the engine that come with it are forgotten again, so that somebody
    who imports the whole engine later gets the whole engine.

    Args:
        name: the module, with its packages.
        stand_ins: packages that it imports and that nothing called here uses, such as a cluster's client; where one is
            not installed, something that takes any attribute stands in its place. Modules of the engine itself are
            always replaced.

    Raises:
        ConfigError: a package it needs is missing; the message names it.
    """
    top = name.partition(".")[0]
    before = {key: module for key, module in sys.modules.items() if _belongs(key, top)}
    for key in before:
        del sys.modules[key]
    absent = [
        package
        for package in stand_ins
        if _belongs(package, top) or (package not in sys.modules and not _found(package))
    ]
    finder = _StandInFinder(absent)
    sys.meta_path.insert(0, finder)
    try:
        with _bare_parents(name), warnings.catch_warnings():
            # What an engine's own dependencies deprecate is not the reader's concern.
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{top} is installed, but {name} does not import here: {error.name} is missing. Install it beside {top}"
        ) from error
    finally:
        sys.meta_path.remove(finder)
        for key in [key for key in sys.modules if any(_belongs(key, package) for package in (top, *absent))]:
            del sys.modules[key]
        sys.modules.update(before)


def _belongs(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _found(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:
        # Somebody else's stand-in has no specification.
        return True


@contextmanager
def _bare_parents(name: str) -> Iterator[None]:
    """Packages that know where their modules are and have run nothing."""
    packages = name.split(".")[:-1]
    specification = importlib.util.find_spec(packages[0])
    if specification is None or specification.submodule_search_locations is None:
        raise ConfigError(f"{packages[0]} is not installed")
    places = list(specification.submodule_search_locations)
    for depth, package in enumerate(packages):
        if depth:
            places = [str(Path(place) / package) for place in places]
        full = ".".join(packages[: depth + 1])
        bare = ModuleType(full)
        bare.__path__ = places
        bare.__spec__ = importlib.machinery.ModuleSpec(full, None, is_package=True)
        sys.modules[full] = bare
    yield


class _StandIn:
    """Takes any attribute and any call, and may be a base class or a decorator."""

    def __getattr__(self, name: str) -> _StandIn:
        if name.startswith("__"):
            raise AttributeError(name)
        return _StandIn()

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        # A decorator leaves what it decorates as it is.
        if len(arguments) == 1 and not keywords and (callable(arguments[0]) or isinstance(arguments[0], type)):
            return arguments[0]
        return _StandIn()

    def __bool__(self) -> bool:
        # Whether a cluster is there, say: no.
        return False

    def __or__(self, other: object) -> _StandIn:
        return self

    __ror__ = __or__

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return ()


class _StandInModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _StandIn()


class _StandInFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds packages that are not there."""

    def __init__(self, packages: Collection[str]) -> None:
        self._packages = packages

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if any(_belongs(fullname, package) for package in self._packages):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _StandInModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""
