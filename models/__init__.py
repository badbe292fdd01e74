"""Toy policies over a leading replica dimension; none of them knows an objective or an environment."""

from __future__ import annotations

from models.policy import Episodes, Policy, make_policy, policy_names

__all__ = ["Episodes", "Policy", "make_policy", "policy_names"]
