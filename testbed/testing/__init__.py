"""A loss of anybody's, in anybody's tests: does it conform to a published objective, and does it obey the laws?

>>> import torch
>>> from testbed.testing import assert_conforms
>>> def my_grpo(log_probs, old_log_probs, advantages, mask):
...     ratio = torch.exp(log_probs - old_log_probs)
...     return -torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
>>> assert_conforms(my_grpo, "grpo")
"""

from __future__ import annotations

from testbed.testing.conformance import assert_conforms

__all__ = ["assert_conforms"]
