"""Experimental settings several papers' claims share, and what each is for.

Learning rates are per unit of a token mean: with P prompts a prompt's own step is 1/P of it. All arms of a claim use
one reduction, because reductions differ in scale and a difference of scale is not a difference of objectives.
"""

from __future__ import annotations

from typing import Any

from analysis.judging.estimands import at_matched

__all__ = ["AT_DIVERGENCE", "MODULAR_SUM", "NULL_REWARD", "STALE"]

MODULAR_SUM: dict[str, Any] = {
    "env": "ModularSum-v1",
    "steps": 60,
    "learning_rate": 16.0,
    "group_size": 16,
    "epochs": 4,
    "advantage": "group_standardised",
}
"""Six tokens whose sum must match the prompt: many solutions, so entropy need not fall for the reward to rise."""

NULL_REWARD: dict[str, Any] = MODULAR_SUM | {"env": "NullBandit-v1"}
"""A fair coin for every arm: whatever happens to the entropy is not learning."""

AT_DIVERGENCE = at_matched("exact/entropy", "exact/kl_cumulative", 0.7)
"""Entropy after equal movement: on modular sum every run passes 0.7 nats of summed divergence, most of them shortly
before the reward of 0.9 at which entropies are compared."""

STALE: dict[str, Any] = MODULAR_SUM | {"env": "ModularSum-v1(length=12)", "staleness": 8}
"""Twelve tokens, rollouts from the policy of eight iterations ago."""
