"""Simulation and verification testbed for the policy objectives of LLM reinforcement learning.

`TokenBatch` is loaded on first use, so that importing the package (and `testbed --help`) stays instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from testbed.batch import TokenBatch

__all__ = ["TokenBatch", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "TokenBatch":
        from testbed.batch import TokenBatch

        return TokenBatch
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
