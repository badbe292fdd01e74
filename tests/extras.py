"""The one way in which a test, a fixture or a whole file says that it needs an optional package.

Without the package what asked is skipped, and the reason names the extra that brings it. `TESTBED_EXTRAS` lists the
extras that are known to be installed, such as `llm`: there a missing package fails instead, so that tests meant to run
cannot fall silent.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType

import pytest

from models.pretrained import check_gguf
from testbed.errors import ConfigError

__all__ = ["needs", "needs_model"]

EXTRAS = {
    "accelerate": "llm",
    "datasets": "llm",
    "gguf": "pretrained",
    "math_verify": "dev",
    "peft": "llm",
    "playwright": "dev",
    "ray": "ray",
    "tensorboard": "",
    "transfer_queue": "verl",
    "trl": "llm",
    "verl": "verl",
}
"""Which extra of pyproject.toml brings a package; tensorboard comes with none."""


def needs(package: str) -> ModuleType:
    """The package, or what asked for it is skipped."""
    extra = EXTRAS[package]
    if extra in os.environ.get("TESTBED_EXTRAS", "").split():
        return importlib.import_module(package)
    return pytest.importorskip(package, reason=f"{package} is not installed" + (f" (extra {extra})" if extra else ""))


def needs_model(name: str) -> str:
    """The name of a model of `models.pretrained.PRETRAINED` whose file is here, or what asked for it is skipped."""
    needs("gguf")
    try:
        check_gguf(name)
    except ConfigError as error:
        if "pretrained" in os.environ.get("TESTBED_EXTRAS", "").split():
            raise
        pytest.skip(f"{error} (make pretrained)")
    return name
