"""A loss of anybody's, in anybody's tests: does it conform to a published objective, and does it obey the laws?

>>> import torch
>>> from testbed.testing import assert_conforms, assert_lawful
>>> def my_grpo(log_probs, old_log_probs, advantages, mask):
...     ratio = torch.exp(log_probs - old_log_probs)
...     return -torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
>>> assert_conforms(my_grpo, "grpo")
>>> assert_lawful(my_grpo)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from testbed.testing.conformance import assert_conforms
    from testbed.testing.lawful import assert_lawful, exempt_laws, law_names

__all__ = ["assert_conforms", "assert_lawful", "exempt_laws", "law_names"]


def __getattr__(name: str) -> Any:
    # Every pytest loads the plugin of this package; those that test no loss must not wait for torch.
    if name == "assert_conforms":
        from testbed.testing.conformance import assert_conforms

        return assert_conforms
    if name in __all__:
        from testbed.testing import lawful

        return getattr(lawful, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
