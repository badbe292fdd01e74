"""Toy policies over a leading replica dimension; none of them knows an objective or an environment."""

from __future__ import annotations

from models.policy import Policy, make_policy, policy_names

__all__ = ["Policy", "make_policy", "policy_names"]
