"""From the rewards of a group to the advantages of its responses.

One file per estimator; every file is discovered, none is listed.

Every estimator maps rewards `(..., P, G)`, P prompts with G responses each after any replica dimensions, to
advantages of the same shape. All of them are constants for differentiation.

All read rewards alike: half precision is widened to float32, whole numbers are refused, and a reward that is NaN or
infinite is a `BatchError` that names its place, because it would decide the advantage of its whole group.

>>> import torch
>>> from testbed.advantages import make_advantage_estimator
>>> make_advantage_estimator("leave_one_out")(torch.tensor([[1.0, 0.0]])).tolist()
[[1.0, -1.0]]
"""

from __future__ import annotations

from testbed.advantages._base import (
    advantage_names,
    advantages,
    check_group_size,
    estimate,
    inputs_of,
    make_advantage_estimator,
    zero_variance,
)
from testbed.advantages.group import group_centred, group_standardised, leave_one_out
from testbed.advantages.smooth import SmoothStandardisation

__all__ = [
    "SmoothStandardisation",
    "advantage_names",
    "advantages",
    "check_group_size",
    "estimate",
    "group_centred",
    "group_standardised",
    "inputs_of",
    "leave_one_out",
    "make_advantage_estimator",
    "zero_variance",
]
