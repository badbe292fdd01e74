"""import-linter's contract that a private module is imported within its own package alone."""

from __future__ import annotations

from typing import Any

from importlinter import Contract, ContractCheck, output

__all__ = ["PrivateModules"]


class PrivateModules(Contract):
    """A module with a leading underscore belongs to the package it lies in: nobody outside that package imports it."""

    def check(self, graph: Any, verbose: bool) -> ContractCheck:
        trespasses = sorted(
            (importer, module)
            for module in graph.modules
            if (home := home_of(module)) is not None
            for importer in graph.find_modules_that_directly_import(module)
            if not f"{importer}.".startswith(f"{home}.")
        )
        return ContractCheck(kept=not trespasses, metadata={"trespasses": trespasses})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for importer, module in check.metadata["trespasses"]:
            output.print_error(f"{importer} imports {module}, which is private to {home_of(module)}")


def home_of(module: str) -> str | None:
    """The package that a private module belongs to; `None` for one that anybody may import.

    >>> home_of("testbed.objectives._base"), home_of("envs._tables.rows"), home_of("testbed.__main__")
    ('testbed.objectives', 'envs', None)
    """
    parts = module.split(".")
    for place, part in enumerate(parts):
        if place and part.startswith("_") and not part.startswith("__"):
            return ".".join(parts[:place])
    return None
